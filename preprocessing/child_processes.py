"""Child processes: they end with their parent, and leave Ctrl-C to it."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def die_with_parent(signal_number: int = signal.SIGTERM) -> None:
    """Ask the kernel to send this process a signal when its parent ends.

    Call it in the child itself, or pass it as `preexec_fn`.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)


@contextmanager
def ignore_sigint() -> Iterator[None]:
    """Start child processes that ignore Ctrl-C in the terminal: this process receives it, and ends them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals, and sets handlers, in the main thread only
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
