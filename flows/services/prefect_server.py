"""The Prefect server: the configured one, or one started on the loopback address while it is needed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import prefect
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows.ports import find_free_port
from flows.services.environment import bypass_proxies_on_loopback
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
    bypass_proxies_on_loopback()
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
    log = _writable_home() / "spectrogram-one-server.log"
    with temporary_settings({PREFECT_API_URL: api_url}), _start(port, log) as server:
        try:
            _wait_for(server, api_url, log)
            yield api_url
        finally:
            for worker in (APILogWorker, EventsWorker):  # send what is still queued
                worker.drain_all(timeout=DRAIN_TIMEOUT_S)
            server.terminate()


def _writable_home() -> Path:
    """Return Prefect's folder. Raises: BadInput if it cannot be created or written."""
    home = get_current_settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=home):
            return home
    except OSError as why:
        raise BadInput(
            f"{home}: Prefect keeps its database and log there, and the folder cannot be written ({why.strerror}); "
            "set PREFECT_HOME to a folder that can"
        ) from None


def _database(home: Path) -> dict[str, str]:
    """Return the environment variable that gives the server a database of its own, unless one is configured.

    Another version of Prefect may have migrated the user's own database to a state that this one cannot read.
    """
    if get_current_settings().server.database.model_fields_set & {"connection_url", "host", "name", "driver"}:
        return {}
    path = home / f"spectrogram-one-{prefect.__version__}.db"
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}"}


def _free_port(port: int) -> int:
    try:
        return find_free_port(HOST, port)
    except OSError as why:
        raise BadInput(
            f"{HOST}:{port}: cannot be listened on ({why.strerror}); choose another --port, or, if a Prefect "
            f"server runs there, set PREFECT_API_URL=http://{HOST}:{port}/api to use it"
        ) from None


def _start(port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a Prefect server that a Ctrl-C in the terminal does not reach, and that ends with this process."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    environment = os.environ | _database(log.parent)
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _wait_for(server: "subprocess.Popen[bytes]", api_url: str, log: Path) -> None:
    until = time.monotonic() + SERVER_START_TIMEOUT_S
    while not _responds(api_url):
        if server.poll() is not None:
            raise ServiceUnavailable(
                f"{api_url}: the Prefect server ended with status {server.returncode}"
                f"{_last_error(log)}; see {log}"
            )
        if time.monotonic() > until:
            raise ServiceUnavailable(
                f"{api_url}: the Prefect server does not respond within {SERVER_START_TIMEOUT_S:g} s"
                f"{_last_error(log)}; see {log}"
            )
        time.sleep(0.5)


def _last_error(log: Path) -> str:
    """Return the last line of a log that names an error, in brackets; "" if there is none."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return f" ({errors[-1][:300]})" if errors else ""


def _responds(api_url: str) -> bool:
    """Return whether a Prefect server responds, with the TLS and authentication settings of Prefect."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        return client.api_healthcheck() is None
