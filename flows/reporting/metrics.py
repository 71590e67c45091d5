"""What a flow and its workers measure, for Prometheus.

A flow's process serves its metrics where `observation.observed` opens a port. Those of a worker are on the
page where Dask shows its own (`/metrics` of its dashboard's port). Without either, nothing is counted.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

Result = TypeVar("Result")
PREFIX = "spectrogram_one_"
BATCH_BUCKETS_S = (0.1, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)
_registering = Lock()  # threads of a worker may end their first batches at the same instant


@dataclass(frozen=True)
class Metric:
    """One metric: its kind, what it measures, and the labels that distinguish its series."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


METRICS: Mapping[str, Metric] = {
    "done": Metric("counter", "Units of a stage that are done: tracks, files, epochs", ("stage", "unit")),
    "stage_size": Metric("gauge", "Units that a stage has to do", ("stage", "unit")),
    "rejects": Metric("counter", "Tracks that could not be used, by reason", ("reason",)),
    "batches_in_flight": Metric("gauge", "Batches submitted to Dask and not finished"),
    "batches_retried": Metric("counter", "Batches whose workers died"),
    "batch_seconds": Metric("histogram", "Time of one batch on a worker, in seconds", ("body", "result")),
    "training_crops_per_second": Metric("gauge", "Crops that all processes train on, per second"),
    "training_step_seconds": Metric("gauge", "Time of one training step, in seconds"),
    "training_data_wait_share": Metric("gauge", "Share of the last epoch that waited for data"),
    "training_loss": Metric("gauge", "Mean training loss of the last steps"),
    "gpu_memory_bytes": Metric("gauge", "Most memory that torch used on a GPU of the first process"),
}


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter."""
    if is_measured():
        _series(name, labels).inc(amount)


def set_gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge to a value."""
    if is_measured():
        _series(name, labels).set(value)


def is_measured() -> bool:
    """Return whether something in this process shows metrics: importing the library takes 0.15 s."""
    return "prometheus_client" in sys.modules


@contextmanager
def serving_metrics(host: str, port: int) -> Iterator[None]:
    """Serve the metrics of this process over HTTP as long as the block lasts. Raises: OSError if the port is taken."""
    from prometheus_client import start_http_server

    server, thread = start_http_server(port, addr=host)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class TimedBody(Generic[Result]):
    """The body of a Dask task, whose time is measured on the worker that runs it."""

    body: Callable[..., Result]

    @property
    def __name__(self) -> str:
        """The name by which Dask shows its tasks."""
        return self.body.__name__

    def __call__(self, *arguments: Any, **settings: Any) -> Result:
        started, result = time.perf_counter(), "failed"
        try:
            returned = self.body(*arguments, **settings)
            result = "done"
            return returned
        finally:
            if is_measured():
                labels = {"body": self.body.__name__, "result": result}
                _series("batch_seconds", labels).observe(time.perf_counter() - started)


def _series(name: str, labels: Mapping[str, str]) -> Any:
    with _registering:
        made = _metric(name)
    return made.labels(**labels) if labels else made


@cache
def _metric(name: str) -> "Counter | Gauge | Histogram":
    from prometheus_client import Counter, Gauge, Histogram

    metric = METRICS[name]
    full = PREFIX + name
    if metric.kind == "histogram":
        return Histogram(full, metric.help, metric.labels, buckets=BATCH_BUCKETS_S)
    return (Counter if metric.kind == "counter" else Gauge)(full, metric.help, metric.labels)
