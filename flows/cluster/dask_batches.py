"""Batches on Dask workers: few in flight, released when finished, an item that kills its workers isolated."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Generic, TypeVar

from distributed import Client, Future, KilledWorker, as_completed
from distributed.scheduler import NoValidWorkerError

from flows.cluster.dask_client import count_threads
from flows.reporting import metrics
from flows.reporting.structured_log import log_event
from store.errors import ServiceUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
IN_FLIGHT_PER_THREAD = 3  # one running, one queued at the worker, one on its way
MAX_ITEM_CHARS = 1_000  # of an item that kills its workers, in the message
POISON_DEATHS = 4  # of workers that ran the item and nothing else: one or two may have another cause
MAX_SUSPECTS = 8  # the whole cluster waits while they are tried, so not for each by itself


class WorkQueue(Generic[Item]):
    """What is still to be run: fresh batches, halves of failed ones, and items to be tried alone."""

    def __init__(self, fresh: Iterator[list[Item]]) -> None:
        self.fresh = fresh
        self.halves: deque[list[Item]] = deque()
        self.suspects: deque[Item] = deque()

    def next_batch(self) -> list[Item] | None:
        """Return the next batch; None if there is none, or so many suspects that they are tried first.

        Halves come first, so that batches known to fail do not pile up.
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


def run_on_dask(
    client: Client,
    submit: "Callable[[list[Item]], Future[Result]]",
    batches: Iterator[list[Item]],
    on_poison: Callable[[Item], Result] | None,
) -> Generator[tuple[list[Item], Result], None, None]:
    """Submit each batch; yield each with its result, as they finish.

    Raises: what a batch raised, once Dask has retried; ServiceUnavailable if an item kills its workers and
        there is no `on_poison`, or no worker has the resources that `submit` asks for.

    Batches are taken from the stream as others finish, and futures released at once: what is held
    would be computed again if its worker died. Leaving the loop early cancels what is in flight.

    A batch whose workers die is yielded in parts: it is halved until an item is alone. That is no
    proof yet, since Dask blames every task that a dying worker held, and a worker may be killed
    from outside. So a suspect is tried once more, with nothing else on the cluster.
    """
    work = WorkQueue(batches)
    while True:
        yield from _run_all(client, submit, work)
        if not work.suspects:
            return
        while work.suspects:
            item = work.suspects.popleft()
            yield [item], _try_alone(client, submit, item, on_poison)


def _run_all(
    client: Client, submit: "Callable[[list[Item]], Future[Result]]", work: WorkQueue[Item]
) -> Generator[tuple[list[Item], Result], None, None]:
    """Run batches until the queue gives none and nothing is in flight."""
    running: dict[Future[Result], list[Item]] = {}
    finished = as_completed(loop=client.loop)

    def fill() -> None:
        wanted = IN_FLIGHT_PER_THREAD * max(1, count_threads(client))  # workers come and go
        for batch in islice(iter(work.next_batch, None), max(0, wanted - len(running))):
            future = submit(batch)
            running[future] = batch
            finished.add(future)
        metrics.set_gauge("batches_in_flight", len(running))

    try:
        fill()
        for future in finished:
            batch = running.pop(future)
            try:
                result = future.result()
            except KilledWorker:
                work.requeue_failed(batch)
                metrics.count("batches_retried")
                log_event("the workers of a batch died", items=len(batch))
                fill()
                continue
            except NoValidWorkerError as why:
                raise ServiceUnavailable(
                    f"no worker of the cluster has the resource that this task needs ({why}); start workers with "
                    "it, such as `dask worker --resources GPU=1`"
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
                f"The item: {str(item)[:MAX_ITEM_CHARS]}"
            ) from None
        finally:
            client.cancel([future], force=True)
