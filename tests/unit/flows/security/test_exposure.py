"""What other hosts could reach is refused without a password or TLS."""

import pytest

from flows.cluster.dask_client import check_encrypted
from flows.cluster.settings import ClusterSettings
from flows.security.addresses import is_loopback
from flows.services.prefect_server import check_exposed_server
from store.errors import BadInput


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("tcp://127.0.0.1:8786", True),
        ("http://[::1]:4200/api", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.5", False),
        ("tcp://node-1:8786", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(address, expected):
    assert is_loopback(address) is expected


@pytest.mark.parametrize("auth", ["", "password", ":password", "user:"])
def test_a_server_that_others_reach_needs_a_password(auth):
    with pytest.raises(BadInput, match=r"--host 0.0.0.0: .*PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD"):
        check_exposed_server("0.0.0.0", {"PREFECT_SERVER_API_AUTH_STRING": auth})
    check_exposed_server("0.0.0.0", {"PREFECT_SERVER_API_AUTH_STRING": "user:password"})
    check_exposed_server("127.0.0.1", {})


def test_a_scheduler_that_others_reach_needs_tls():
    def settings(address, **others):
        return ClusterSettings(kind="scheduler", scheduler=address, **others)

    with pytest.raises(BadInput, match=r"tcp://10.0.0.5:8786: a scheduler on another host without TLS"):
        check_encrypted(settings("tcp://10.0.0.5:8786"))
    check_encrypted(settings("tcp://10.0.0.5:8786", allow_plaintext=True))
    check_encrypted(settings("tls://10.0.0.5:8786", certificates="folder"))
    check_encrypted(settings("tcp://127.0.0.1:8786"))
    with pytest.raises(ValueError, match="--certificates with the folder"):
        settings("tls://10.0.0.5:8786")
