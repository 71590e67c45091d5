"""Batches over Dask: bounded in flight, taken up as they finish, none kept.

Prefect sees the stage that calls this; the Dask scheduler sees the batches.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, as_completed

from flows.cluster import worker_count
from store.errors import BadInput

Batch = TypeVar("Batch")
Result = TypeVar("Result")
IN_FLIGHT_PER_WORKER = 3  # one running, one waiting on the worker, one on its way
BATCH_LETTERS = 1_000  # of a batch that kills its workers, in the message
RETRIES = 2  # a disk or a network may be better the next time


def in_batches(things: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Cut a stream into lists of `size`; the last may be shorter."""
    stream = iter(things)
    while batch := list(islice(stream, size)):
        yield batch


def fan_out(
    client: Client, body: Callable[..., Result], batches: Iterable[Batch], **arguments: Any
) -> Generator[tuple[Batch, Result], None, None]:
    """Run `body(batch, **arguments)` for each batch on the cluster; yield what finishes, as it does.

    Raises: what `body` raised, once Dask has retried; BadInput if a batch kills its workers.

    Batches are drawn as others finish, and futures released at once: what is held would
    be computed again if its worker died. Leaving the loop early cancels what is in flight.
    """
    waiting = iter(batches)
    running: dict[Future[Result], Batch] = {}
    finished = as_completed(loop=client.loop)

    def submit() -> None:
        wanted = IN_FLIGHT_PER_WORKER * max(1, worker_count(client))  # workers come and go
        for batch in islice(waiting, max(0, wanted - len(running))):
            future = client.submit(body, batch, **arguments, pure=False, retries=RETRIES)
            running[future] = batch
            finished.add(future)

    try:
        submit()
        for future in finished:
            batch = running.pop(future)
            result = _result(future, batch)
            future.release()
            submit()
            yield batch, result
    finally:
        client.cancel(list(running), force=True)


def _result(future: "Future[Result]", batch: object) -> Result:
    try:
        return future.result()
    except KilledWorker as why:
        raise BadInput(
            f"{why.last_worker.address}: the worker died each time it ran {why.task} "
            f"({why.allowed_failures + 1} times); look at its log and memory limit, then run again to resume. "
            f"It was at: {str(batch)[:BATCH_LETTERS]}"
        ) from None
