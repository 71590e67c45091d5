"""A Dask cluster whose workers are SLURM jobs: the scheduler runs here, jobs start and end with the work."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cluster.client import TRAINING_RESOURCE
from flows.cluster.settings import ClusterSettings, SlurmSettings
from store.errors import BadInput, ServiceUnavailable

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client
    from distributed.security import Security

JOB_NAME = "spectrogram-one"
ADAPT_INTERVAL_S = 2.0  # how often the number of jobs is compared with the work
LOST_SCHEDULER_TIMEOUT_S = 60  # a job whose scheduler is gone ends itself
WARNING_S = 300  # before its time limit a worker passes its tasks on and ends, instead of being killed


def check_slurm() -> None:
    """Raise BadInput if dask-jobqueue or SLURM's commands are not installed."""
    if find_spec("dask_jobqueue") is None:
        raise BadInput(
            "--cluster.kind slurm: dask-jobqueue is not installed; run `pip install 'spectrogram-one[slurm]'`"
        )
    for command in ("sbatch", "scancel", "squeue"):
        if shutil.which(command) is None:
            raise BadInput(
                f"--cluster.kind slurm: the command {command} is not on the PATH; run this on a login node of the "
                "SLURM cluster"
            )


@contextmanager
def slurm_client(settings: ClusterSettings) -> "Iterator[Client]":
    """Return a client of a scheduler started here, whose workers are SLURM jobs; all jobs end with the block.

    Raises: BadInput if SLURM refuses the job as it is set; ServiceUnavailable if none starts in time.

    Scheduler and workers speak TLS, with keys made for this run: compute nodes are shared with others.
    """
    check_slurm()
    from distributed import Client

    folder = Path(settings.slurm.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="keys-") as keys,
        _start_cluster(settings, folder, make_security(Path(keys))) as cluster,
    ):
        _check_job(cluster.job_script(), folder)
        cluster.adapt(
            minimum_jobs=settings.min_jobs,
            maximum_jobs=settings.max_jobs,
            interval=f"{ADAPT_INTERVAL_S} s",
            wait_count=max(1, round(settings.idle_s / ADAPT_INTERVAL_S)),
        )
        with Client(cluster) as client:
            _wait_for_worker(client, settings, folder)
            yield client


def make_security(folder: Path) -> "Security":
    """Return TLS settings with a new key, written into a folder that only this user can enter.

    dask-jobqueue would write the keys itself, but delete them only when its cluster is garbage-collected.
    """
    from distributed.security import Security

    from flows.security.dask_tls import use_certificate

    made = Security.temporary().get_tls_config_for_role("worker")
    for name in ("ca_file", "cert", "key"):
        (folder / name).write_text(made[name], encoding="ascii")
    return use_certificate(folder / "ca_file", folder / "cert", folder / "key")


def _start_cluster(settings: ClusterSettings, folder: Path, security: "Security") -> "SLURMCluster":
    from dask_jobqueue import SLURMCluster

    slurm = settings.slurm
    # What is given to `interface` would be taken for that of the compute nodes, too.
    scheduler: dict[str, Any] = {"dashboard_address": "127.0.0.1:0"}
    if slurm.interface:
        scheduler["interface"] = slurm.interface
    return SLURMCluster(
        queue=slurm.partition or None,
        account=slurm.account or None,
        cores=slurm.cores,
        processes=slurm.cores,
        memory=f"{settings.memory_gib * slurm.cores} GiB",
        walltime=str(slurm.time_limit_min),
        job_name=JOB_NAME,
        job_extra_directives=_directives(slurm),
        worker_extra_args=_worker_arguments(slurm),
        death_timeout=LOST_SCHEDULER_TIMEOUT_S,
        local_directory=slurm.scratch or None,
        log_directory=str(folder / "logs"),
        security=security,
        scheduler_options=scheduler,
        silence_logs=50,
    )


def _directives(slurm: SlurmSettings) -> list[str]:
    """Return lines for the head of the job, those of dask-jobqueue's configuration first."""
    import dask

    configured = dask.config.get("jobqueue.slurm.job-extra-directives", None) or []
    return [*configured, *([f"--gres=gpu:{slurm.gpus}"] if slurm.gpus else [])]


def _worker_arguments(slurm: SlurmSettings) -> list[str]:
    arguments = ["--resources", f"{TRAINING_RESOURCE}=1", "--dashboard-address", "127.0.0.1:0"]
    lifetime_s = slurm.time_limit_min * 60 - WARNING_S
    if lifetime_s >= WARNING_S:
        arguments += ["--lifetime", f"{lifetime_s}s", "--lifetime-stagger", f"{WARNING_S // 2}s"]
    return arguments


def _check_job(script: str, folder: Path) -> None:
    """Raise BadInput if SLURM refuses the job; adaptive scaling would only log that and wait."""
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".sh") as file:
        file.write(script)
        file.flush()
        tested = subprocess.run(
            ["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False
        )
    if tested.returncode:
        reason = " ".join(tested.stderr.replace("allocation failure:", "").split())
        raise BadInput(
            f"--cluster.kind slurm: SLURM refuses the job ({reason}); see `sinfo`, and the settings --cluster.slurm.*"
        )


def _wait_for_worker(client: "Client", settings: ClusterSettings, folder: Path) -> None:
    try:
        client.wait_for_workers(1, timeout=settings.start_timeout_s)
    except TimeoutError:
        raise ServiceUnavailable(
            f"--cluster.kind slurm: no job has started a worker within {settings.start_timeout_s:g} s "
            f"(--cluster.start-timeout-s); {_describe_queue()}; logs of the jobs: {folder / 'logs'}"
        ) from None


def _describe_queue() -> str:
    """Return the states of our jobs and the reasons that SLURM reports."""
    command = ["squeue", "--me", f"--name={JOB_NAME}", "--noheader", "--format=job %i: %T (%r)"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    return ", ".join(listed.stdout.splitlines()) or "no job is in the queue"
