"""Processes of tests: interruptible though the suite is not, and none left when it ends."""

import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import psutil

SESSION = (
    "SPECTROGRAM_ONE_TEST_SESSION"  # an environment variable that every process of a test session inherits
)
END_WITHIN_S = 10.0
# Children that end with the interpreter that started them, and not before.
HELPERS_OF_PYTHON = (
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
    "preprocessing.decode.decoding_process",
)


def start_in_foreground(command: Sequence[str | os.PathLike[str]], **more: Any) -> "subprocess.Popen[Any]":
    """Start a command as a terminal does: a process group of its own, which a Ctrl-C ends.

    The test session itself may run in the background, and children inherit what it ignores.
    """
    return _start(command, partial(signal.signal, signal.SIGINT, signal.SIG_DFL), more)


def start_in_background(command: Sequence[str | os.PathLike[str]], **more: Any) -> "subprocess.Popen[Any]":
    """Start a command as a shell that is not interactive starts a background job: it ignores SIGINT."""
    return _start(command, partial(signal.signal, signal.SIGINT, signal.SIG_IGN), more)


def _start(
    command: Sequence[str | os.PathLike[str]], in_child: Callable[[], object], more: dict[str, Any]
) -> "subprocess.Popen[Any]":
    return subprocess.Popen(command, start_new_session=True, preexec_fn=in_child, **more)


def end_group(process: "subprocess.Popen[Any]", by: int, *, within_s: float = 120.0) -> int:
    """End a process that has a group of its own by a signal, and return its status; kill the group if it does not end.

    SIGINT goes to the whole group, as from a terminal; another signal to the process alone.
    """
    if process.poll() is None:
        (os.killpg if by == signal.SIGINT else os.kill)(process.pid, by)
    try:
        return process.wait(within_s)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def mark_session() -> str:
    """Return the mark of this test session, made by whichever process comes first."""
    return os.environ.setdefault(SESSION, uuid.uuid4().hex)


def find_processes_of_session(mark: str) -> list[psutil.Process]:
    """List the processes that a session started and that are alive, orphans too; not the caller and its ancestors."""
    me = psutil.Process()
    ours = {me.pid, *(parent.pid for parent in me.parents())}
    below = {child.pid for child in me.children(recursive=True)}
    ours |= {child.pid for child in me.children() if _is_helper(child)}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid in ours or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid in below or process.environ().get(SESSION) == mark:
                found.append(process)
    return found


def _is_helper(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(helper in part for part in process.cmdline() for helper in HELPERS_OF_PYTHON)
    return False


def end_processes_of_session(mark: str) -> list[str]:
    """Kill what a session left running, and name it; what is about to end may do so first."""
    psutil.wait_procs(find_processes_of_session(mark), timeout=END_WITHIN_S)
    named = []
    for process in (left := find_processes_of_session(mark)):
        with suppress(psutil.Error):
            named.append(f"{process.pid}: {' '.join(process.cmdline())[:300]}")
            process.kill()
    psutil.wait_procs(left, timeout=END_WITHIN_S)
    return named
