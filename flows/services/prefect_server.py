"""The Prefect server: the configured one, or one started on the loopback address while it is needed."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows.security.addresses import is_loopback
from flows.security.ports import find_free_port
from flows.services.environment import bypass_proxies_on_loopback
from flows.services.prefect_database import (
    SQLITE_URL,
    check_database,
    configured_url,
    create_database,
    own_path,
)
from flows.services.server_check import check_server, responds
from preprocessing.child_processes import die_with_parent
from store.errors import BadInput, ServiceUnavailable

HOST = "127.0.0.1"
ANY_PORT = 0
ANY_ADDRESS = ("0.0.0.0", "::")
SERVE_LOCK = "spectrogram-one-serve.lock"
SLOWER_LOOPS = {  # the server looks for late, paused and cancelled runs every 5 to 20 s; idle, that costs CPU
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "30",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "60",
}
RETENTION = {  # the server removes what is older by itself; without it, its database grows without end
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(90 * 86_400),  # s, since a run ended
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P14D",
}
LEASES = {  # in memory, they are lost with the server, and what its runs held stays taken for ever: no run starts again
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
SERVER_START_TIMEOUT_S = 300.0  # on a busy machine; one that ends is noticed at once
DRAIN_TIMEOUT_S = 5.0


@contextmanager
def prefect_server(port: int = ANY_PORT, host: str = HOST) -> Iterator[str]:
    """Return the URL of the configured Prefect API, or of one started for as long as the block lasts.

    Raises: BadInput if the port is in use, or the host is not loopback and the server would ask for no password;
        ServiceUnavailable if no server responds.
    """
    bypass_proxies_on_loopback()
    configured = get_current_settings().api.url
    if configured:
        check_server(configured)
        yield configured
        return
    check_exposed_server(host, os.environ)
    port = _free_port(host, port)
    api_url = f"http://{HOST if host in ANY_ADDRESS else host}:{port}/api"
    os.environ["PREFECT_API_URL"] = api_url  # for the runs, which are separate processes
    log = _writable_home() / "spectrogram-one-server.log"
    with temporary_settings({PREFECT_API_URL: api_url}), _start(host, port, log) as server:
        try:
            _wait_for(server, api_url, log)
            yield api_url
        finally:
            for worker in (APILogWorker, EventsWorker):  # send what is still queued
                worker.drain_all(timeout=DRAIN_TIMEOUT_S)
            server.terminate()


@contextmanager
def only_serve(port: int) -> Iterator[None]:
    """Hold the lock of the one `serve` that uses Prefect's folder of this user; it says at which port that is.

    Raises: BadInput if another holds it: two would execute the same runs, from one database.
    """
    with (_writable_home() / SERVE_LOCK).open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise BadInput(
                f"--port {port}: `serve` runs already, at http://{HOST}:{file.read().strip()}, with the same database; "
                "use that one, or set PREFECT_HOME to another folder for a second"
            ) from None
        file.truncate(0)
        file.write(str(port))
        file.flush()
        yield


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

    Raises: BadInput, ServiceUnavailable if the server could not use it.
    """
    if configured_url() is not None:
        return {}
    path = own_path(home)
    check_database(path)
    create_database(path)
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"{SQLITE_URL}{path}"}


def check_exposed_server(host: str, environment: Mapping[str, str]) -> None:
    """Raise BadInput if a server bound to an address would be open to others without a password."""
    if is_loopback(host):
        return
    user, separator, password = environment.get("PREFECT_SERVER_API_AUTH_STRING", "").partition(":")
    if not (user and separator and password):
        raise BadInput(
            f"--host {host}: other machines would reach the Prefect server, and through it run flows as this user; "
            "set PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD first, or leave --host at 127.0.0.1 and reach it by SSH "
            "(ssh -L 4200:127.0.0.1:4200)"
        )


def _free_port(host: str, port: int) -> int:
    try:
        return find_free_port(host, port)
    except OSError as why:
        raise BadInput(
            f"{host}:{port}: cannot be listened on ({why.strerror}); choose another --port, or, if a Prefect "
            f"server runs there, set PREFECT_API_URL=http://{HOST}:{port}/api to use it"
        ) from None


def _start(host: str, port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a Prefect server that a Ctrl-C in the terminal does not reach, and that ends with this process."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    environment = os.environ | _database(log.parent)
    if host in ANY_ADDRESS:
        environment["PREFECT_SERVER_UI_API_URL"] = "/api"  # for browsers, under whatever name they reach it
    for name, value in (RETENTION | SLOWER_LOOPS | LEASES).items():
        environment.setdefault(name, value)
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
    while not responds(api_url):
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
