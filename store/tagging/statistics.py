"""What became of many files, in few numbers: small however many they are, so that tasks can send it back."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import Any

import pyarrow as pa

BINS = 20  # of equal width, of confidences from 0 to 1
MOST_CHANGES = 50
MOST_OF_A_REASON = 8
LONGEST_TEXT = 300  # characters of a sample's detail or name: an error may quote half a file
MOST_NAMES = 12
CHANGED = (
    "change",
    "written",
    "copied",
    "restored",
    "restored-tags",
    "would-restore",
    "would-restore-tags",
)  # statuses of files that get what their row says
COLUMNS = ("track_id", "status", "reason", "detail", "old_genres", "genres", "confidence")
Counts = Mapping[str, int]
Bins = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One file, to look at."""

    track_id: str
    status: str
    reason: str
    detail: str
    had: tuple[str, ...]
    gets: tuple[str, ...]
    confidence: float | None


@dataclass(frozen=True)
class Tally:
    """How many files ended how, with some of them to look at; `+` adds up what is told of different files."""

    statuses: Counts = field(default_factory=dict)
    reasons: Mapping[str, Counts] = field(default_factory=dict)  # by status, of rows that give one
    genres: Counts = field(default_factory=dict)  # files that get a genre they did not have
    sure: Bins = (0,) * BINS  # confidences of files that get genres
    unsure: Bins = (0,) * BINS  # confidences of files that were heard, but stay as they are
    changes: tuple[Sample, ...] = ()
    left_alone: tuple[Sample, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            statuses=_sum(self.statuses, other.statuses),
            reasons={
                status: _sum(self.reasons.get(status, {}), other.reasons.get(status, {}))
                for status in sorted({*self.reasons, *other.reasons})
            },
            genres=_sum(self.genres, other.genres),
            sure=tuple(map(sum, zip(self.sure, other.sure, strict=True))),
            unsure=tuple(map(sum, zip(self.unsure, other.unsure, strict=True))),
            changes=_some(self.changes + other.changes),
            left_alone=_some_of_each_reason(self.left_alone + other.left_alone),
        )

    @property
    def files(self) -> int:
        """Count the files."""
        return sum(self.statuses.values())

    @property
    def changed(self) -> int:
        """Count the files that get genres, or would."""
        return sum(self.statuses.get(status, 0) for status in CHANGED)

    def note(self, genres: int = 3) -> str:
        """Say it in few words, for a line of progress: how many ended how, and the commonest genres."""
        counts = ", ".join(f"{count:,} {status}" for status, count in most_first(self.statuses))
        told = ", ".join(f"{genre} {count:,}" for genre, count in most_first(self.genres)[:genres])
        return "; ".join(filter(None, [counts, told]))


def tally(table: pa.Table) -> Tally:
    """Count rows of PREDICTIONS_SCHEMA.

    The samples are drawn by a digest of the file's name: the same ones whatever the order and
    the batches, and not all from the first folder.
    """
    rows = table.select(COLUMNS).to_pylist()
    samples = [_sample(row) for row in rows]
    changes = [sample for sample in samples if sample.status in CHANGED]
    others = [sample for sample in samples if sample.status not in CHANGED]
    reasons: dict[str, Counter[str]] = {}
    for row in rows:
        if row["reason"]:
            reasons.setdefault(row["status"], Counter())[row["reason"]] += 1
    new = (
        set(row["genres"] or ()) - set(row["old_genres"] or ()) for row in rows if row["status"] in CHANGED
    )
    return Tally(
        statuses=_sum(Counter(row["status"] for row in rows), {}),
        reasons={status: _sum(reasons[status], {}) for status in sorted(reasons)},
        genres=_sum(Counter(genre for genres in new for genre in genres), {}),
        sure=_histogram(changes),
        unsure=_histogram(others),
        changes=_some(changes),
        left_alone=_some_of_each_reason(others),
    )


def most_first(counts: Counts) -> list[tuple[str, int]]:
    """Sort counts, the largest first, equal ones by name."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _sum(one: Counts, other: Counts) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def _histogram(samples: Iterable[Sample]) -> Bins:
    places = Counter(
        min(max(int(sample.confidence * BINS), 0), BINS - 1)
        for sample in samples
        if sample.confidence is not None
    )
    return tuple(places[place] for place in range(BINS))


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        track_id=_cut(row["track_id"]),
        status=row["status"],
        reason=row["reason"] or "",
        detail=_cut(row["detail"] or ""),
        had=tuple(map(_cut, (row["old_genres"] or ())[:MOST_NAMES])),
        gets=tuple(map(_cut, (row["genres"] or ())[:MOST_NAMES])),
        confidence=row["confidence"],
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}\N{HORIZONTAL ELLIPSIS}"


def _some(samples: Iterable[Sample], most: int = MOST_CHANGES) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=_lot)[:most])


def _some_of_each_reason(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    ordered = sorted(samples, key=lambda sample: (*_end(sample), _lot(sample)))
    groups = (list(group)[:MOST_OF_A_REASON] for _, group in groupby(ordered, key=_end))
    return tuple(sample for group in groups for sample in group)


def _end(sample: Sample) -> tuple[str, str]:
    return sample.status, sample.reason


def _lot(sample: Sample) -> tuple[bytes, str]:
    digest = blake2b(sample.track_id.encode(errors="surrogatepass"), digest_size=8).digest()
    return digest, repr(sample)
