"""Where Dask runs: worker processes on this machine, or the scheduler of a cluster that is up."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dask
from distributed import Client, LocalCluster

from flows.cluster.settings import ClusterSettings
from preprocessing.child_processes import ignore_sigint
from store.errors import ServiceUnavailable

TRAINING_RESOURCE = "GPU"  # `dask worker --resources GPU=1` marks a training host
DASK_CONFIG = {
    # Dask logs the last messages to each worker, which hold the batches: 1,000 of them by default.
    "distributed.admin.low-level-log-length": 20,
    # Two workers die before a batch is halved; a batch that only waited behind it may be halved too.
    "distributed.scheduler.allowed-failures": 1,
    # Some time after a worker died, Dask looks whether it is up. If it has just died again, Dask ends
    # its nanny, and it never comes back: two deaths 15 s apart cost a worker. The nanny is enough.
    "distributed.deploy.lost-worker-timeout": "1000 h",
}


class Cluster:
    """A Dask cluster that is started, or connected to, when it is first needed.

    What is a single batch on a local cluster needs no worker: `fan_out` runs it in this process.
    """

    def __init__(self, settings: ClusterSettings, resources: ExitStack) -> None:
        self._settings = settings
        self._resources = resources
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client of the cluster. Raises: ServiceUnavailable if no scheduler or worker responds in time."""
        if self._client is None:
            connect_timeout_s = self._settings.connect_timeout_s
            # A resource that nobody has would be waited for without end.
            limits = DASK_CONFIG | {"distributed.scheduler.no-workers-timeout": f"{connect_timeout_s} s"}
            self._resources.enter_context(dask.config.set(limits))
            match self._settings.kind:
                case "local":
                    cluster = self._resources.enter_context(_local_cluster(self._settings))
                    self._client = self._resources.enter_context(Client(cluster))
                case "scheduler":
                    self._client = self._resources.enter_context(_connect(self._settings))
        return self._client

    @property
    def is_idle_here(self) -> bool:
        """Whether the workers would be this machine's, and none was started yet."""
        return self._settings.kind == "local" and self._client is None


@contextmanager
def open_cluster(settings: ClusterSettings) -> Iterator[Cluster]:
    """Return the cluster of the settings; what was started for it ends with the block."""
    with ExitStack() as resources:
        yield Cluster(settings, resources)


def _local_cluster(settings: ClusterSettings) -> LocalCluster:
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
    try:
        client = Client(settings.scheduler, timeout=settings.connect_timeout_s)
    except (OSError, ValueError) as why:
        raise ServiceUnavailable(
            f"{settings.scheduler}: no Dask scheduler answers within {settings.connect_timeout_s:g} s ({why}); "
            "start one with `dask scheduler`, or use the local cluster"
        ) from None
    try:
        client.wait_for_workers(1, timeout=settings.connect_timeout_s)
    except TimeoutError:
        client.close()
        raise ServiceUnavailable(
            f"{settings.scheduler}: the scheduler has no worker after {settings.connect_timeout_s:g} s; "
            "start some with `dask worker`"
        ) from None
    return client


def count_threads(client: Client) -> int:
    """Count the threads that can run a task at this moment."""
    return sum(client.nthreads().values())
