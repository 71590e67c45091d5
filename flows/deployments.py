"""The Prefect deployments: one per flow, the nightly schedule, concurrency limits.

`SPECS` is their only definition: `serve` and `register` apply it, and deploy/prefect.yaml is written from it.
"""

import asyncio
import os
import signal
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import yaml
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows import prefect_flows
from flows.reporting.progress import print_status
from flows.services.automations import TAG, apply_automations
from flows.services.environment import HEARTBEATS
from flows.services.flow_runner import CancellableRunner
from flows.services.prefect_server import only_serve, prefect_server
from flows.settings import (
    BuildSettings,
    NightlySettings,
    PruneSettings,
    RegisterSettings,
    ScheduleSettings,
    ServeSettings,
)
from store.errors import BadInput

POOL_TYPE = "process"
DEFAULT_SOURCE = "data/music"  # beside data/store and data/models; change it in the deployment's parameters
PRUNE_AT = ScheduleSettings(at="12:30")  # not at night, when the other deployments run
YAML_HEADER = """\
# Deployments of The Spectrogram One for a process work pool, written from flows/deployments.py; change them there,
# then: python -m flows.deployments > deploy/prefect.yaml
#
#   prefect work-pool create --type process spectrogram-one
#   prefect --no-prompt deploy --all --prefect-file deploy/prefect.yaml
#   prefect worker start --pool spectrogram-one
#
# Relative paths of a run, such as data/store, start at the folder in which `prefect deploy` is run.
# `spectrogram-one register` does the first two, keeps schedules as they were set in the UI, and makes the automations.
"""


@dataclass(frozen=True)
class DeploymentSpec:
    """A deployment of a flow: at most one run at a time, since each uses the whole cluster."""

    flow: Flow[..., object]
    tags: tuple[str, ...]
    settings: dict[str, Any] | None = None
    schedule: ScheduleSettings | None = None
    is_active: bool = False

    @property
    def name(self) -> str:
        """The name of the flow, and of the deployment."""
        return self.flow.name

    @property
    def collision(self) -> ConcurrencyLimitStrategy:
        """What happens to a run while another is active: one submitted by hand waits, a scheduled one is dropped."""
        return ConcurrencyLimitStrategy.CANCEL_NEW if self.schedule else ConcurrencyLimitStrategy.ENQUEUE


def deployment_specs(nightly: ScheduleSettings) -> list[DeploymentSpec]:
    """Return the deployments, with the schedule of the nightly run: paused, until it is switched on in the UI."""
    nightly_settings = NightlySettings(build=BuildSettings(source=DEFAULT_SOURCE)).model_dump(mode="json")
    return [
        DeploymentSpec(prefect_flows.build_dataset, ("build",)),
        DeploymentSpec(prefect_flows.train_model, ("train",)),
        DeploymentSpec(prefect_flows.tag_catalogue, ("tag",)),
        DeploymentSpec(prefect_flows.undo_tagging, ("tag",)),
        DeploymentSpec(prefect_flows.retrain_nightly, ("build", "train"), nightly_settings, schedule=nightly),
        DeploymentSpec(prefect_flows.cross_validate, ("train",)),
        DeploymentSpec(prefect_flows.run_experiments, ("train",)),
        DeploymentSpec(
            prefect_flows.prune_prefect,
            ("upkeep",),
            PruneSettings().model_dump(mode="json"),
            schedule=PRUNE_AT,
            is_active=True,
        ),
    ]


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
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # for the processes of the runs
    with (
        suppress(KeyboardInterrupt, asyncio.CancelledError),
        nullcontext() if os.environ.get("PREFECT_API_URL") else only_serve(settings.port),
        prefect_server(settings.port, settings.host) as api_url,
    ):
        served = [_deployment(it) for it in deployment_specs(settings.nightly)]
        apply_automations()
        print_status(f"Prefect UI: {api_url.removesuffix('/api')}   (Ctrl-C ends)")
        runner = CancellableRunner(asked_to_end)
        for deployment in served:
            runner.add_deployment(deployment)
        asyncio.run(runner.start())


def register_flows(settings: RegisterSettings) -> list[str]:
    """Register the deployments at the configured server for the workers of a pool; return lines about them.

    Raises: BadInput if no server is configured, or the pool is of another type; ServiceUnavailable if none responds.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise BadInput("PREFECT_API_URL: not set; name the server that the workers of the pool use")
    with prefect_server() as api_url:
        _make_pool(settings.pool)
        specs = deployment_specs(settings.nightly)
        for spec in specs:
            _deployment(spec, _job_variables(str(settings.folder.absolute()))).apply(
                work_pool_name=settings.pool
            )
        apply_automations(settings.notify)
    lines = [f"{spec.name}/{spec.name}: registered at {api_url}" for spec in specs]
    return [*lines, f"on each machine that runs them: prefect worker start --pool {settings.pool}"]


def prefect_yaml(nightly: ScheduleSettings) -> str:
    """Return the same deployments as a file for `prefect deploy`."""
    deployments = [_yaml_deployment(spec) for spec in deployment_specs(nightly)]
    content = {"name": TAG, "pull": [], "deployments": deployments}
    text: str = yaml.safe_dump(content, sort_keys=False, width=118, allow_unicode=True)
    return YAML_HEADER + text


def _yaml_deployment(spec: DeploymentSpec) -> dict[str, Any]:
    limit = {"limit": 1, "collision_strategy": spec.collision.value}
    made: dict[str, Any] = {
        "name": spec.name,
        "description": spec.flow.description,
        "tags": [TAG, *spec.tags],
        "entrypoint": _entrypoint(spec),
        "work_pool": {"name": RegisterSettings().pool, "job_variables": _job_variables("{{ $PWD }}")},
        "concurrency_limit": limit,
    }
    if spec.settings is not None:
        made["parameters"] = {"settings": spec.settings}
    if spec.schedule is not None:
        schedule = {"cron": spec.schedule.cron, "timezone": spec.schedule.timezone, "active": spec.is_active}
        made["schedules"] = [schedule]
    return made


def _entrypoint(spec: DeploymentSpec) -> str:
    return f"{spec.flow.fn.__module__}.{spec.flow.fn.__name__}"


def _job_variables(folder: str) -> dict[str, Any]:
    """Return the folder of runs, and their environment, whatever that of their worker is.

    Without a folder a worker makes a temporary one and removes it after the run, with all that relative paths named.
    """
    return {"working_dir": folder, "env": dict(HEARTBEATS)}


def _deployment(spec: DeploymentSpec, job_variables: dict[str, Any] | None = None) -> RunnerDeployment:
    made: RunnerDeployment = RunnerDeployment.from_flow(
        spec.flow,
        name=spec.name,
        description=spec.flow.description,
        schedules=None if spec.schedule is None else _schedules(spec, spec.schedule),
        parameters=None if spec.settings is None else {"settings": spec.settings},
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=spec.collision),
        tags=[TAG, *spec.tags],
        job_variables=job_variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return made


def _schedules(spec: DeploymentSpec, schedule: ScheduleSettings) -> list[DeploymentScheduleCreate | Schedule]:
    """Return the schedules as they were set in the UI: registering the default again would switch them off."""
    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(f"{spec.name}/{spec.name}").schedules
        except ObjectNotFound:
            return [Cron(schedule.cron, timezone=schedule.timezone, active=spec.is_active)]
    return [DeploymentScheduleCreate(schedule=it.schedule, active=it.active) for it in known]


def _make_pool(name: str) -> None:
    """Make a process work pool, unless it is there. Raises: BadInput if it is there with another type."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE))
            return
    if found.type != POOL_TYPE:
        raise BadInput(
            f"--pool {name}: exists with the type {found.type}, not {POOL_TYPE}; name another pool"
        )


if __name__ == "__main__":
    print(prefect_yaml(ScheduleSettings()), end="")
