"""What the Prefect UI shows: a deployment for each flow, the nightly schedule, limits; and a server to show it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.types.entrypoint import EntrypointType
from pydantic import BaseModel, Field

from flows.build_dataset import build_dataset
from flows.progress import say
from flows.tag_catalogue import tag_catalogue
from flows.train_model import train_model
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

    Raises: BadInput if the port is taken, or the server does not come up.
    """
    with _server(settings) as api_url:
        say(f"Prefect UI: {api_url.removesuffix('/api')}   (Ctrl-C ends)")
        serve(*deployments(), print_starting_message=False)


def deployments() -> list[RunnerDeployment]:
    """Make the deployments, one a flow; one run at a time, since each takes the whole cluster."""
    made = [
        each.to_deployment(
            name=each.name,
            description=each.description,
            schedules=[NIGHTLY] if each is train_model else None,
            concurrency_limit=1,
            tags=["spectrogram-one"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        for each in (build_dataset, train_model, tag_catalogue)
    ]
    return [deployment for deployment in made if isinstance(deployment, RunnerDeployment)]


@contextmanager
def _server(settings: ServeSettings) -> Iterator[str]:
    """Give the URL of the Prefect API that is configured, or of one started for as long as the block lasts."""
    configured = get_current_settings().api.url
    if configured:
        yield configured
        return
    api_url = f"http://{HOST}:{settings.port}/api"
    if _answers(api_url):
        raise BadInput(
            f"{HOST}:{settings.port}: a server is there already; set PREFECT_API_URL={api_url} to use it, "
            "or choose another --port"
        )
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        HOST,
        "--port",
        str(settings.port),
    ]
    os.environ["PREFECT_API_URL"] = api_url  # for the runs, which are processes of their own
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            _wait_for(server, api_url)
            with temporary_settings({PREFECT_API_URL: api_url}):
                yield api_url
        finally:
            server.terminate()


def _wait_for(server: "subprocess.Popen[str]", api_url: str) -> None:
    until = time.monotonic() + START_WITHIN_S
    while not _answers(api_url):
        if server.poll() is not None:
            assert server.stderr is not None
            last = (server.stderr.read().strip().splitlines() or ["no message"])[-1]
            raise BadInput(f"{api_url}: the Prefect server ended with status {server.returncode}: {last}")
        if time.monotonic() > until:
            raise BadInput(f"{api_url}: the Prefect server does not answer within {START_WITHIN_S:g} s")
        time.sleep(0.5)


def _answers(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=2.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
