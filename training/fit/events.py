"""The events that a rank reports while it trains, and a heartbeat for work that reports nothing else."""

import time
from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]
EVENT_INTERVAL_S = 1.0


def make_heartbeat(emit: Emit) -> Callable[[], None]:
    """Return a function to call in every turn of a long loop: it emits a heartbeat about once a second."""
    last = time.perf_counter()

    def heartbeat() -> None:
        nonlocal last
        if time.perf_counter() - last > EVENT_INTERVAL_S:
            last = time.perf_counter()
            emit({"event": "heartbeat"})

    return heartbeat
