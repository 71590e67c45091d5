"""Bodies of tasks that kill their worker. A worker imports this module, so it imports little."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def die_once(batch: list[int], *, folder: str) -> list[int]:
    """Kill the worker the first time that certain numbers are tried."""
    for number in batch:
        if number % 5 == 0:
            _die(folder, number, times=1)
    return [number * number for number in batch]


def die_often(batch: list[int], *, folder: str, times: int) -> list[int]:
    """Kill the worker so many times for the number 3, then no more."""
    if 3 in batch:
        _die(folder, 3, times=times)
    return batch


def die_always(batch: list[int], *, poison: list[int]) -> list[int]:
    if set(batch) & set(poison):
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def die_until(batch: list[int], *, end: float) -> list[int]:
    if time.time() < end:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def die_in_company(batch: list[str], *, folder: str) -> list[str]:
    """Kill the worker of "shy" twice, and from then on only if "loud" is still running elsewhere."""
    runs, loud = Path(folder, "runs"), Path(folder, "loud")
    if batch == ["loud"]:
        loud.touch()
        _wait(lambda: size_of(runs) >= 2, at_most_s=60)
        _wait(lambda: size_of(runs) >= 3, at_most_s=1)
        loud.unlink()
        return batch
    with runs.open("a") as file:
        file.write("x")
    if size_of(runs) <= 2 or loud.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def fail(batch: list[int]) -> list[int]:
    raise OSError(5, "Input/output error")


def _die(folder: str, number: int, *, times: int) -> None:
    deaths = Path(folder, str(number))
    if size_of(deaths) < times:
        with deaths.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)


def size_of(path: Path) -> int:
    """Return how many times a worker died of a number."""
    return path.stat().st_size if path.exists() else 0


def _wait(is_so: Callable[[], bool], *, at_most_s: float) -> None:
    end = time.monotonic() + at_most_s
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
