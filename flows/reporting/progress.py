"""Progress of long work: a bar in the terminal, lines in a log, a progress artifact in the Prefect UI."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.reporting.artifacts import progress_artifact
from flows.reporting.stage import run_logger

ARTIFACT_INTERVAL_S = 2.0
LOG_INTERVAL_S = 15.0

Advance = Callable[[int, str], None]


@contextmanager
def showing_progress(title: str, total: int, unit: str) -> Iterator[Advance]:
    """Return a function `advance(count, note)` that advances the progress of a stage.

    A terminal shows a bar; elsewhere a line is logged every few seconds. The Prefect UI shows an
    artifact in both cases.
    """
    console = Console(stderr=True)
    show_on_page = progress_artifact(_key(title), title)
    log = run_logger()
    started = shown = logged = time.monotonic()
    done, last_note = 0, ""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=total, speed="", note="")

        def advance(count: int, note: str = "") -> None:
            nonlocal done, last_note, shown, logged
            done += count
            last_note = note
            now = time.monotonic()
            per_s = done / max(now - started, 1e-9)
            speed = f"{per_s:,.1f} {unit}/s"
            bar.update(task, advance=count, speed=speed, note=note)
            line = f"{title}: {done:,} of {total:,} {unit}, {speed}, {_time_left(total - done, per_s)} left"
            line += _suffix(note)
            if now - shown >= ARTIFACT_INTERVAL_S:
                shown = now
                show_on_page(100.0 * done / max(total, 1), line)
            if now - logged >= LOG_INTERVAL_S:
                logged = now
                log.info(line)

        yield advance
    line = f"{title}: {done:,} of {total:,} {unit} in {time.monotonic() - started:.0f} s" + _suffix(last_note)
    show_on_page(100.0 * done / max(total, 1), line)
    log.info(line)


def print_status(line: str) -> None:
    """Print a line of status to standard error."""
    print(line, file=sys.stderr, flush=True)


def _suffix(note: str) -> str:
    return f"; {note}" if note else ""


def _time_left(remaining: int, per_s: float) -> str:
    if not per_s:
        return "unknown time"
    seconds = remaining / per_s
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _key(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
