"""Batches over Dask: bounded in flight, taken up as they finish, none kept, poison isolated.

Prefect sees the stage that calls this; the Dask scheduler sees the batches.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from distributed import Client, Future, KilledWorker, as_completed
from distributed.scheduler import NoValidWorkerError

from flows.cluster.client import Cluster, count_threads
from store.errors import ServiceUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
IN_FLIGHT_PER_THREAD = 3  # one running, one waiting on the worker, one on its way
MAX_ITEM_CHARS = 1_000  # of an item that kills its workers, in the message
TASK_RETRIES = 2  # a disk or a network may be better the next time
POISON_DEATHS = 4  # of workers that ran the item and nothing else: one or two may have another cause
MAX_SUSPECTS = 8  # the whole cluster waits while they are tried, so not for each by itself


def in_batches(things: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of `size`; the last may be shorter."""
    stream = iter(things)
    while batch := list(islice(stream, size)):
        yield batch


def fan_out(
    cluster: Cluster,
    body: Callable[..., Result],
    batches: Iterable[list[Item]],
    *,
    on_poison: Callable[[Item], Result] | None = None,
    **arguments: Any,
) -> Generator[tuple[list[Item], Result], None, None]:
    """Run `body(batch, **arguments)` for each batch on the cluster; yield what finishes, as it does.

    A single batch runs in this process, if the cluster would be local and was not started yet.

    Raises: what `body` raised, once Dask has retried; ServiceUnavailable if an item kills its workers
        and no `on_poison` is there to give the result of a batch that holds it alone.

    Batches are drawn as others finish, and futures released at once: what is held would
    be computed again if its worker died. Leaving the loop early cancels what is in flight.

    A batch whose workers die is yielded in parts: it is halved until an item is alone. That is
    no proof yet, since Dask blames every task a dying worker held, and a worker may be killed
    from outside. So a suspect is tried once more, with nothing else on the cluster.
    """
    fresh = iter(batches)
    first = list(islice(fresh, 2))
    if len(first) < 2 and cluster.is_idle_here:
        arguments.pop("resources", None)
        for batch in first:
            yield batch, _run_here(partial(body, batch, **arguments))
        return
    client = cluster.client
    submit = partial(client.submit, body, pure=False, retries=TASK_RETRIES, **arguments)
    work = WorkQueue(chain(first, fresh))
    while True:
        yield from _run_all(client, submit, work)
        if not work.suspects:
            return
        while work.suspects:
            item = work.suspects.popleft()
            yield [item], _try_alone(client, submit, item, on_poison)


def _run_here(body: Callable[[], Result]) -> Result:
    """Call a body as often as Dask would. Raises: what it raised at the last try."""
    for _ in range(TASK_RETRIES):
        with suppress(OSError):
            return body()
    return body()


class WorkQueue(Generic[Item]):
    """What is still to be run: fresh batches, halves of those that died, and items to be tried alone."""

    def __init__(self, fresh: Iterator[list[Item]]) -> None:
        self.fresh = fresh
        self.halves: deque[list[Item]] = deque()
        self.suspects: deque[Item] = deque()

    def next_batch(self) -> list[Item] | None:
        """Give the next batch; None while there is none, or enough suspects are there to be tried first.

        Halves come first, so that what is known to be dying does not pile up.
        """
        if len(self.suspects) >= MAX_SUSPECTS:
            return None
        return self.halves.popleft() if self.halves else next(self.fresh, None)

    def requeue_failed(self, batch: list[Item]) -> None:
        """Halve a batch whose workers died, or suspect the one item in it."""
        middle = len(batch) // 2
        if middle:
            self.halves.extendleft([batch[middle:], batch[:middle]])
        else:
            self.suspects.extend(batch)


def _run_all(
    client: Client, submit: "Callable[[list[Item]], Future[Result]]", work: WorkQueue[Item]
) -> Generator[tuple[list[Item], Result], None, None]:
    """Run what there is to draw, and end when nothing is in flight any more."""
    running: dict[Future[Result], list[Item]] = {}
    finished = as_completed(loop=client.loop)

    def fill() -> None:
        wanted = IN_FLIGHT_PER_THREAD * max(1, count_threads(client))  # workers come and go
        for batch in islice(iter(work.next_batch, None), max(0, wanted - len(running))):
            future = submit(batch)
            running[future] = batch
            finished.add(future)

    try:
        fill()
        for future in finished:
            batch = running.pop(future)
            try:
                result = future.result()
            except KilledWorker:
                work.requeue_failed(batch)
                fill()
                continue
            except NoValidWorkerError as why:
                raise ServiceUnavailable(
                    f"no worker of the cluster has what this takes ({why}); start workers with the resource, such "
                    "as `dask worker --resources GPU=1`"
                ) from None
            finally:
                future.release()
            fill()
            yield batch, result
    finally:
        client.cancel(list(running), force=True)


def _try_alone(
    client: Client,
    submit: "Callable[[list[Item]], Future[Result]]",
    item: Item,
    on_poison: Callable[[Item], Result] | None,
) -> Result:
    """Run one item while nothing else runs, until it is done or has killed enough workers."""
    deaths = 0
    while True:
        future = submit([item])
        try:
            return future.result()
        except KilledWorker as why:
            deaths += why.allowed_failures + 1
            if deaths < POISON_DEATHS:
                continue
            if on_poison is not None:
                return on_poison(item)
            raise ServiceUnavailable(
                f"{why.last_worker.address}: the worker died each time it ran {why.task} alone ({deaths} times); "
                "look at its log and memory limit, then run again to resume. "
                f"It was at: {str(item)[:MAX_ITEM_CHARS]}"
            ) from None
        finally:
            client.cancel([future], force=True)
