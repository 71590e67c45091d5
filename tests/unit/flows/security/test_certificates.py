"""Certificates that OpenSSL accepts between hosts of one folder, and refuses from another."""

import shutil
import socket
import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from flows.security.certificate_check import choose_host_certificate, read_certificates
from flows.security.certificates import make_certificates, write_dask_config
from flows.security.dask_tls import read_security
from store.errors import BadInput

HOSTS = ("node-1", "10.0.0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, HOSTS, 365)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """Return a copy of the folder that a test may damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def faults(folder, now=None):
    return {it.path.stem: it.fault for it in read_certificates(folder, now) if it.fault}


def handshake(server, client):
    """Return whether two ends agree by TLS, each of which asks for the other's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    try:
        for end in ends * 4:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLError:
        return False
    return all(end.getpeercert() for end in ends)


def contexts(folder):
    security = read_security(folder)
    return (
        security.get_listen_args("scheduler")["ssl_context"],
        security.get_connection_args("client")["ssl_context"],
    )


def alone(copy, host):
    for name in (*HOSTS, "ca"):
        (copy / f"{name}.key").unlink() if name != host else None
        (copy / f"{name}.pem").unlink() if name not in (host, "ca") else None
    return copy


def test_hosts_of_one_folder_connect_and_those_of_another_are_refused(folder, tmp_path):
    ours = alone(shutil.copytree(folder, tmp_path / "ours"), "node-1")
    theirs = alone(shutil.copytree(folder, tmp_path / "theirs"), "10.0.0.5")
    make_certificates(tmp_path / "foreign", ["node-1"], 365)
    server, _ = contexts(ours)
    assert handshake(server, contexts(theirs)[1])
    assert not handshake(server, contexts(tmp_path / "foreign")[1])


def test_keys_are_for_their_owner_only(folder):
    assert {stat.S_IMODE(it.stat().st_mode) for it in folder.glob("*.key")} == {0o600}


def test_an_existing_certificate_is_kept_unless_it_is_to_be_renewed(copy):
    before = (copy / "node-1.pem").read_bytes(), (copy / "ca.pem").read_bytes()
    with pytest.raises(BadInput, match=r"node-1.pem: exists already; --renew"):
        make_certificates(copy, ["node-1"], 365)
    make_certificates(copy, ["node-1"], 365, renew=True)
    assert (copy / "node-1.pem").read_bytes() != before[0]
    assert (copy / "ca.pem").read_bytes() == before[1]
    assert not faults(copy)


@pytest.mark.parametrize("host", ["../node", "ca", "", "a b"])
def test_a_name_that_is_no_host_is_refused(tmp_path, host):
    with pytest.raises(BadInput, match="not a name or address"):
        make_certificates(tmp_path / "new", [host], 365)
    assert not (tmp_path / "new").exists()


def test_an_expired_certificate_is_named_with_its_date(folder):
    later = datetime.now(UTC) + timedelta(days=366)
    assert faults(folder).keys() == set()
    assert faults(folder, later).keys() == set(HOSTS)
    assert "expired on" in faults(folder, later)["node-1"]


def test_a_clock_that_is_behind_is_named(folder):
    assert "set the clock" in faults(folder, datetime.now(UTC) - timedelta(days=2))["node-1"]


def test_a_certificate_of_another_authority_is_named(copy, tmp_path):
    make_certificates(tmp_path / "other", ["node-1"], 365)
    for name in ("node-1.pem", "node-1.key"):
        shutil.copy2(tmp_path / "other" / name, copy / name)
    assert "signed by another authority" in faults(copy)["node-1"]
    with pytest.raises(BadInput, match="signed by another authority"):
        read_security(alone(copy, "node-1"))


def test_damage_is_named(copy):
    (copy / "node-1.pem").write_text("no certificate")
    shutil.copy2(copy / "ca.key", copy / "10.0.0.5.key")
    assert "cannot be read" in faults(copy)["node-1"]
    assert "key of another certificate" in faults(copy)["10.0.0.5"]


def test_a_key_that_others_may_read_is_named(copy):
    (copy / "node-1.key").chmod(0o644)
    assert "other users may read its key" in faults(copy)["node-1"]


def test_half_an_authority_is_not_replaced(copy):
    (copy / "ca.key").unlink()
    with pytest.raises(BadInput, match=r"ca.key: missing"):
        make_certificates(copy, ["node-2"], 365)


def test_this_host_is_chosen_by_its_name_or_by_being_alone(copy, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1")
    assert choose_host_certificate(copy) == "node-1"
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with pytest.raises(BadInput, match=r"holds certificates for 10.0.0.5, node-1, and this one is elsewhere"):
        choose_host_certificate(copy)
    assert choose_host_certificate(alone(copy, "10.0.0.5")) == "10.0.0.5"


def test_the_settings_for_dask_name_the_files_on_the_host(copy):
    written = yaml.safe_load(write_dask_config(copy, "node-1", copy).read_text())
    tls = written["distributed"]["comm"]["tls"]
    assert written["distributed"]["comm"]["require-encryption"] is True
    assert tls["ca-file"] == str(copy / "ca.pem")
    assert tls["worker"] == {"cert": str(copy / "node-1.pem"), "key": str(copy / "node-1.key")}
