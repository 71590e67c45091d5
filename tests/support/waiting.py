"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T], *, within_s: float = 240.0, every_s: float = 0.1) -> T:
    """Call `look` until what it returns is true, and return that."""
    until = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < until, f"nothing to see within {within_s} s"
        time.sleep(every_s)
    return seen
