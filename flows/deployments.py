"""The Prefect deployments: one per flow, the nightly schedule, concurrency limits."""

import asyncio
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows import prefect_flows
from flows.reporting.progress import print_status
from flows.services.prefect_server import prefect_server
from flows.settings import BuildSettings, NightlySettings, ServeSettings

FLOWS = (
    prefect_flows.build_dataset,
    prefect_flows.train_model,
    prefect_flows.tag_catalogue,
    prefect_flows.undo_tagging,
    prefect_flows.retrain_nightly,
    prefect_flows.run_experiments,
)
SERVE_POLL_INTERVAL_S = (
    2.0  # how often submitted runs are looked for; Prefect's default of 10 s is slow to use
)
NIGHTLY_SCHEDULE = Cron("0 3 * * *", timezone="UTC", active=False)  # paused: switch it on in the UI
DEFAULT_SOURCE = "data/music"  # beside data/store and data/models; change it in the deployment's parameters
# A nightly run that would overlap another is cancelled; runs submitted by hand are queued.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def serve_flows(settings: ServeSettings) -> None:
    """Register the deployments and execute the runs submitted in the UI, until interrupted.

    A Prefect server is started on this machine's loopback address, unless one is configured.

    Raises: BadInput if the port is in use; ServiceUnavailable if the server does not respond.
    """
    asked_to_end = threading.Event()

    def end(*args: object) -> None:
        asked_to_end.set()  # where the exception is raised in a destructor, Python prints it and goes on
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)  # until the runner sets its own
    os.environ.setdefault(
        "DASK_LOGGING__DISTRIBUTED", "warning"
    )  # for the runs, which are separate processes
    with suppress(KeyboardInterrupt, asyncio.CancelledError), prefect_server(settings.port) as api_url:
        served = make_deployments()
        print_status(f"Prefect UI: {api_url.removesuffix('/api')}   (Ctrl-C ends)")
        runner = CancellableRunner(asked_to_end)
        for deployment in served:
            runner.add_deployment(deployment)
        asyncio.run(runner.start())


class CancellableRunner(Runner):
    """A runner that SIGTERM ends as Ctrl-C does: by cancelling the task that serves.

    Prefect's own handler does not await its clean-up, and raises SystemExit in whatever callback is running: some
    catch it, and the runner goes on for ever.
    """

    def __init__(self, asked_to_end: threading.Event) -> None:
        super().__init__(pause_on_shutdown=True, limit=1, query_seconds=SERVE_POLL_INTERVAL_S)
        self._asked_to_end = asked_to_end

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
        signal.signal(signal.SIGTERM, self.handle_sigterm)
        if self._asked_to_end.is_set():
            loop.call_later(
                SERVE_POLL_INTERVAL_S, task.cancel
            )  # once it has begun, so that it pauses the deployments
        await super().start(run_once, webserver)

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        self._cancel()


def make_deployments() -> list[RunnerDeployment]:
    """Return the deployments, one per flow; one run at a time, since each uses the whole cluster."""
    nightly_settings = NightlySettings(build=BuildSettings(source=DEFAULT_SOURCE)).model_dump(mode="json")
    made = []
    for each in FLOWS:
        is_nightly = each is prefect_flows.retrain_nightly
        made.append(
            RunnerDeployment.from_flow(
                each,
                name=each.name,
                description=each.description,
                schedules=_nightly(f"{each.name}/{each.name}") if is_nightly else None,
                parameters={"settings": nightly_settings} if is_nightly else None,
                concurrency_limit=ONE_AT_A_TIME if is_nightly else 1,
                tags=["spectrogram-one"],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    return made


def _nightly(deployment: str) -> list[DeploymentScheduleCreate | Schedule]:
    """Return the schedules as they were set in the UI: registering the default again would switch them off."""
    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            return [NIGHTLY_SCHEDULE]
    return [DeploymentScheduleCreate(schedule=it.schedule, active=it.active) for it in known]
