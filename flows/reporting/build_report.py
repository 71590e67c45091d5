"""The report of a build: tracks, rejects, duplicates, workers, slowest files, and next steps."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from flows.reporting import metrics
from flows.reporting.artifacts import show_table
from flows.reporting.structured_log import log_event
from preprocessing.build.shard_task import BuiltBatch, Track
from preprocessing.catalogue.source_counts import SourceCounts
from preprocessing.errors import FATAL_REASONS, RETRYABLE_REASONS
from store.fs.disk_errors import printable
from store.fs.files import join
from store.fs.parquet import write_table
from store.reader import Snapshot

MAX_SHOWN_REJECTS = 1_000  # in the UI; the report names them all
MAX_SHOWN_DUPLICATES = 1_000
MAX_PRINTED_REJECTS = 20  # in the terminal
MAX_SLOWEST_FILES = 20
REPORT_COLUMNS = ("status", "reason", "detail", "decoded_s", "stated_s", "build_s")


class BuildSummary(BaseModel, frozen=True):
    """The content of a store after a build, and the work of this build."""

    store: str
    snapshot: int
    tracks: int = Field(description="Tracks that have a spectrogram")
    hours: float = Field(description="Hours of audio in them")
    truncated: int = Field(description="Those of them that are shorter than their files state")
    duplicates: int = Field(description="Tracks that contain the same recording as another track")
    left_out: int = Field(
        description="Tracks taken out of their split: another split has the recording or artist"
    )
    repaired: int = Field(0, description="Tracks that were built again since their spectrograms were damaged")
    processed: int = Field(description="Tracks that this build processed")
    seconds: float
    rejected: int
    reasons: dict[str, int] = Field(description="Rejected tracks by reason")
    rejects: list[dict[str, Any]] = Field(
        description="track_id, url, reason and detail of the first rejected tracks"
    )
    source_files: list[str] = Field(
        default=[], description="The account of the files of the source, and those that cannot be used"
    )
    report: str = Field(
        description="Parquet file with each track that was rejected, truncated or a duplicate"
    )

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        lines = [
            f"{self.store}: {self.tracks:,} tracks, {self.hours:.2f} h of audio (snapshot {self.snapshot}); "
            f"{self.processed:,} built now in {self.seconds:.0f} s; {self.rejected:,} rejected"
        ]
        if self.repaired:
            lines.append(f"{self.repaired:,} tracks had damaged or lost spectrograms and were built again")
        lines += [
            f"  rejected {printable(it['url'])}: {it['reason']} ({printable(it['detail'])})"
            for it in self.rejects
        ]
        if self.rejected > len(self.rejects):
            lines.append(f"  and {self.rejected - len(self.rejects):,} more")
        if self.truncated:
            lines.append(f"{self.truncated:,} tracks are shorter than their files state; their audio is kept")
        if self.duplicates:
            lines.append(
                f"{self.duplicates:,} tracks contain the same recording as another: none crosses a split"
            )
        if self.left_out:
            lines.append(
                f"{self.left_out:,} tracks are in no split: another split has the recording or artist"
            )
        return [*lines, *self.source_files, f"report: {self.report}", *self.next_steps()]

    def next_steps(self) -> list[str]:
        """Return what to do next, a line per step."""
        steps = []
        if any(self.reasons.get(it) for it in RETRYABLE_REASONS):
            steps.append("next: restore missing or unreadable files and run the same command again")
        if any(self.reasons.get(it) for it in FATAL_REASONS):
            steps.append(
                "next: --retry-rejects with greater --limits tries files again that needed too much time or memory"
            )
        return [*steps, f"next: spectrogram-one train --store {self.store}"] if self.tracks else steps


@dataclass
class WorkerStatistics:
    """The work of one worker."""

    tracks: int = 0
    audio_s: float = 0.0
    busy_s: float = 0.0


@dataclass
class BuildStatistics:
    """The work of a build so far, in a size that does not grow with the catalogue."""

    workers: defaultdict[str, WorkerStatistics] = field(default_factory=lambda: defaultdict(WorkerStatistics))
    slowest: list[tuple[float, str, str, float]] = field(default_factory=list)  # s, track_id, url, audio s
    tried: int = 0
    rejected: int = 0

    @property
    def hours(self) -> float:
        """Hours of audio turned into spectrograms."""
        return sum(share.audio_s for share in self.workers.values()) / 3600

    def add(self, tracks: Sequence[Track], built: BuiltBatch) -> None:
        """Add a finished batch."""
        urls = {track.track_id: track.url for track in tracks}
        share = self.workers[built.worker]
        share.tracks += len(tracks)
        share.busy_s += built.seconds
        self.tried += len(tracks)
        rejected = built.index.filter(pc.equal(built.index["status"], "rejected"))
        self.rejected += len(rejected)
        shard = None if built.shard is None else built.shard.name
        for row in rejected.select(["track_id", "reason"]).to_pylist():
            metrics.count("rejects", reason=row["reason"])
            log_event("track rejected", track=row["track_id"], reason=row["reason"], batch=shard)
        log_event("batch built", batch=shard, tracks=len(tracks), seconds=built.seconds, worker=built.worker)
        for row in built.index.select(["track_id", "build_s", "decoded_s"]).to_pylist():
            share.audio_s += row["decoded_s"] or 0.0
            entry = (row["build_s"] or 0.0, row["track_id"], urls[row["track_id"]], row["decoded_s"] or 0.0)
            push = heapq.heappush if len(self.slowest) < MAX_SLOWEST_FILES else heapq.heappushpop
            push(self.slowest, entry)


def list_rejects(snapshot: Snapshot) -> list[dict[str, Any]]:
    """List the tracks that have no spectrogram, and why."""
    notable, _ = read_report_tracks(snapshot)
    rows: list[dict[str, Any]] = _rejects_among(notable).to_pylist()
    return rows


def read_report_tracks(snapshot: Snapshot) -> tuple[pa.Table, pa.Table]:
    """Return the rows of tracks that are rejected, truncated or duplicates; and status and seconds of all."""
    catalogue = snapshot.catalogue_columns(("track_id", "url", "split", "duplicate_group"))
    index = snapshot.read_index(catalogue["track_id"], REPORT_COLUMNS)
    is_ok = pc.fill_null(pc.equal(index["status"], "ok"), False)
    notable = pc.or_(pc.invert(is_ok), pc.is_valid(catalogue["duplicate_group"]))
    table = catalogue.filter(notable)
    for name, column in zip(REPORT_COLUMNS, index.filter(notable).columns, strict=True):
        table = table.append_column(name, column)
    return table, index.select(["status", "decoded_s"])


def _rejects_among(notable: pa.Table) -> pa.Table:
    rejected = notable.filter(pc.equal(notable["status"], "rejected"))
    return rejected.select(["track_id", "url", "reason", "detail"])


def report_build(
    snapshot: Snapshot,
    statistics: BuildStatistics,
    counts: SourceCounts,
    *,
    store: str,
    exclude: Sequence[str],
    left_out: int,
    repaired: int,
    seconds: float,
) -> BuildSummary:
    """Write the report of a build into the store, show it on the page of the run, and return its summary."""
    notable, results = read_report_tracks(snapshot)
    url = join(store, "reports", f"{snapshot.number:08d}.parquet")
    write_table(url, notable)
    found = _count_tracks(notable, results)
    used = {"with a spectrogram": found["tracks"], "rejected": found["rejected"] - counts.missing}
    summary = BuildSummary(
        store=store,
        snapshot=snapshot.number,
        left_out=left_out,
        repaired=repaired,
        processed=statistics.tried,
        seconds=seconds,
        source_files=counts.lines(used, exclude),
        report=url,
        **found,
    )
    _show_result(summary)
    _show_rejects(summary, _rejects_among(notable))
    _show_duplicates(summary, notable)
    _show_work(statistics, seconds)
    return summary


def _count_tracks(notable: pa.Table, results: pa.Table) -> dict[str, Any]:
    """Return the fields of BuildSummary that the tables of `read_report_tracks` decide."""
    rejects = _rejects_among(notable)
    has_spectrogram = pc.is_in(results["status"], pa.array(["ok", "ok-truncated"]))
    return {
        "tracks": pc.sum(has_spectrogram).as_py() or 0,
        "hours": (pc.sum(results["decoded_s"]).as_py() or 0.0) / 3600,
        "truncated": Counter(notable["status"].to_pylist())["ok-truncated"],
        "duplicates": notable["duplicate_group"].length() - notable["duplicate_group"].null_count,
        "rejected": len(rejects),
        "reasons": dict(Counter(rejects["reason"].to_pylist()).most_common()),
        "rejects": rejects.slice(0, MAX_PRINTED_REJECTS).to_pylist(),
    }


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
    texts = [
        f"{row['tracks']} tracks have a spectrogram",
        *summary.source_files,
        *summary.next_steps(),
        f"report: {summary.report}",
    ]
    show_table("build-result", [row], "; ".join(texts))


def _show_rejects(summary: BuildSummary, rejects: pa.Table) -> None:
    """Show the rejected tracks. The UI truncates long rows: the widest column comes last."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in summary.reasons.items())
    rows = rejects.select(["track_id", "reason", "detail", "url"]).slice(0, MAX_SHOWN_REJECTS).to_pylist()
    show_table("rejected-tracks", rows, counts or "No track was rejected")


def _show_duplicates(summary: BuildSummary, notable: pa.Table) -> None:
    duplicates = notable.filter(pc.is_valid(notable["duplicate_group"])).sort_by("duplicate_group")
    rows = (
        duplicates.select(["duplicate_group", "track_id", "split", "url"])
        .slice(0, MAX_SHOWN_DUPLICATES)
        .to_pylist()
    )
    text = f"{summary.duplicates:,} tracks are duplicates of others" if rows else "No track is a duplicate"
    show_table("duplicates", rows, text)


def _show_work(statistics: BuildStatistics, seconds: float) -> None:
    """Show the work of each worker, and the files that took longest."""
    workers = [
        {
            "worker": name,
            "tracks": f"{share.tracks:,}",
            "hours of audio": f"{share.audio_s / 3600:,.2f}",
            "x real time": f"{share.audio_s / max(share.busy_s, 1e-9):,.0f}",
            "busy": f"{share.busy_s / max(seconds, 1e-9):.0%}",
        }
        for name, share in sorted(statistics.workers.items())
    ]
    show_table("workers", workers, f"{statistics.tried:,} tracks tried in {seconds:.0f} s")
    slowest = [
        {"seconds": f"{build_s:.1f}", "minutes of audio": f"{audio_s / 60:.1f}", "track_id": it, "url": url}
        for build_s, it, url, audio_s in sorted(statistics.slowest, reverse=True)
    ]
    show_table("slowest-files", slowest, "The files that took longest")
