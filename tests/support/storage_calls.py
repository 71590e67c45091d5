"""The calls by which a dataset's code reads and changes its storage, one by one: to die at one, or to be overtaken."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock
from uuid import uuid4

from store.dataset import parts, snapshot_tags, snapshots, sweep
from store.fs.files import local_path

CHANGES = ("put_if_absent", "write_atomic", "remove")
READS = ("read_bytes", "read_table", "list_names", "exists", "change_time", "change_times")
MODULES = (parts, snapshots, snapshot_tags, sweep)


class Crashed(BaseException):
    """The writer's process died."""


@contextmanager
def intercepted(
    names: tuple[str, ...], meet: Callable[[str, Callable[..., Any], Any], Any]
) -> Iterator[None]:
    """Pass each call of these names, with its function and arguments, to `meet`."""
    with ExitStack() as patches:
        for module in MODULES:
            for name in names:
                if hasattr(module, name):
                    plain = getattr(module, name)
                    patches.enter_context(
                        mock.patch.object(module, name, lambda *args, _n=name, _f=plain: meet(_n, _f, args))
                    )
        yield


@contextmanager
def dying(at: int, moment: str) -> Iterator[None]:
    """Have the process die at its change number `at` of the storage: before it, amid it or after it.

    Nothing that follows is done: no `finally` runs in a process that was killed.
    """
    count = 0

    def meet(name: str, plain: Callable[..., Any], args: Any) -> Any:
        nonlocal count
        count += 1
        if count <= at:
            return plain(*args)
        if count == at + 1 and moment == "after":
            plain(*args)
        if count == at + 1 and moment == "amid" and name != "remove":
            _leave_draft(*args)
        raise Crashed

    with intercepted(CHANGES, meet):
        yield


def _leave_draft(url: str, data: bytes) -> None:
    """Leave what a killed process leaves beside its target. An object store has no such drafts."""
    path = local_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{uuid4().hex}.part{path.suffix}").write_bytes(data[: len(data) // 2])


@contextmanager
def overtaken(at: int, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` before the call number `at`, reads counted too."""
    count = 0

    def meet(name: str, plain: Callable[..., Any], args: Any) -> Any:
        nonlocal count
        count += 1
        if count == at + 1:
            act()
        return plain(*args)

    with intercepted(CHANGES + READS, meet):
        yield
