"""Whether two models differ by more than noise: a paired test whose units are artists.

Axes: T tracks, A artists, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.evaluation.bootstrap import INTERVAL_PERCENTILES, draw_artists, index_artists
from training.evaluation.held_out_predictions import to_matrix
from training.evaluation.probabilities import PROBABILITY_EPSILON

FLIPS = 10_000
FLIPS_PER_BLOCK = 100  # computed together, which bounds the memory
MAX_EXACT_ARTISTS = 13  # all 2^13 ways to flip are fewer than FLIPS
SIGNIFICANT_P = 0.05


@dataclass(frozen=True)
class PairedTest:
    """A score of one model minus that of another on the same tracks, its 95 % interval, and a p-value.

    `low` and `high` are null for a single artist.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    tracks: int
    artists: int

    @property
    def differs(self) -> bool:
        """Whether noise alone would give such a difference in less than one of twenty cases."""
        return self.p < SIGNIFICANT_P

    @property
    def p_text(self) -> str:
        """The p-value as text: `p < 0.001` where it would be rounded to 0."""
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"


def difference_cells(test: PairedTest | None) -> tuple[float | None, ...]:
    """Return difference, bounds and p-value for a table; nothing of a test that was not possible."""
    return (None,) * 4 if test is None else (test.difference, test.low, test.high, test.p)


def name_differing(tests: Mapping[str, PairedTest | None]) -> list[str]:
    """Return the names of the tests whose difference is more than noise, given that all of them were made.

    Of twenty comparisons of equals, one has p < 0.05 on average. Holm's correction keeps the probability of naming
    any that does not differ below 5 %, whichever of the others do, and however the tests depend on each other.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    ranked = sorted((test.p, name) for name, test in tests.items() if test is not None)
    differing = []
    for left, (p, name) in zip(range(len(ranked), 0, -1), ranked, strict=True):
        if p * left >= SIGNIFICANT_P:
            break
        differing.append(name)
    return differing


TrackMeans = dict[str, tuple[str | None, float]]  # of each track its artist, and a mean over seeds and folds


def mean_correct(predictions: pa.Table) -> TrackMeans:
    """Return of each track the share of its predictions that are correct."""
    truth_TG, probability_TG = (to_matrix(predictions, name) for name in ("truth", "probabilities"))
    return _mean_by_track(predictions, truth_TG.argmax(axis=1) == probability_TG.argmax(axis=1))


def mean_log_loss(predictions: pa.Table) -> TrackMeans:
    """Return of each track the mean log-loss of its predictions, in nats."""
    truth_TG, probability_TG = (to_matrix(predictions, name) for name in ("truth", "probabilities"))
    true_T = (truth_TG * probability_TG).sum(axis=1)
    return _mean_by_track(predictions, -np.log(true_T.clip(PROBABILITY_EPSILON, 1)))


def _mean_by_track(predictions: pa.Table, value_T: NDArray[Any]) -> TrackMeans:
    sums: dict[str, tuple[str | None, float, int]] = {}
    ids, artists = predictions["track_id"].to_pylist(), predictions["artist"].to_pylist()
    for track_id, artist, value in zip(ids, artists, value_T.tolist(), strict=True):
        _, total, count = sums.get(track_id, (artist, 0.0, 0))
        sums[track_id] = (artist, total + value, count + 1)
    return {track_id: (artist, total / count) for track_id, (artist, total, count) in sums.items()}


def paired_test(
    one: pa.Table,
    other: pa.Table,
    *,
    measure: Callable[[pa.Table], TrackMeans] = mean_correct,
    seed: int = 0,
) -> PairedTest | None:
    """Compare a score of two models on the tracks that both predicted; None if there is none.

    Source: sign-flip permutation test (Fisher, 1935), exact up to MAX_EXACT_ARTISTS; cluster bootstrap.

    Tracks of one artist are correct or wrong together, so the difference of an artist is flipped as a whole.
    """
    first, second = measure(one), measure(other)
    shared = [track_id for track_id in first if track_id in second]
    if not shared:
        return None
    difference_T = np.array([first[it][1] - second[it][1] for it in shared])
    artist_T = index_artists([first[it][0] for it in shared])
    return compare_artists(difference_T, artist_T, seed=seed)


def compare_artists(
    difference_T: NDArray[np.float64], artist_T: NDArray[np.int64], *, seed: int = 0
) -> PairedTest:
    """Test whether the mean of the differences is 0. Shapes: (T,), (T,) the index of each track's artist."""
    sum_A, count_A = np.bincount(artist_T, difference_T), np.bincount(artist_T)
    artists, observed = len(sum_A), float(sum_A.sum())
    # Sums of the same numbers in another order differ by rounding.
    tolerance = np.finfo(np.float64).eps * artists * np.abs(sum_A).sum()
    extreme = sum(
        int((np.abs(signs_RA @ sum_A) >= abs(observed) - tolerance).sum())
        for signs_RA in _draw_signs(artists, seed)
    )
    is_exact = artists <= MAX_EXACT_ARTISTS
    p = extreme / 2**artists if is_exact else (extreme + 1) / (FLIPS + 1)
    low, high = _interval(np.asarray(sum_A), np.asarray(count_A), seed) if artists > 1 else (None, None)
    return PairedTest(observed / len(difference_T), low, high, p, len(difference_T), artists)


def _draw_signs(artists: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield all ways to flip the signs, or FLIPS random ones. Shapes: (R, A) a block."""
    if artists <= MAX_EXACT_ARTISTS:
        bits_RA = (np.arange(2**artists)[:, None] >> np.arange(artists)) & 1
        yield np.asarray(bits_RA * 2.0 - 1.0, np.float64)
        return
    random = np.random.default_rng(seed)
    for _ in range(FLIPS // FLIPS_PER_BLOCK):
        bits_RA = random.integers(0, 2, size=(FLIPS_PER_BLOCK, artists))
        yield np.asarray(bits_RA * 2.0 - 1.0, np.float64)


def _interval(sum_A: NDArray[np.float64], count_A: NDArray[np.int64], seed: int) -> tuple[float, float]:
    means = [(drawn_RA @ sum_A) / (drawn_RA @ count_A) for drawn_RA in draw_artists(len(sum_A), seed)]
    low, high = np.percentile(np.concatenate(means), INTERVAL_PERCENTILES)
    return float(low), float(high)
