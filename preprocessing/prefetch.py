"""Work done in threads ahead of the loop that takes its results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def prefetch(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    depth: int = 1,
    executor: Executor | None = None,
    release: Callable[[Result], object] | None = None,
) -> Generator[Result, None, None]:
    """Yield `work(job)` for each job, in order, with up to `depth` more jobs under way in threads.

    Without an executor, one thread that ends with the iteration does all jobs. `release` is called
    with each result that the caller did not take because it stopped early.
    """
    with ExitStack() as stack:
        threads = executor or stack.enter_context(ThreadPoolExecutor(1))
        pending: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                pending.append(threads.submit(work, job))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                if not future.cancel() and release is not None and future.exception() is None:
                    release(future.result())
