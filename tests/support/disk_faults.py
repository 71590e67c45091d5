"""A disk that fails, or a process that dies, at the n-th call by which Python changes or opens files."""

import builtins
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

WRITE_CALLS = [
    "open",
    "mkdir",
    "sendfile",
    "copy_file_range",
    "write",
    "pwrite",
    "truncate",
    "ftruncate",
    "fsync",
]
RENAME_CALLS = ["replace", "rename", "link", "unlink", "rmdir"]
METADATA_CALLS = ["utime", "chown", "chmod", "listxattr", "getxattr", "setxattr"]
WRITING = set("wax+")


class Faults:
    """Counts calls, and has the one numbered `at` fail with `errno`, or, without one, kill the process."""

    def __init__(self, at: int | None = None, errno: int | None = None) -> None:
        self.at, self.errno = at, errno
        self.calls: list[str] = []
        self.lock = threading.Lock()

    def count_call(self, name: str) -> None:
        with self.lock:
            self.calls.append(name)
            is_due = len(self.calls) == self.at
        if is_due:
            if self.errno is None:
                os.kill(os.getpid(), signal.SIGKILL)
                return
            raise OSError(self.errno, os.strerror(self.errno))

    @property
    def failed(self) -> str | None:
        """The call that failed; None if it has not come to that."""
        return self.calls[self.at - 1] if self.at is not None and self.at <= len(self.calls) else None


class FailingFile:
    """A file open for writing whose writes, and whose last one in close, can fail."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *why: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        self._faults.count_call("file.write")
        return self._file.write(data)

    def truncate(self, size: int | None = None) -> int:
        self._faults.count_call("file.truncate")
        return self._file.truncate(size)

    def close(self) -> None:
        is_open = not self._file.closed
        self._file.close()
        if is_open:
            self._faults.count_call("file.close")


@contextmanager
def faults(at: int | None = None, errno: int | None = None) -> Iterator[Faults]:
    """Count all calls of the block that change files or open them; have one fail, or kill the process.

    fsync is counted and not done: who reads the files is on this machine, and the disk is slow.
    """
    met = Faults(at, errno)

    def patched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def meet_and_call(*args: Any, **kwargs: Any) -> Any:
            met.count_call(name)
            return call(*args, **kwargs)

        return meet_and_call

    def failing_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        met.count_call("open")
        opened = plain_open(file, mode, *args, **kwargs)
        return FailingFile(opened, met) if WRITING & set(mode) else opened

    plain_open = builtins.open
    calls = {name: getattr(os, name) for name in WRITE_CALLS + RENAME_CALLS + METADATA_CALLS} | {
        "fsync": lambda handle: None
    }
    with (
        mock.patch.multiple(os, **{name: patched(name, call) for name, call in calls.items()}),
        mock.patch.object(builtins, "open", failing_open),
        mock.patch.object(io, "open", failing_open),
    ):
        yield met
