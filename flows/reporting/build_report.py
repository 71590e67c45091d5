"""What a build tells: of its tracks, rejects, duplicates, workers and slowest files, and what to do next."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from flows.reporting.artifacts import show_table
from preprocessing.build.shard_task import BuiltBatch, Track
from preprocessing.errors import FATAL_REASONS, RETRYABLE_REASONS
from store.fs.files import join
from store.fs.parquet import write_table
from store.reader import Snapshot

MAX_SHOWN_REJECTS = 1_000  # in the UI; the report names them all
MAX_SHOWN_DUPLICATES = 1_000
MAX_PRINTED_REJECTS = 20  # in the terminal
MAX_SLOWEST_FILES = 20
REPORT_COLUMNS = ("status", "reason", "detail", "decoded_s", "stated_s", "build_s")


class BuildSummary(BaseModel, frozen=True):
    """What a store holds after a build, and what this build did."""

    store: str
    snapshot: int
    tracks: int = Field(description="Tracks that have a spectrogram")
    hours: float = Field(description="Hours of audio they play")
    truncated: int = Field(description="Those of them whose end is missing")
    duplicates: int = Field(description="Tracks that hold a recording which another track holds too")
    left_out: int = Field(
        description="Tracks taken out of their split: another one has the recording or artist"
    )
    processed: int = Field(description="Tracks that this build tried")
    seconds: float
    rejected: int
    reasons: dict[str, int] = Field(description="How many tracks were rejected for what")
    rejects: list[dict[str, Any]] = Field(
        description="track_id, url, reason and detail of the first rejected tracks"
    )
    report: str = Field(description="Parquet file that names each track that is not plainly ok")

    def lines(self) -> list[str]:
        """Tell it in lines for a terminal."""
        told = [
            f"{self.store}: {self.tracks:,} tracks, {self.hours:.2f} h of audio (snapshot {self.snapshot}); "
            f"{self.processed:,} built now in {self.seconds:.0f} s; {self.rejected:,} rejected"
        ]
        told += [f"  rejected {it['url']}: {it['reason']} ({it['detail']})" for it in self.rejects]
        if self.rejected > len(self.rejects):
            told.append(f"  and {self.rejected - len(self.rejects):,} more")
        if self.truncated:
            told.append(
                f"{self.truncated:,} tracks are shorter than their files state; what is there is kept"
            )
        if self.duplicates:
            told.append(
                f"{self.duplicates:,} tracks hold a recording that another holds too: none crosses a split"
            )
        if self.left_out:
            told.append(
                f"{self.left_out:,} tracks are in no split: a stronger split has the recording or artist"
            )
        return [*told, f"report: {self.report}", *self.next_steps()]

    def next_steps(self) -> list[str]:
        """Say what may be done about it."""
        steps = []
        if any(self.reasons.get(it) for it in RETRYABLE_REASONS):
            steps.append("next: put missing or unreadable files right and run the same command again")
        if any(self.reasons.get(it) for it in FATAL_REASONS):
            steps.append("next: --retry-rejects with greater --limits gives heavy files another chance")
        return [*steps, f"next: spectrogram-one train --store {self.store}"] if self.tracks else steps


@dataclass
class WorkerStatistics:
    """What one worker did."""

    tracks: int = 0
    audio_s: float = 0.0
    busy_s: float = 0.0


@dataclass
class BuildStatistics:
    """What a build did so far, in a size that does not grow with it."""

    workers: defaultdict[str, WorkerStatistics] = field(default_factory=lambda: defaultdict(WorkerStatistics))
    slowest: list[tuple[float, str, str, float]] = field(default_factory=list)  # s, track_id, url, audio s
    tried: int = 0
    rejected: int = 0

    @property
    def hours(self) -> float:
        """Hours of audio that have become spectrograms."""
        return sum(share.audio_s for share in self.workers.values()) / 3600

    def add(self, tracks: Sequence[Track], built: BuiltBatch) -> None:
        """Count a batch in."""
        urls = {track.track_id: track.url for track in tracks}
        share = self.workers[built.worker]
        share.tracks += len(tracks)
        share.busy_s += built.seconds
        self.tried += len(tracks)
        self.rejected += count_rejects(built.index)
        for row in built.index.select(["track_id", "build_s", "decoded_s"]).to_pylist():
            share.audio_s += row["decoded_s"] or 0.0
            entry = (row["build_s"] or 0.0, row["track_id"], urls[row["track_id"]], row["decoded_s"] or 0.0)
            push = heapq.heappush if len(self.slowest) < MAX_SLOWEST_FILES else heapq.heappushpop
            push(self.slowest, entry)


def count_rejects(index: pa.Table) -> int:
    """Count the rejected tracks among rows of an index."""
    return pc.sum(pc.equal(index["status"], "rejected")).as_py() or 0


def list_rejects(snapshot: Snapshot) -> list[dict[str, Any]]:
    """List the tracks that have no spectrogram, and why."""
    notable, _ = read_report_tracks(snapshot)
    rows: list[dict[str, Any]] = _rejects_among(notable).to_pylist()
    return rows


def read_report_tracks(snapshot: Snapshot) -> tuple[pa.Table, pa.Table]:
    """Give the rows of the tracks that are not plainly ok, and of all tracks their status and seconds."""
    catalogue = snapshot.read_catalogue(("track_id", "url", "split", "duplicate_group"))
    answers = snapshot.read_index(catalogue["track_id"], REPORT_COLUMNS)
    plain = pc.fill_null(pc.equal(answers["status"], "ok"), False)
    notable = pc.or_(pc.invert(plain), pc.is_valid(catalogue["duplicate_group"]))
    table = catalogue.filter(notable)
    for name, column in zip(REPORT_COLUMNS, answers.filter(notable).columns, strict=True):
        table = table.append_column(name, column)
    return table, answers.select(["status", "decoded_s"])


def _rejects_among(notable: pa.Table) -> pa.Table:
    rejected = notable.filter(pc.equal(notable["status"], "rejected"))
    return rejected.select(["track_id", "url", "reason", "detail"])


def report_build(
    snapshot: Snapshot, tally: BuildStatistics, *, store: str, left_out: int, seconds: float
) -> BuildSummary:
    """Say what the store holds now: in a Parquet file in it, on the run's page, and in return."""
    notable, answers = read_report_tracks(snapshot)
    url = join(store, "reports", f"{snapshot.number:08d}.parquet")
    write_table(url, notable)
    rejects = _rejects_among(notable)
    statuses = Counter(notable["status"].to_pylist())
    summary = BuildSummary(
        store=store,
        snapshot=snapshot.number,
        tracks=pc.sum(pc.is_in(answers["status"], pa.array(["ok", "ok-truncated"]))).as_py() or 0,
        hours=(pc.sum(answers["decoded_s"]).as_py() or 0.0) / 3600,
        truncated=statuses["ok-truncated"],
        duplicates=notable["duplicate_group"].length() - notable["duplicate_group"].null_count,
        left_out=left_out,
        processed=tally.tried,
        seconds=seconds,
        rejected=len(rejects),
        reasons=dict(Counter(rejects["reason"].to_pylist()).most_common()),
        rejects=rejects.slice(0, MAX_PRINTED_REJECTS).to_pylist(),
        report=url,
    )
    _show_result(summary)
    _show_rejects(summary, rejects)
    _show_copies(summary, notable)
    _show_work(tally, seconds)
    return summary


def _show_result(summary: BuildSummary) -> None:
    row = {
        "tracks": f"{summary.tracks:,}",
        "hours of audio": f"{summary.hours:,.2f}",
        "rejected": f"{summary.rejected:,}",
        "truncated": f"{summary.truncated:,}",
        "duplicates": f"{summary.duplicates:,}",
        "tried now": f"{summary.processed:,}",
        "seconds": f"{summary.seconds:.0f}",
        "snapshot": summary.snapshot,
        "store": summary.store,
    }
    told = [f"{row['tracks']} tracks have a spectrogram", *summary.next_steps(), f"report: {summary.report}"]
    show_table("build-result", [row], "; ".join(told))


def _show_rejects(summary: BuildSummary, rejects: pa.Table) -> None:
    """The UI cuts long texts off at their end: the widest column comes last."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in summary.reasons.items())
    rows = rejects.select(["track_id", "reason", "detail", "url"]).slice(0, MAX_SHOWN_REJECTS).to_pylist()
    show_table("rejected-tracks", rows, counts or "No track was rejected")


def _show_copies(summary: BuildSummary, notable: pa.Table) -> None:
    duplicates = notable.filter(pc.is_valid(notable["duplicate_group"])).sort_by("duplicate_group")
    rows = (
        duplicates.select(["duplicate_group", "track_id", "split", "url"])
        .slice(0, MAX_SHOWN_DUPLICATES)
        .to_pylist()
    )
    told = (
        f"{summary.duplicates:,} tracks are duplicates of others" if rows else "No recording is there twice"
    )
    show_table("duplicates", rows, told)


def _show_work(tally: BuildStatistics, seconds: float) -> None:
    """Show what each worker did, and the files that took longest."""
    workers = [
        {
            "worker": name,
            "tracks": f"{share.tracks:,}",
            "hours of audio": f"{share.audio_s / 3600:,.2f}",
            "x real time": f"{share.audio_s / max(share.busy_s, 1e-9):,.0f}",
            "busy": f"{share.busy_s / max(seconds, 1e-9):.0%}",
        }
        for name, share in sorted(tally.workers.items())
    ]
    show_table("workers", workers, f"{tally.tried:,} tracks tried in {seconds:.0f} s")
    slowest = [
        {"seconds": f"{build_s:.1f}", "minutes of audio": f"{audio_s / 60:.1f}", "track_id": it, "url": url}
        for build_s, it, url, audio_s in sorted(tally.slowest, reverse=True)
    ]
    show_table("slowest-files", slowest, "The files that took longest")
