"""Progress of long work: a bar in the terminal, lines in a log, a progress artifact in the Prefect UI."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.reporting import metrics
from flows.reporting.artifacts import progress_artifact
from flows.reporting.stage import run_logger

ARTIFACT_INTERVAL_S = 2.0
LOG_INTERVAL_S = 15.0

Advance = Callable[[int, str], None]


class StageProgress:
    """The progress of one stage: a bar, an artifact on the page of the run, and lines in its log."""

    def __init__(self, title: str, total: int, unit: str, bar: Progress) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.note = 0, ""
        self._bar, self._task = bar, bar.add_task(title, total=total, speed="", note="")
        metrics.set_gauge("stage_size", total, stage=title, unit=unit)
        self._show_on_page = progress_artifact(_key(title), title)
        self._log = run_logger()
        self._started = self._shown = self._logged = time.monotonic()

    def advance(self, count: int, note: str = "") -> None:
        """Add finished units; update the bar at once, artifact and log every few seconds."""
        self.done += count
        metrics.count("done", count, stage=self.title, unit=self.unit)
        self.note = note
        now = time.monotonic()
        per_s = self.done / max(now - self._started, 1e-9)
        speed = f"{per_s:,.1f} {self.unit}/s"
        self._bar.update(self._task, advance=count, speed=speed, note=note)
        line = self._line(f", {speed}, {_time_left(self.total - self.done, per_s)} left")
        if now - self._shown >= ARTIFACT_INTERVAL_S:
            self._shown = now
            self._show_on_page(self._percent(), line)
        if now - self._logged >= LOG_INTERVAL_S:
            self._logged = now
            self._log.info(line)

    def finish(self) -> None:
        """Show and log the time that the stage took."""
        line = self._line(f" in {time.monotonic() - self._started:.0f} s")
        self._show_on_page(self._percent(), line)
        self._log.info(line)

    def _percent(self) -> float:
        return 100.0 * self.done / max(self.total, 1)

    def _line(self, timing: str) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"{self.title}: {self.done:,} of {self.total:,} {self.unit}{timing}{note}"


@contextmanager
def showing_progress(title: str, total: int, unit: str) -> Iterator[Advance]:
    """Return a function `advance(count, note)` that advances the progress of a stage.

    A terminal shows a bar; elsewhere a line is logged every few seconds. The Prefect UI shows an
    artifact in both cases.
    """
    console = Console(stderr=True)
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
        progress = StageProgress(title, total, unit, bar)
        yield progress.advance
    progress.finish()


def print_status(line: str) -> None:
    """Print a line of status to standard error."""
    print(line, file=sys.stderr, flush=True)


def _time_left(remaining: int, per_s: float) -> str:
    if not per_s:
        return "unknown time"
    seconds = remaining / per_s
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _key(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
