"""The results of many files in few numbers: of bounded size, so that tasks can return them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import Any

import pyarrow as pa

CONFIDENCE_BINS = 20  # of equal width, of confidences from 0 to 1
MAX_CHANGED_SAMPLES = 50
MAX_SAMPLES_PER_REASON = 8
MAX_TEXT_CHARS = 300  # of a sample's detail or name: an error may quote half a file
MAX_GENRE_NAMES = 12
CHANGED_STATUSES = (
    "change",
    "written",
    "copied",
    "restored",
    "restored-tags",
    "would-restore",
    "would-restore-tags",
)  # of files that are changed, or would be
COUNTED_COLUMNS = ("track_id", "status", "reason", "detail", "old_genres", "genres", "confidence")
DISAGREES = "album-disagrees"
Counts = Mapping[str, int]
Bins = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One file as an example."""

    track_id: str
    status: str
    reason: str
    detail: str
    old_genres: tuple[str, ...]
    new_genres: tuple[str, ...]
    confidence: float | None


@dataclass(frozen=True)
class TaggingStatistics:
    """The number of files by status, reason and genre, with some examples; `+` adds those of different files."""

    statuses: Counts = field(default_factory=dict)
    reasons: Mapping[str, Counts] = field(default_factory=dict)  # by status, of rows that have one
    genres: Counts = field(default_factory=dict)  # files that get a genre they did not have
    changed_confidences: Bins = (0,) * CONFIDENCE_BINS  # of files that get genres
    unchanged_confidences: Bins = (0,) * CONFIDENCE_BINS  # of predicted files that stay as they are
    changes: tuple[Sample, ...] = ()
    unchanged_samples: tuple[Sample, ...] = ()
    disagreements: tuple[Sample, ...] = ()  # tracks whose album gets another genre than they would alone

    def __add__(self, other: "TaggingStatistics") -> "TaggingStatistics":
        return TaggingStatistics(
            statuses=_sum(self.statuses, other.statuses),
            reasons={
                status: _sum(self.reasons.get(status, {}), other.reasons.get(status, {}))
                for status in sorted({*self.reasons, *other.reasons})
            },
            genres=_sum(self.genres, other.genres),
            changed_confidences=tuple(
                map(sum, zip(self.changed_confidences, other.changed_confidences, strict=True))
            ),
            unchanged_confidences=tuple(
                map(sum, zip(self.unchanged_confidences, other.unchanged_confidences, strict=True))
            ),
            changes=_first_samples(self.changes + other.changes),
            unchanged_samples=_samples_per_reason(self.unchanged_samples + other.unchanged_samples),
            disagreements=_first_samples(self.disagreements + other.disagreements),
        )

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(self.statuses.values())

    @property
    def changed(self) -> int:
        """The number of files that get genres, or would."""
        return sum(self.statuses.get(status, 0) for status in CHANGED_STATUSES)

    def summary_line(self, genres: int = 3) -> str:
        """Return one line for a progress bar: the number of files by status, and the most frequent genres."""
        counts = ", ".join(f"{count:,} {status}" for status, count in by_descending_count(self.statuses))
        frequent = ", ".join(
            f"{genre} {count:,}" for genre, count in by_descending_count(self.genres)[:genres]
        )
        return "; ".join(filter(None, [counts, frequent]))


def count_rows(table: pa.Table) -> TaggingStatistics:
    """Count rows of PREDICTIONS_SCHEMA.

    The samples are drawn by a digest of the file's name: the same ones in any order and in any
    batches, and not all from the first folder.
    """
    rows = table.select(COUNTED_COLUMNS).to_pylist()
    samples = [_sample(row) for row in rows]
    changes = [sample for sample in samples if sample.status in CHANGED_STATUSES]
    others = [sample for sample in samples if sample.status not in CHANGED_STATUSES]
    reasons: dict[str, Counter[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["status"], Counter())[row["reason"]] += 1
    new = (
        set(row["genres"] or ()) - set(row["old_genres"] or ())
        for row in rows
        if row["status"] in CHANGED_STATUSES
    )
    return TaggingStatistics(
        statuses=_sum(Counter(row["status"] for row in rows), {}),
        reasons={status: _sum(reasons[status], {}) for status in sorted(reasons)},
        genres=_sum(Counter(genre for genres in new for genre in genres), {}),
        changed_confidences=_histogram(changes),
        unchanged_confidences=_histogram(others),
        changes=_first_samples(changes),
        unchanged_samples=_samples_per_reason(others),
        disagreements=_first_samples(sample for sample in changes if sample.reason == DISAGREES),
    )


def by_descending_count(counts: Counts) -> list[tuple[str, int]]:
    """Return counts sorted, the largest first, equal ones by name."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _sum(one: Counts, other: Counts) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def _histogram(samples: Iterable[Sample]) -> Bins:
    bins = Counter(
        min(max(int(sample.confidence * CONFIDENCE_BINS), 0), CONFIDENCE_BINS - 1)
        for sample in samples
        if sample.confidence is not None
    )
    return tuple(bins[index] for index in range(CONFIDENCE_BINS))


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        track_id=_shorten(row["track_id"]),
        status=row["status"],
        reason=row["reason"] or "",
        detail=_shorten(row["detail"] or ""),
        old_genres=tuple(map(_shorten, (row["old_genres"] or ())[:MAX_GENRE_NAMES])),
        new_genres=tuple(map(_shorten, (row["genres"] or ())[:MAX_GENRE_NAMES])),
        confidence=row["confidence"],
    )


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}\N{HORIZONTAL ELLIPSIS}"


def _first_samples(samples: Iterable[Sample], most: int = MAX_CHANGED_SAMPLES) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=_draw_key)[:most])


def _samples_per_reason(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    ordered = sorted(samples, key=lambda sample: (*_status_and_reason(sample), _draw_key(sample)))
    groups = (list(group)[:MAX_SAMPLES_PER_REASON] for _, group in groupby(ordered, key=_status_and_reason))
    return tuple(sample for group in groups for sample in group)


def _status_and_reason(sample: Sample) -> tuple[str, str]:
    return sample.status, sample.reason


def _draw_key(sample: Sample) -> tuple[bytes, str]:
    digest = blake2b(sample.track_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return digest, repr(sample)
