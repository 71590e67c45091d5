"""How tracks, artists and hours are spread over genres and splits, and what is wrong with that.

Axes: T tracks.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MIN_TEST_TRACKS = 20  # below, a track is more than 5 points of a genre's recall
MIN_ARTISTS = 5
MAX_ARTIST_SHARE = 0.3
MAX_RATIO = 3.0  # of the largest genre to the smallest


@dataclass
class Share:
    """What a genre has in a split."""

    tracks: int = 0
    hours: float = 0.0
    artists: Counter[str] = field(default_factory=Counter)


def count_shares(tracks: pa.Table) -> dict[tuple[str, str], Share]:
    """Return of each genre and split its tracks, hours and artists; tracks without a split are in "none"."""
    shares: dict[tuple[str, str], Share] = defaultdict(Share)
    for row in tracks.select(["track_id", "genre_top", "split", "artist", "decoded_s"]).to_pylist():
        share = shares[row["genre_top"], row["split"] or "none"]
        share.tracks += 1
        share.hours += (row["decoded_s"] or 0.0) / 3600
        share.artists[row["artist"] or f"unknown, track {row['track_id']}"] += 1
    return dict(sorted(shares.items()))


def find_imbalances(shares: dict[tuple[str, str], Share]) -> list[str]:
    """Return a warning for each genre and split that is too small or too much of one artist."""
    warnings, totals, artists = [], Counter[str](), defaultdict[str, Counter[str]](Counter)
    for (genre, split), share in shares.items():
        totals[genre] += share.tracks
        artists[genre].update(share.artists)
        if split == "test" and share.tracks < MIN_TEST_TRACKS:
            warnings.append(
                f"{genre} has {share.tracks} test tracks: one of them is {100 / share.tracks:.0f} points of its recall."
            )
    for genre, counts in artists.items():
        name, most = counts.most_common(1)[0]
        if len(counts) < MIN_ARTISTS:
            artists_of = f"{len(counts)} artist{'s' * (len(counts) != 1)}"
            warnings.append(f"{genre} has {artists_of}: its scores say little about others.")
        elif most > MAX_ARTIST_SHARE * totals[genre]:
            warnings.append(f"{most} of the {totals[genre]} tracks of {genre} are by {name}.")
    most_common = totals.most_common()
    (largest, most), (smallest, fewest) = most_common[0], most_common[-1]
    if most > MAX_RATIO * fewest:
        warnings.append(
            f"{largest} has {most / fewest:.1f} times the tracks of {smallest}: compare macro F1, not accuracy, and "
            "see below whether weights or sampling help."
        )
    return warnings


def most_confused_pair(
    genres: Sequence[str],
    truth_TG: NDArray[np.float64],
    probability_TG: NDArray[np.float64],
    among: Sequence[str],
) -> tuple[str, str]:
    """Return the two genres `among` all that are taken for each other most often, as a share of their tracks."""
    size = len(genres)
    confusion_GG = np.zeros((size, size))
    np.add.at(confusion_GG, (truth_TG.argmax(axis=1), probability_TG.argmax(axis=1)), 1)
    share_GG = confusion_GG / np.maximum(confusion_GG.sum(axis=1, keepdims=True), 1)
    is_among_G = np.isin(genres, among)
    both_GG = np.triu(share_GG + share_GG.T, 1) + 1e-9 * np.triu(np.ones((size, size)), 1)
    both_GG[~is_among_G] = both_GG[:, ~is_among_G] = 0
    one, other = np.unravel_index(int(both_GG.argmax()), both_GG.shape)
    return genres[int(one)], genres[int(other)]
