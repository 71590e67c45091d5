"""Seeded faults in mid-run: 0 artefacts may be lost or damaged, and the same command, run again, must complete.

    python -m tests.benchmarks.chaos [--faults 100] [--seed 0] [--kinds flow worker ...] [--stages build train tag]

Real are: a Dask scheduler and a worker under its nanny, torchrun, a Prefect server on Postgres, the commands `build`,
`train`, `tag` and `undo`, their files, the kills (SIGKILL), a tmpfs that is full, TCP connections that break. moto is
the object store, behind a proxy that fails all requests with 503 for a while. A command is a fork of a process that
has imported what it needs. A run is recorded by Prefect where the fault is Prefect's or Postgres'; its server looks
for expired leases every 5 s, the product's every 60 s. A service that was killed is started again within 2 s.

A fault comes at a random moment of an undisturbed run's duration. One that comes after the run, or that nobody met
(no request was refused), is counted apart and drawn again. A run that does not end within five minutes is killed.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows.cli import PREFECT_ENVIRONMENT, QUIET_ENVIRONMENT
from store.errors import SpectrogramOneError
from store.tagging.run import list_runs
from tests.support.chaos_site import KINDS, RECORDED, Site, forget_listings, running_site
from tests.support.chaos_stages import BuildStage, Damaged, Stage, TagStage, TrainStage, UndoableStage
from tests.support.fork_server import ForkServer

LONGEST_RUN_S = 300.0
MAX_RESTART_DELAY_S = 2.0
OUTAGES_S = (0.5, 3.0, 30.0)  # of a link, a disk, the object store
STAGES: dict[str, type[Stage]] = {it.name: it for it in (BuildStage, TrainStage, TagStage)}
MAX_DRAWS = 12  # of a fault that comes too late
HEADINGS = (
    "fault", "stage", "faults", "artefacts damaged", "reruns completed", "went on by itself", "hung",
    "tracebacks", "too late", "median s to recover",
)  # fmt: skip


@dataclass
class Outcome:
    """A fault that hit: what it did, what was found, and what the rerun did."""

    kind: str
    stage: str
    what: str
    moment_s: float
    status: int = 0
    is_hung: bool = False
    has_traceback: bool = False
    damage: str = ""
    rerun: str = ""  # why it did not complete
    recovered_s: float = 0.0


@dataclass
class Chaos:
    """A site, the stages on it, and the process that commands are forked from."""

    site: Site
    server: ForkServer
    folder: Path
    stages: dict[str, Stage] = field(default_factory=dict)
    durations: dict[tuple[str, bool, bool], float] = field(default_factory=dict)
    late: dict[tuple[str, str], int] = field(default_factory=dict)
    runs: int = 0

    def begin(self, arguments: Sequence[str], *, recorded: bool = False) -> tuple[int, Path]:
        """Start a command; return the number of its process, and its log."""
        self.runs += 1
        log = self.folder / f"run-{self.runs:04d}.log"
        log.write_text(f"$ spectrogram-one {' '.join(arguments)}\n")
        variables = self.site.variables(recorded=recorded)
        pid = self.server.start(
            "run_command", arguments=[*arguments, *self.site.cluster_flags], variables=variables, log=str(log)
        )
        return pid, log

    def end(self, pid: int, longest_s: float = LONGEST_RUN_S) -> tuple[int, bool]:
        """Wait for a command; return its status, and whether it had to be killed."""
        is_hung = not wait_until(lambda: has_ended(pid), longest_s)
        if is_hung:
            os.kill(pid, 9)
        return self.server.finish(), is_hung

    def run(self, arguments: Sequence[str], *, recorded: bool = False) -> None:
        """Run a command to its end. Raises: Damaged if it fails."""
        pid, log = self.begin(arguments, recorded=recorded)
        status, is_hung = self.end(pid)
        if status:
            state = "did not end" if is_hung else f"ended with status {status}"
            raise Damaged(f"{state}: {log.read_text()[-3000:]}")

    def duration_of(self, stage: Stage, *, recorded: bool, remote: bool) -> float:
        """Measure an undisturbed run, once for each way to run it."""
        key = (stage.name, recorded, remote)
        if key not in self.durations:
            root = self.site.copy(stage.start, f"undisturbed-{len(self.durations)}", remote=remote)
            started = time.monotonic()
            self.run(stage.command(root), recorded=recorded)
            self.durations[key] = time.monotonic() - started
            forget_listings()
            stage.check_complete(root)
            self.site.remove(root)
        return self.durations[key]

    def fault(self, stage: Stage, kind: str, seed: str) -> Outcome | None:
        """Disturb a run, look at what it left, run it again; None if the fault came too late."""
        draw = random.Random(seed)
        remote = kind == "s3" or (kind == "link" and draw.random() < 0.5)
        recorded = kind in RECORDED
        duration = self.duration_of(stage, recorded=recorded, remote=remote)
        root = self.site.copy(stage.start, seed.replace("/", "-"), remote=remote)
        pid, log = self.begin(stage.command(root), recorded=recorded)
        moment = draw.uniform(0.05, 0.95) * duration
        if wait_until(lambda: has_ended(pid), moment):
            self.server.finish()
            # It was measured on a busier machine.
            self.durations[(stage.name, recorded, remote)] = 0.9 * duration
            return None
        outcome, hit_at = self._disturb(kind, stage, draw, pid, moment, remote=remote)
        outcome.status, outcome.is_hung = self.end(pid)
        self.site.heal()
        if not outcome.what or (kind == "s3" and not self.site.outage.refused):
            return None
        outcome.has_traceback = "Traceback" in log.read_text()
        outcome.damage = found_problem(lambda: stage.check_whole(root))
        outcome.rerun = self._rerun(stage, root, recorded=recorded, undo_first=draw.random() < 0.5)
        outcome.recovered_s = time.monotonic() - hit_at
        if not (outcome.damage or outcome.rerun):
            self.site.remove(root)
        return outcome

    def _disturb(
        self, kind: str, stage: Stage, draw: random.Random, pid: int, moment: float, *, remote: bool
    ) -> tuple[Outcome, float]:
        self.site.outage.refused = 0
        outage_s = (
            draw.choice(OUTAGES_S) if kind in ("disk", "link", "s3") else draw.uniform(0, MAX_RESTART_DELAY_S)
        )
        what = self.site.strike(kind, draw, lambda: os.kill(pid, 9), remote=remote)
        hit_at = time.monotonic()
        wait_until(lambda: has_ended(pid), outage_s)
        self.site.heal()
        return Outcome(kind, stage.name, what and f"{what}, for {outage_s:.1f} s", moment), hit_at

    def _rerun(self, stage: Stage, root: str, *, recorded: bool, undo_first: bool) -> str:
        """Run the command again, and undo it where that is possible; return what went wrong."""

        def undo(stage: UndoableStage) -> None:
            self.run(stage.undo_command(root), recorded=recorded)
            forget_listings()
            stage.check_undone(root)

        def rerun() -> None:
            if isinstance(stage, UndoableStage) and undo_first and has_written(root):
                undo(stage)
            self.run(stage.command(root), recorded=recorded)
            forget_listings()
            stage.check_complete(root)
            if isinstance(stage, UndoableStage):
                undo(stage)

        return found_problem(rerun)


def has_written(root: str) -> bool:
    """Return whether a tagging run began to write into files: then there is something to undo."""
    return any(run.has_journal() for run in list_runs(f"{root}/runs"))


def found_problem(look: Callable[[], None]) -> str:
    """Return what a check finds damaged, "" if nothing is."""
    forget_listings()
    try:
        look()
    except (Damaged, SpectrogramOneError, OSError, ValueError, KeyError) as why:
        return f"{type(why).__name__}: {why}"
    return ""


def has_ended(pid: int) -> bool:
    """Return whether a forked command ended: its number stays in use until the fork server is asked."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def wait_until(holds: Callable[[], bool], within_s: float) -> bool:
    """Wait until something holds; return whether it came to hold in time."""
    until = time.monotonic() + within_s
    while not holds():
        if time.monotonic() >= until:
            return False
        time.sleep(0.02)
    return True


def plan(
    faults: int, stages: Sequence[Stage], kinds: Sequence[str], draw: random.Random
) -> list[tuple[Stage, str]]:
    """Draw which stage each fault hits: first each kind on each stage, then at random."""
    cells = [(stage, kind) for stage in stages for kind in kinds]
    draw.shuffle(cells)
    more = draw.choices(stages, [stage.weight for stage in stages], k=max(0, faults - len(cells)))
    return [*cells, *((stage, draw.choice(kinds)) for stage in more)][:faults]


def run_faults(
    folder: Path,
    faults: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
    names: Sequence[str] = tuple(STAGES),
    *,
    minutes: float = 60.0,
) -> tuple[list[Outcome], dict[tuple[str, str], int]]:
    """Let so many faults hit; return what came of each, and how many of each cell came too late."""
    until = time.monotonic() + 60 * minutes
    with running_site(folder, kinds) as site:
        variables = {"PREFECT_API_URL": site.api_url, "PREFECT_HOME": str(folder / "client")}
        variables |= PREFECT_ENVIRONMENT | QUIET_ENVIRONMENT
        chaos = Chaos(site, ForkServer("tests.support.warm_command", **variables), folder)
        try:
            stages = [STAGES[name](folder / "stages") for name in names]
            (folder / "stages").mkdir()
            for stage in stages:
                stage.prepare(chaos.run)
            outcomes = []
            for number, (stage, kind) in enumerate(plan(faults, stages, kinds, random.Random(seed))):
                if time.monotonic() > until:
                    break
                outcome = draw_until_hit(chaos, stage, kind, f"{seed}/{number}")
                if outcome is not None:
                    outcomes.append(outcome)
                    print(describe(number, outcome), file=sys.stderr, flush=True)
            return outcomes, chaos.late
        finally:
            chaos.server.close()


def draw_until_hit(chaos: Chaos, stage: Stage, kind: str, seed: str) -> Outcome | None:
    """Draw the moment of a fault again as long as it comes too late; None if it always does."""
    for number in range(MAX_DRAWS):
        outcome = chaos.fault(stage, kind, f"{seed}/{number}")
        if outcome is not None:
            return outcome
        key = (kind, stage.name)
        chaos.late[key] = chaos.late.get(key, 0) + 1
    return None


def describe(number: int, outcome: Outcome) -> str:
    """Return a line about a fault."""
    ended = "hung" if outcome.is_hung else f"status {outcome.status}"
    problem = outcome.damage or outcome.rerun
    return (
        f"{number:3} {outcome.stage:5} at {outcome.moment_s:5.1f} s: {outcome.what}: {ended}"
        f"{', traceback' if outcome.has_traceback else ''}; recovered in {outcome.recovered_s:.1f} s"
        f"{'; DAMAGED ' if outcome.damage else '; RERUN ' if outcome.rerun else ''}{problem}"
    )


def table(outcomes: Sequence[Outcome], late: dict[tuple[str, str], int]) -> str:
    """Return the chaos table as Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    for kind in KINDS:
        for stage in STAGES:
            cell = [it for it in outcomes if (it.kind, it.stage) == (kind, stage)]
            if cell or late.get((kind, stage)):
                lines.append(row(kind, stage, cell, late.get((kind, stage), 0)))
    return "\n".join([*lines, row("all", "", outcomes, sum(late.values()))])


def row(kind: str, stage: str, cell: Sequence[Outcome], late: int) -> str:
    """Return a row of the table."""
    counts = (
        len(cell),
        sum(bool(it.damage) for it in cell),
        sum(not it.rerun for it in cell),
        sum(it.status == 0 for it in cell),
        sum(it.is_hung for it in cell),
        sum(it.has_traceback for it in cell),
        late,
    )
    recovered = f"{statistics.median(it.recovered_s for it in cell):.1f}" if cell else "-"
    return f"| {kind} | {stage} | {' | '.join(map(str, counts))} | {recovered} |"


def main() -> None:
    """Let the faults hit, and print the table; end with status 1 if anything was damaged or did not complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=STAGES)
    parser.add_argument("--minutes", type=float, default=60.0, help="no fault begins after that")
    wanted = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *args: sys.exit(1))  # after all parts are ended
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o711)  # Postgres runs as a user of its own
    started = time.monotonic()
    outcomes, late = run_faults(
        folder, wanted.faults, wanted.seed, wanted.kinds, wanted.stages, minutes=wanted.minutes
    )
    print(table(outcomes, late))
    print(f"\n{len(outcomes)} faults in {(time.monotonic() - started) / 60:.0f} min")
    if bad := [it for it in outcomes if it.damage or it.rerun]:
        print(f"{len(bad)} bad; logs: {folder}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
