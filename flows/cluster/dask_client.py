"""A Dask client: of worker processes on this machine, of a scheduler that is already up, or of jobs started for it."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from flows.cluster.client import TRAINING_RESOURCE
from flows.cluster.host_versions import check_same_code, read_versions
from flows.cluster.kubernetes import kubernetes_client
from flows.cluster.settings import ClusterSettings
from flows.cluster.slurm import slurm_client
from flows.cluster.worker_memory import KeepMemory
from flows.security.addresses import is_loopback
from flows.security.dask_tls import read_security
from preprocessing.child_processes import ignore_sigint
from store.errors import BadInput, ServiceUnavailable, first_line

DASK_CONFIG = {
    # Dask logs the last messages to each worker, which contain the batches: 1,000 of them by default.
    "distributed.admin.low-level-log-length": 20,
    # Two workers die before a batch is halved; a batch that was only queued behind it may be halved too.
    "distributed.scheduler.allowed-failures": 1,
    # Some time after a worker died, Dask checks whether it is up. If it has just died again, Dask ends
    # its nanny, and it never comes back: two deaths 15 s apart cost a worker. The nanny is enough.
    "distributed.deploy.lost-worker-timeout": "1000 h",
}


@contextmanager
def open_client(settings: ClusterSettings) -> Iterator[Client]:
    """Return a client of the cluster, started here unless it is already up, for as long as the block lasts.

    Raises: ServiceUnavailable if no scheduler or worker responds in time, or the scheduler is lost within the
        block; BadInput if its workers run other code.
    """
    # Without a time limit, Dask would wait forever for a resource that no worker has.
    longest_wait_s = settings.start_timeout_s if settings.starts_jobs else settings.connect_timeout_s
    config = DASK_CONFIG | {"distributed.scheduler.no-workers-timeout": f"{longest_wait_s} s"}
    with dask.config.set(config), naming_lost_scheduler(settings), _start_or_connect(settings) as client:
        if settings.kind != "local":
            check_same_code(read_versions(), client.run(read_versions, on_error="return"))
        client.register_plugin(KeepMemory())
        yield client


@contextmanager
def naming_lost_scheduler(settings: ClusterSettings) -> Iterator[None]:
    """Raise ServiceUnavailable for what Dask raises in the block when the connection to the scheduler breaks.

    Dask's client connects again by itself, but a scheduler that was started again does not know the tasks.
    """
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "utils")]
    for logger in loggers:
        logger.addFilter(is_no_lost_connection)
    try:
        yield
    except (FutureCancelledError, CommClosedError) as why:
        raise ServiceUnavailable(
            f"{settings.scheduler or settings.kind}: the connection to the Dask scheduler was lost "
            f"({first_line(why)}); when it is up, run the same command again to resume"
        ) from None
    finally:
        for logger in loggers:
            logger.removeFilter(is_no_lost_connection)


def is_no_lost_connection(record: logging.LogRecord) -> bool:
    """Return whether a log record is of anything but a lost connection, which Dask logs with several tracebacks."""
    return not (record.exc_info and isinstance(record.exc_info[1], CommClosedError | asyncio.CancelledError))


def _start_or_connect(settings: ClusterSettings) -> AbstractContextManager[Client]:
    match settings.kind:
        case "scheduler":
            return _connect(settings)
        case "slurm":
            return slurm_client(settings)
        case "kubernetes":
            return kubernetes_client(settings)
    return _local_client(settings)


@contextmanager
def _local_client(settings: ClusterSettings) -> Iterator[Client]:
    with _start_local_cluster(settings) as cluster, Client(cluster) as client:
        yield client


def _start_local_cluster(settings: ClusterSettings) -> LocalCluster:
    with ignore_sigint():
        return LocalCluster(
            n_workers=settings.workers or os.cpu_count(),
            threads_per_worker=1,
            memory_limit=f"{settings.memory_gib} GiB",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            resources={TRAINING_RESOURCE: 1},
            silence_logs=50,
        )


def _connect(settings: ClusterSettings) -> Client:
    timeout_s = settings.connect_timeout_s
    check_encrypted(settings)
    security = read_security(Path(settings.certificates)) if settings.certificates else None
    try:
        client = Client(settings.scheduler, timeout=timeout_s, security=security)
    except (OSError, ValueError) as why:
        raise ServiceUnavailable(
            f"{settings.scheduler}: no Dask scheduler responds within {timeout_s:g} s ({why}); start one with "
            "`dask scheduler`, or use --cluster.kind local"
        ) from None
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except TimeoutError:
        client.close()
        raise ServiceUnavailable(
            f"{settings.scheduler}: the scheduler has no worker after {timeout_s:g} s; start some with `dask worker`"
        ) from None
    return client


def check_encrypted(settings: ClusterSettings) -> None:
    """Raise BadInput if a scheduler on another host would be used without TLS, and this is not allowed.

    Whoever reaches a scheduler without TLS can run any code on its workers.
    """
    address = settings.scheduler
    if address.startswith("tls://") or is_loopback(address) or settings.allow_plaintext:
        return
    raise BadInput(
        f"--cluster.scheduler {address}: a scheduler on another host without TLS, by which all who can reach it can "
        "run code on its workers; make certificates (`spectrogram-one certificates`) and use tls://, or, in a network "
        "that only the cluster can reach, --cluster.allow-plaintext"
    )


def count_threads(client: Client) -> int:
    """Count the threads that can run a task at this moment."""
    return sum(client.nthreads().values())
