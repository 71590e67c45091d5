"""What the Prefect UI shows: a deployment for each flow, the nightly schedule, limits; and a server to show it."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import BaseModel, Field

from flows.build_dataset import build_dataset
from flows.progress import say
from flows.tag_catalogue import tag_catalogue
from flows.train_model import TrainModelSettings, train_model
from flows.training_hosts import die_with_parent
from store.errors import BadInput

HOST = "127.0.0.1"
START_WITHIN_S = 90.0
NIGHTLY = Cron("0 3 * * *", timezone="UTC", active=False)  # paused: switch it on in the UI


class ServeSettings(BaseModel, frozen=True, extra="forbid"):
    """How the Prefect UI is offered."""

    port: int = Field(4200, ge=1, le=65_535, description="Port of the Prefect server, if one is started here")


def serve_flows(settings: ServeSettings) -> None:
    """Register the deployments and run what is submitted from the UI, until interrupted.

    A Prefect server is started on this machine's loopback address, unless one is configured.

    Raises: BadInput if the port is taken, or the server does not answer.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Prefect sets its own
    # Prefect's own handler of SIGTERM forgets to await its tidying up, which then happens elsewhere.
    warnings.filterwarnings("ignore", "coroutine 'Runner.astop' was never awaited", RuntimeWarning)
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # in the runs, processes of their own
    with _server(settings) as api_url:
        served = deployments()
        say(f"Prefect UI: {api_url.removesuffix('/api')}   (Ctrl-C ends)")
        serve(*served, print_starting_message=False)


def deployments() -> list[RunnerDeployment]:
    """Make the deployments, one a flow; one run at a time, since each takes the whole cluster."""
    nightly_settings = {"settings": TrainModelSettings().model_dump(mode="json")}
    return [
        RunnerDeployment.from_flow(
            each,
            name=each.name,
            description=each.description,
            schedules=_nightly(f"{each.name}/{each.name}") if each is train_model else None,
            parameters=nightly_settings if each is train_model else None,
            concurrency_limit=1,
            tags=["spectrogram-one"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for each in (build_dataset, train_model, tag_catalogue)
    ]


def _nightly(deployment: str) -> list[DeploymentScheduleCreate | Schedule]:
    """Give the schedules as they were left in the UI: registering again would switch them off."""
    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            return [NIGHTLY]
    return [DeploymentScheduleCreate(schedule=it.schedule, active=it.active) for it in known]


@contextmanager
def _server(settings: ServeSettings) -> Iterator[str]:
    """Give the URL of the Prefect API that is configured, or of one started for as long as the block lasts."""
    configured = get_current_settings().api.url
    if configured:
        if not _answers(configured):
            raise BadInput(
                f"{configured}: no Prefect server answers there; start it, correct PREFECT_API_URL, "
                "or unset it to have a server started here"
            )
        yield configured
        return
    _refuse_taken_port(settings.port)
    api_url = f"http://{HOST}:{settings.port}/api"
    os.environ["PREFECT_API_URL"] = api_url  # for the runs, which are processes of their own
    log = get_current_settings().home / "spectrogram-one-server.log"
    with temporary_settings({PREFECT_API_URL: api_url}), _start(settings.port, log) as server:
        try:
            _wait_for(server, api_url, log)
            yield api_url
        finally:
            server.terminate()


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as why:
            raise BadInput(
                f"{HOST}:{port}: cannot be listened on ({why.strerror}); choose another --port, or, if a Prefect "
                f"server is there, set PREFECT_API_URL=http://{HOST}:{port}/api to use it"
            ) from None


def _start(port: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a Prefect server that a Ctrl-C in our terminal does not reach before us, and that ends with us."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, preexec_fn=die_with_parent
        )


def _wait_for(server: "subprocess.Popen[bytes]", api_url: str, log: Path) -> None:
    until = time.monotonic() + START_WITHIN_S
    while not _answers(api_url):
        if server.poll() is not None:
            raise BadInput(f"{api_url}: the Prefect server ended with status {server.returncode}; see {log}")
        if time.monotonic() > until:
            raise BadInput(
                f"{api_url}: the Prefect server does not answer within {START_WITHIN_S:g} s; see {log}"
            )
        time.sleep(0.5)


def _answers(api_url: str) -> bool:
    """Say whether a Prefect server is there, asked as Prefect asks: with its TLS and auth settings."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        return client.api_healthcheck() is None
