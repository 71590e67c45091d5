"""The services of a cluster as processes that can be killed and started again: Postgres, Prefect, Dask."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows.services.prefect_server import LEASES, RETENTION, SLOWER_LOOPS
from tests.support import postgres
from tests.support.dask_cluster import DASK
from tests.support.processes import free_port, is_listening
from tests.support.waiting import wait_for

START_WITHIN_S = 300.0  # on a loaded machine
ROOT = Path(__file__).parents[2]
TRAINING_WORKER = ("--nworkers", "1", "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard")


class Service:
    """A process that is healthy once its check passes; a kill ends it and all that it started."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        is_healthy: Callable[[], bool],
        *,
        variables: Mapping[str, str] | None = None,
        log: Path,
        **options: Any,
    ) -> None:
        self.name, self.command, self.is_healthy, self.log = name, command, is_healthy, log
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            **(variables or {}),
        }
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without waiting until it is healthy."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, **self.options
            )

    def wait(self) -> None:
        """Wait until it is healthy."""
        wait_for(self._check, within_s=START_WITHIN_S)

    def _check(self) -> bool:
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"{self.name} ended with status {status}: {self.log.read_text()[-2000:]}"
        return self.is_healthy()

    def kill(self) -> None:
        """Kill it with all that it started, as the loss of its machine does."""
        if self.process is None:
            return
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for child in started:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(started, timeout=30)
        self.process.wait()

    def kill_children(self) -> None:
        """Kill what it started, and not itself."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)


def postgres_service(folder: Path) -> tuple[Service, str]:
    """Return Postgres with an empty database, started, and its URL for Prefect."""
    port = free_port()
    data = folder / "postgres"
    postgres.init_database(data, "prefect", "secret")
    command = [postgres.binary("postgres"), f"-D{data}", f"-p{port}", "-clisten_addresses=127.0.0.1"]
    ready = [postgres.binary("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    service = Service(
        "postgres",
        [*command, f"-cunix_socket_directories={data}"],
        lambda: subprocess.run(ready, check=False).returncode == 0,
        log=folder / "postgres.log",
        cwd="/",
        **postgres.as_owner(),
    )
    service.start()
    service.wait()
    create = [
        postgres.binary("createdb"),
        "--host=127.0.0.1",
        f"--port={port}",
        "--username=prefect",
        "prefect",
    ]
    subprocess.run(create, env=os.environ | {"PGPASSWORD": "secret"}, check=True)
    return service, f"postgresql+asyncpg://prefect:secret@127.0.0.1:{port}/prefect"


def prefect_service(folder: Path, database: str, port: int, **variables: str) -> Service:
    """Return a Prefect server with the settings that the product gives its own, not started."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return Service(
        "prefect",
        command,
        lambda: _responds(f"http://127.0.0.1:{port}/api/health"),
        variables=RETENTION
        | SLOWER_LOOPS
        | LEASES
        | {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        | {"PREFECT_API_URL": "", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        | variables,
        log=folder / "prefect.log",
    )


def scheduler_service(folder: Path, port: int) -> Service:
    """Return a Dask scheduler, not started."""
    command = [DASK, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    return Service("scheduler", command, lambda: is_listening(port), log=folder / "scheduler.log")


def worker_service(
    folder: Path, scheduler_url: str, *, has_joined: Callable[[], bool], **variables: str
) -> Service:
    """Return a host of one Dask worker under its nanny, not started; `has_joined` finds it at the scheduler."""
    command = [DASK, "worker", scheduler_url, "--host", "127.0.0.1", *TRAINING_WORKER]
    command += ["--local-directory", str(folder / "dask")]
    return Service("worker", command, has_joined, variables=variables, log=folder / "worker.log")


def _responds(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).is_success
    return False
