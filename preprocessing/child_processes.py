"""How processes that we start share our fate: they end with us, and Ctrl-C is ours to hear."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def die_with_parent(by: int = signal.SIGTERM) -> None:
    """Have the kernel end this process, by a signal, when the one that started it is gone.

    Called by the process itself, or as `preexec_fn` for it.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


@contextmanager
def ignore_sigint() -> Iterator[None]:
    """Start processes that a Ctrl-C in the terminal does not reach: we hear it, and end them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal comes here, and no handler can be set
        return
    ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, ours)
