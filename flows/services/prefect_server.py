"""The Prefect server: the configured one, or one started on the loopback address while it is needed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from preprocessing.child_processes import die_with_parent
from store.errors import BadInput, ServiceUnavailable

HOST = "127.0.0.1"
ANY_PORT = 0
SERVER_START_TIMEOUT_S = 90.0
DRAIN_TIMEOUT_S = 5.0


@contextmanager
def prefect_server(port: int = ANY_PORT) -> Iterator[str]:
    """Return the URL of the configured Prefect API, or of one started for as long as the block lasts.

    Raises: BadInput if the port is in use; ServiceUnavailable if no server responds.
    """
    configured = get_current_settings().api.url
    if configured:
        if not _responds(configured):
            raise ServiceUnavailable(
                f"{configured}: no Prefect server responds there; start it, correct PREFECT_API_URL, "
                "or unset it to have a server started here"
            )
        yield configured
        return
    port = _free_port(port)
    api_url = f"http://{HOST}:{port}/api"
    os.environ["PREFECT_API_URL"] = api_url  # for the runs, which are separate processes
    log = get_current_settings().home / "spectrogram-one-server.log"
    with temporary_settings({PREFECT_API_URL: api_url}), _start(port, log) as server:
        try:
            _wait_for(server, api_url, log)
            yield api_url
        finally:
            for worker in (APILogWorker, EventsWorker):  # send what is still queued
                worker.drain_all(timeout=DRAIN_TIMEOUT_S)
            server.terminate()


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as why:
            raise BadInput(
                f"{HOST}:{port}: cannot be listened on ({why.strerror}); choose another --port, or, if a Prefect "
                f"server runs there, set PREFECT_API_URL=http://{HOST}:{port}/api to use it"
            ) from None
        free: int = probe.getsockname()[1]
        return free


def _start(port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a Prefect server that a Ctrl-C in the terminal does not reach, and that ends with this process."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, preexec_fn=die_with_parent
        )


def _wait_for(server: "subprocess.Popen[bytes]", api_url: str, log: Path) -> None:
    until = time.monotonic() + SERVER_START_TIMEOUT_S
    while not _responds(api_url):
        if server.poll() is not None:
            raise ServiceUnavailable(
                f"{api_url}: the Prefect server ended with status {server.returncode}; see {log}"
            )
        if time.monotonic() > until:
            raise ServiceUnavailable(
                f"{api_url}: the Prefect server does not respond within {SERVER_START_TIMEOUT_S:g} s; see {log}"
            )
        time.sleep(0.5)


def _responds(api_url: str) -> bool:
    """Return whether a Prefect server responds, with the TLS and authentication settings of Prefect."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        return client.api_healthcheck() is None
