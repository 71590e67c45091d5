"""The execution of runs on Dask workers: each run is one task, and one that fails is a result."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out
from flows.cluster.settings import ClusterSettings
from flows.study_runs.study import FAILED, RunResult, StudyRun
from store.errors import SpectrogramOneError

FAILURES = (SpectrogramOneError, OSError, MemoryError, RuntimeError, ValueError, ArithmeticError)
MAX_ERROR_CHARS = 500


@dataclass(frozen=True)
class RunOutcome:
    """The end of a run: its result, what it cost, and the error of one that failed."""

    result: RunResult
    seconds: float = 0.0
    cpu_s: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Job:
    """A run as it travels to a worker."""

    name: str
    body: Callable[..., RunResult]
    arguments: Mapping[str, Any]


def execute_runs(cluster: Cluster, runs: Sequence[StudyRun]) -> Iterator[tuple[StudyRun, RunOutcome]]:
    """Run each on a Dask worker; yield each with its outcome, as they finish."""
    run_of = {run.name: run for run in runs}
    jobs = ([Job(run.name, run.body, run.prepare())] for run in runs)
    for (job,), outcome in fan_out(cluster, execute_job, jobs, on_poison=fail_job):
        yield run_of[job.name], outcome


def execute_job(batch: list[Job]) -> RunOutcome:
    """Run one job; an error that comes of its data or settings is an outcome, any other is a bug and is raised."""
    (job,) = batch
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        result, error = job.body(**job.arguments), ""
    except FAILURES as why:
        result, error = RunResult({}, status=FAILED), f"{type(why).__name__}: {why}"
    return RunOutcome(
        result,
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_started,
        error=" ".join(error.split())[:MAX_ERROR_CHARS],
    )


def fail_job(job: Job) -> RunOutcome:
    """Return the outcome of a job whose workers died each time."""
    return RunOutcome(
        RunResult({}, status=FAILED),
        error=f"run {job.name}: its worker died each time, most likely for lack of memory; raise --cluster.memory-gib",
    )


def fit_to_memory(settings: ClusterSettings) -> ClusterSettings:
    """Start as many local workers as there are cores, and fewer where the free memory does not suffice for all."""
    if settings.kind != "local" or settings.workers:
        return settings
    fitting = int(psutil.virtual_memory().available / 2**30 / settings.memory_gib)
    return settings.model_copy(update={"workers": max(1, min(psutil.cpu_count() or 1, fitting))})
