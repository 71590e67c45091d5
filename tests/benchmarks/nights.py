"""Thirty nights in compressed time: do runs overlap, do late ones pile up, does the database of Prefect grow?

    python -m tests.benchmarks.nights [--nights 30] [--interval-s 30]

Real are: `spectrogram-one serve` with its Prefect server on sqlite, the deployment `retrain-nightly` with its limit of
one run, its guards and its schedule, which Prefect's own scheduler turns into runs; each run is a process of its own
that builds, trains, compares and promotes on the demo music. Every fifth night has new music, the others find nothing
new. Two nights are killed (SIGKILL to their process). Retention is the product's `prune_database`, run once a night.

Compressed are: the day, which is one interval of the schedule instead of 24 h; the delay after which a night skips
itself (one interval instead of 2 h); the server's loop that marks runs as late (5 s). Before each pruning all that
has ended is made a day older by SQL, so that `--keep-days 7` keeps seven nights. Training takes seconds, so the music
is small: a night with new music may last longer than an interval, and the next must then stand back.
"""

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import prefect
import psutil
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

from flows.services.retention import PruneSummary, prune_database
from flows.settings import PruneSettings
from tests.support.chaos_stages import DEMO, FIRST_BROKEN, QUICK, copy_fma
from tests.support.prefect_ui import Served, ask, deployments, serving
from tests.support.processes import free_port

KEEP_DAYS = 7
NEW_MUSIC_EVERY, FIRST_TRACKS, NEW_TRACKS = 5, 36, 2  # nights, tracks
KILLED_NIGHTS = (9, 19)
NIGHTS_A_ROW = 5
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
TABLES = (
    "flow_run", "flow_run_state", "task_run", "task_run_state", "log", "artifact", "events", "event_resources",
)  # fmt: skip
MIB = 2**20


@dataclass
class Night:
    """What was seen between two scheduled times."""

    number: int
    late: int = 0  # runs that were due and had not started, at most
    rows: int = 0
    size_mib: float = 0.0
    pruned: int = 0
    killed: bool = False  # the process of its run


@dataclass
class Watch:
    """The runs of all nights by id: state, start and end, as they were before they were made older."""

    served: Served
    deployment: str
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    ran: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)

    def look(self) -> int:
        """Note which runs ended; return how many are due and have not started."""
        wanted = {"deployments": {"id": {"any_": [self.deployment]}}, "limit": 200}
        now, late = datetime.now(UTC), 0
        states = {"state": {"type": {"any_": [*ENDED, "SCHEDULED", "PENDING"]}}}
        due = {"expected_start_time": {"before_": now.isoformat()}}
        for run in ask(self.served, "flow_runs/filter", wanted | {"flow_runs": states | due}):
            if run["state_type"] not in ENDED:
                late += run["state_name"] == "Late"
            elif run["id"] not in self.ended:
                self.ended[run["id"]] = run
                if run["start_time"] and run["total_run_time"]:
                    start, end = (datetime.fromisoformat(run[name]) for name in ("start_time", "end_time"))
                    self.ran[run["id"]] = (start, end)
        return late

    def overlaps(self) -> int:
        """Count the pairs of runs that were active at the same moment."""
        spans = sorted(self.ran.values())
        return sum(
            later[0] < earlier[1] for number, earlier in enumerate(spans) for later in spans[number + 1 :]
        )


def settings_of(folder: Path, interval_s: float) -> dict[str, Any]:
    """Return the settings of the nightly deployment."""
    store, models = f"{folder}/store", f"{folder}/models"
    cluster = {"workers": 1}
    training: dict[str, Any] = {"model": {}}
    for name, value in QUICK.items():
        outer, _, inner = name.replace("-", "_").rpartition(".")
        (training["model"] if outer else training)[inner] = value
    build = {"source": f"{folder}/music", "store": store, "cluster": cluster}
    build["spectrogram"] = {"mel": {"hop": 1024, "bands": 32}}
    train = {"store": store, "models": models, "training": training, "cluster": cluster}
    train["hosts"] = {"processes_per_host": 1}
    lenient = {"margin": 0.0, "confidence": 0.0, "max_genre_f1_drop": 1.0, "start": "scratch"}
    return {"build": build, "train": train, **lenient, "max_delay_minutes": interval_s / 60}


def switch_on(served: Served, folder: Path, interval_s: float) -> str:
    """Give the nightly deployment its settings and a schedule that is on; return its id."""
    deployment = deployments(served)["retrain-nightly"]
    url = f"deployments/{deployment['id']}"
    ask(served, url, {"parameters": {"settings": settings_of(folder, interval_s)}}, method="PATCH")
    first = datetime.now(UTC) + timedelta(seconds=interval_s)
    schedule = {"interval": interval_s, "anchor_date": first.isoformat()}
    ask(served, f"{url}/schedules", [{"schedule": schedule, "active": True}])  # type: ignore[arg-type]
    return str(deployment["id"])


def make_older(database: Path, by: timedelta) -> None:
    """Make older by a day all that has ended, and its events: what a day does."""
    ended = "select id from flow_run where end_time is not null"
    which = {
        "flow_run": "end_time is not null",
        "events": "true",
        "event_resources": "true",
        "flow_run_state": f"flow_run_id in ({ended})",
        "task_run": f"flow_run_id in ({ended})",
        "task_run_state": f"task_run_id in (select id from task_run where flow_run_id in ({ended}))",
        "log": f"flow_run_id in ({ended})",
        "artifact": f"flow_run_id in ({ended})",
    }
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        for table, condition in which.items():
            columns = [
                name
                for _, name, kind, *_ in opened.execute(f"pragma table_info({table})")
                if kind in ("DATETIME", "TIMESTAMP") and not name.endswith("run_time")  # a duration
            ]
            older = [  # to the microsecond: states of one task are not to coincide
                f"{it} = strftime('%Y-%m-%d %H:%M:%S', {it}, '-{by.total_seconds():.0f} seconds') || substr({it}, 20)"
                for it in columns
            ]
            opened.execute(f"update {table} set {', '.join(older)} where {condition}")


def prune(database: Path) -> PruneSummary:
    """Prune as the retention flow does."""
    url = f"sqlite+aiosqlite:///{database}"
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: url}):
        return prune_database(PruneSettings(keep_days=KEEP_DAYS))


def count_rows(database: Path) -> int:
    """Count the rows of all tables that grow with runs."""
    with closing(sqlite3.connect(database, timeout=60)) as opened:
        return sum(opened.execute(f"select count(*) from {table}").fetchone()[0] for table in TABLES)


def kill_run(served: Served) -> bool:
    """Kill the process of the run that is active; return whether there was one."""
    for child in psutil.Process(served.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if "prefect" in line and ("engine" in line or "flow-run" in line):
                child.kill()
                return True
    return False


def run_nights(folder: Path, nights: int, interval_s: float) -> tuple[list[Night], Watch]:
    """Let the nights pass; return what was seen in each, and the runs."""
    songs = sorted(it.stem for it in DEMO.rglob("*.mp3") if int(it.stem) < FIRST_BROKEN)
    songs = songs[::3] + songs[1::3] + songs[2::3]  # all genres from the start
    copy_fma(folder / "music", songs[:FIRST_TRACKS])
    faster = {"PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "5"}
    (folder / "home").mkdir()
    seen = []
    with serving(folder / "home", free_port(), **faster) as served:
        database = folder / "home" / f"spectrogram-one-{prefect.__version__}.db"
        watch = Watch(served, switch_on(served, folder, interval_s))
        dusk = time.monotonic() + interval_s
        for number in range(nights):
            night = Night(number + 1)
            if number and number % NEW_MUSIC_EVERY == 0:
                copy_fma(folder / "music", songs[: FIRST_TRACKS + NEW_TRACKS * (number // NEW_MUSIC_EVERY)])
            dusk += interval_s
            while time.monotonic() < dusk:
                night.late = max(night.late, watch.look())
                if number in KILLED_NIGHTS and not night.killed:
                    night.killed = kill_run(served)
                time.sleep(1)
            night.late = max(night.late, watch.look())
            make_older(database, timedelta(days=1))
            night.pruned = prune(database).removed["runs"]
            night.rows, night.size_mib = count_rows(database), size_mib(database)
            seen.append(night)
            print(f"night {night.number}: {json.dumps(vars(night))}", file=sys.stderr, flush=True)
    return seen, watch


def size_mib(database: Path) -> float:
    """Return the size of the database's file, with what its write-ahead log holds: the log is never shortened."""
    with closing(sqlite3.connect(database, timeout=60)) as opened:
        opened.execute("pragma wal_checkpoint(passive)")
    return database.stat().st_size / MIB


def table(nights: Sequence[Night]) -> str:
    """Return the nights as Markdown, some to a row."""
    lines = [
        "| nights | late runs at a time | runs pruned | rows left | database, MiB |",
        "|---|---|---|---|---|",
    ]
    for first in range(0, len(nights), NIGHTS_A_ROW):
        some = nights[first : first + NIGHTS_A_ROW]
        late, pruned = max(it.late for it in some), sum(it.pruned for it in some)
        span = f"{some[0].number} to {some[-1].number}"
        lines.append(f"| {span} | {late} | {pruned} | {some[-1].rows:,} | {some[-1].size_mib:.1f} |")
    return "\n".join(lines)


def describe_runs(watch: Watch) -> list[str]:
    """Return lines about how the runs ended."""
    states = Counter(run["state_name"] for run in watch.ended.values())
    lengths = sorted((end - start).total_seconds() for start, end in watch.ran.values())
    return [
        f"runs: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}",
        f"overlapping pairs: {watch.overlaps()}",
        f"length of a run: {lengths[0]:.0f} to {lengths[-1]:.0f} s",
    ]


def main() -> None:
    """Print the table, and how the runs ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--interval-s", type=float, default=30.0)
    wanted = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nights-"))
    try:
        nights, watch = run_nights(folder, wanted.nights, wanted.interval_s)
        print(table(nights), *describe_runs(watch), sep="\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
