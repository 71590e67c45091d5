"""The list of an audit: every track, the worst label first, as rows and as CSV."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from store.fs.csv_rows import quote_formula, to_csv
from training.label_audit.label_quality import LabelQuality

CONFLICT_COLUMNS = (
    "rank", "track_id", "artist", "album", "title", "given", "suggested", "given_probability",
    "suggested_probability", "quality", "conflict", "confident",
)  # fmt: skip
TEXT_COLUMNS = ("track_id", "artist", "album", "title", "given", "suggested")


@dataclass(frozen=True)
class AuditedTrack:
    """One track, its label, and what a model that does not know the track predicts."""

    rank: int
    track_id: str
    artist: str | None
    album: str | None
    title: str | None
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float
    quality: float
    conflict: bool
    confident: bool


def list_audited_tracks(quality: LabelQuality, tracks: pa.Table, genres: Sequence[str]) -> list[AuditedTrack]:
    """Return all tracks, the worst label first. `tracks` has the columns of a catalogue, in the quality's order."""
    rows = tracks.select(["track_id", "artist", "album", "title"]).to_pylist()
    is_conflict_T = quality.conflicts()
    return [
        AuditedTrack(
            rank=rank,
            **rows[row],
            given=genres[quality.given_T[row]],
            suggested=genres[quality.suggested_T[row]],
            given_probability=float(quality.given_probability_T[row]),
            suggested_probability=float(quality.suggested_probability_T[row]),
            quality=float(quality.quality_T[row]),
            conflict=bool(is_conflict_T[row]),
            confident=bool(quality.is_confident_T[row]),
        )
        for rank, row in enumerate(quality.ranked().tolist(), 1)
    ]


def count_pairs(audited: Sequence[AuditedTrack]) -> list[tuple[str, str, int]]:
    """Return given genre, suggested genre and number of tracks of the confident conflicts, most frequent first."""
    counts = Counter((each.given, each.suggested) for each in audited if each.confident)
    return [(*pair, tracks) for pair, tracks in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def audit_csv(audited: Sequence[AuditedTrack]) -> bytes:
    """Return audit.csv: one row a track; texts that a spreadsheet program would take for formulas are marked."""
    return to_csv(CONFLICT_COLUMNS, map(_csv_row, audited))


def _csv_row(track: AuditedTrack) -> dict[str, object]:
    row = asdict(track)
    for name in TEXT_COLUMNS:
        row[name] = quote_formula(row[name]) if row[name] is not None else None
    return row | {name: "yes" if row[name] else "no" for name in ("conflict", "confident")}
