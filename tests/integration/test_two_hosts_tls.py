"""Two hosts (network namespaces), with the commands of the systemd units and a certificate each: work, and refusals."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.security.certificates import make_certificates, write_dask_config
from tests.support.dask_cluster import running
from tests.support.network_namespaces import two_hosts, unavailable_reason
from tests.support.prefect_ui import COMMAND
from tests.support.systemd_units import command_of
from tests.support.waiting import wait_for

MUSIC = Path(__file__).parents[1] / "data/demo_music/fma_small"
LISTENING = re.compile(r"^LISTEN\s+\S+\s+\S+\s+(\S+):(\d+)\s", re.MULTILINE)


@pytest.fixture(scope="module")
def network(need):
    why_not = unavailable_reason()
    if "not allowed" in why_not:
        pytest.skip(why_not)  # in CI too: what a machine forbids cannot be installed
    need(not why_not, why_not)
    need(shutil.which("ss"), "the command ss (iproute2) is not installed")
    with two_hosts() as network:
        yield network


@pytest.fixture(scope="module")
def cluster(network, tmp_path_factory):
    """Start a scheduler here and workers on both hosts; yield its address and the client's folder."""
    folder = tmp_path_factory.mktemp("tls")
    names = ["here", *(host.namespace for host in network.hosts)]
    make_certificates(folder, names, 30)
    address = f"tls://{network.here}:8786"
    environment = {
        "CACHE": str(folder),
        "DASK_SCHEDULER_HOST": network.here,
        "DASK_SCHEDULER_ADDRESS": address,
        "DASK_WORKER_OPTIONS": "--nworkers 1 --nthreads 1 --memory-limit 2GiB",
    }
    with ExitStack() as stack:
        for name in names:
            config = {"DASK_CONFIG": str(write_dask_config(folder, name, folder))}
            worker = name != "here"
            unit = f"spectrogram-one-dask-{'worker@' if worker else 'scheduler'}.service"
            command = command_of(unit, environment, {"H": name, "i": "cpu"})
            where = ["ip", "netns", "exec", name] if worker else []
            stack.enter_context(running([*where, *command], **config))
        client = folder / "client"
        client.mkdir()
        for path in (folder / "ca.pem", folder / "here.pem", folder / "here.key"):
            shutil.copy(path, client)
        yield address, client


def ports_of_dask(network):
    """List the addresses that Dask listens on, and that another host reaches, by what `ss` shows."""
    found = []
    for namespace, address in [
        ("", network.here),
        *((host.namespace, host.address) for host in network.hosts),
    ]:
        where = ["ip", "netns", "exec", namespace] if namespace else []
        shown = subprocess.run([*where, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
        for bound, port in LISTENING.findall(shown):
            anywhere = bound in ("0.0.0.0", "*", "[::]") and bool(namespace)
            if bound == address or anywhere:
                found.append((address, int(port)))
    return found


def is_refused(address, port, *, encrypted):
    """Return whether a client without a certificate gets nothing out of a port."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with ExitStack() as stack:
            talk = stack.enter_context(socket.create_connection((address, port), timeout=10))
            if encrypted:
                talk = stack.enter_context(context.wrap_socket(talk))
            talk.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return talk.recv(1) == b""
    except (OSError, ssl.SSLError):
        return True


@pytest.mark.soak
def test_a_build_runs_on_both_hosts_and_strangers_are_refused_at_every_port(network, cluster, tmp_path):
    address, certificates = cluster
    for song in sorted(MUSIC.rglob("*.mp3"))[:8]:
        (tmp_path / "music").mkdir(exist_ok=True)
        shutil.copy(song, tmp_path / "music")
    flags = ["--cluster.kind=scheduler", f"--cluster.scheduler={address}", "--cluster.connect-timeout-s=120"]
    built = subprocess.run(
        [COMMAND, "build", "music", "--tracks-per-batch=2", *flags, f"--cluster.certificates={certificates}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "8 tracks" in built.stdout
    wait_for(lambda: len(ports_of_dask(network)) >= 5)  # a scheduler; a worker and its nanny on each host
    ports = ports_of_dask(network)
    print(ports)
    for host, port in ports:
        assert is_refused(host, port, encrypted=False), (host, port)
        assert is_refused(host, port, encrypted=True), (host, port)
    make_certificates(tmp_path / "foreign", ["stranger"], 30)
    refused = subprocess.run(
        [COMMAND, "build", "music", *flags, f"--cluster.certificates={tmp_path}/foreign", "--store=other"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert refused.returncode == 1, refused.stdout
    assert f"{address}: no Dask scheduler responds" in refused.stderr
