"""Batches of a stage, run one after the other here or spread over Dask workers.

Prefect sees the stage that calls this; the Dask scheduler sees the batches.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

from flows.cluster.client import Cluster
from flows.reporting.metrics import TimedBody

Item = TypeVar("Item")
Result = TypeVar("Result")
TASK_RETRIES = 2  # a disk or a network may respond the next time


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Split a stream into lists of `size`; the last may be shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def fan_out(
    cluster: Cluster,
    body: Callable[..., Result],
    batches: Iterable[list[Item]],
    *,
    on_poison: Callable[[Item], Result] | None = None,
    resources: dict[str, int] | None = None,
    **arguments: Any,
) -> Generator[tuple[list[Item], Result], None, None]:
    """Run `body(batch, **arguments)` for each batch; yield each batch with its result, as they finish.

    A single batch runs in this process, without Dask, if the cluster is local and not started yet.

    Raises: what `body` raised at its last try; ServiceUnavailable if an item kills its workers and there is
        no `on_poison`, which returns the result of a batch of that item alone.
    """
    stream = iter(batches)
    first = list(islice(stream, 2))
    if len(first) < 2 and cluster.is_local_and_unstarted:
        for batch in first:
            yield batch, _run_here(partial(body, batch, **arguments))
        return
    from flows.cluster.dask_batches import run_on_dask

    submit = partial(
        cluster.client.submit,
        TimedBody(body),
        resources=resources,
        pure=False,
        retries=TASK_RETRIES,
        **arguments,
    )
    yield from run_on_dask(cluster.client, submit, chain(first, stream), on_poison)


def _run_here(body: Callable[[], Result]) -> Result:
    """Call a body, and again after an OSError. Raises: what it raised at the last try.

    Dask retries after any exception, perhaps on another worker; here only a disk or a network can do better.
    """
    for _ in range(TASK_RETRIES):
        with suppress(OSError):
            return body()
    return body()
