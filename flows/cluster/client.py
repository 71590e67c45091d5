"""Where Dask runs, decided by the settings; Dask is imported, and a cluster started, when a client is needed."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from flows.cluster.settings import ClusterSettings

if TYPE_CHECKING:
    from distributed import Client

TRAINING_RESOURCE = "GPU"  # `dask worker --resources GPU=1` marks a training host


class Cluster:
    """A Dask cluster that is started, or connected to, when its client is first used.

    A single batch needs no worker: `fan_out` runs it in this process if the cluster is local and not started.
    """

    def __init__(self, settings: ClusterSettings, resources: ExitStack) -> None:
        self._settings = settings
        self._resources = resources
        self._client: Client | None = None

    @property
    def client(self) -> "Client":
        """The client of the cluster. Raises: ServiceUnavailable if no scheduler or worker responds in time."""
        if self._client is None:
            from flows.cluster.dask_client import open_client

            self._client = self._resources.enter_context(open_client(self._settings))
        return self._client

    @property
    def name(self) -> str:
        """The scheduler that is connected to, or this machine: two trainings with the same name share their GPUs."""
        return self._settings.scheduler or f"{self._settings.kind}://{socket.gethostname()}"

    @property
    def is_local_and_unstarted(self) -> bool:
        """Whether the workers would be processes of this machine, and none was started yet."""
        return self._settings.kind == "local" and self._client is None


@contextmanager
def open_cluster(settings: ClusterSettings) -> Iterator[Cluster]:
    """Return the cluster of the settings; what was started for it ends with the block."""
    with ExitStack() as resources:
        yield Cluster(settings, resources)
