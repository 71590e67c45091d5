"""Confidence intervals of scores: artists are resampled many times, and each resample is scored.

Axes: T tracks, G genres, A artists, R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.evaluation.ranking import resampled_mean_average_precision

RESAMPLES = 1_000
RESAMPLES_PER_BLOCK = 100  # computed together, which bounds the memory
RANKED_RESAMPLES = 200  # resamples with a mean average precision, which costs a hundred times more
INTERVAL_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """The 95 % confidence interval of a score."""

    low: float
    high: float
    artists: int
    method: Literal["bootstrap by artist", "exact by artist"]


@dataclass(frozen=True)
class TrackOutcomes:
    """Predictions and truth of tracks, as far as scores of resamples need them."""

    truth_TG: NDArray[np.bool_]
    predicted_TG: NDArray[np.bool_]
    probability_TG: NDArray[np.float64]
    loss_T: NDArray[np.float64]

    def is_correct(self) -> NDArray[np.bool_]:
        """Return of each track whether all its genres are predicted correctly. Shapes: (T,)."""
        return np.asarray((self.truth_TG == self.predicted_TG).all(axis=1))


@dataclass(frozen=True)
class ResampleScores:
    """The scores of some resamples; nan where a resample has no track of a genre."""

    accuracy_R: NDArray[np.float64]
    log_loss_R: NDArray[np.float64]
    f1_RG: NDArray[np.float64]

    def macro_f1(self) -> NDArray[np.float64]:
        """Return the mean over the genres that the resample has tracks of; 0 without any. Shapes: (R,)."""
        known_RG = ~np.isnan(self.f1_RG)
        total_R = np.where(known_RG, self.f1_RG, 0.0).sum(axis=1)
        return np.asarray(total_R / np.maximum(known_RG.sum(axis=1), 1))


def index_artists(artists: Sequence[str | None]) -> NDArray[np.int64]:
    """Return an index of the artist of each track; a track of unknown artist counts as another artist. Shapes: (T,)."""
    keys = [(name,) if name is not None else row for row, name in enumerate(artists)]
    index_of = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return np.array([index_of[key] for key in keys], np.int64)


def draw_artists(count: int, seed: int, resamples: int = RESAMPLES) -> Iterator[NDArray[np.float32]]:
    """Draw as many artists as there are, with replacement; yield how often each was drawn. Shapes: (R, A) a block."""
    random = np.random.default_rng(seed)
    for first in range(0, resamples, RESAMPLES_PER_BLOCK):
        rows = min(RESAMPLES_PER_BLOCK, resamples - first)
        drawn_RA = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn_RA.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float32)


def sum_by_artist(outcome: TrackOutcomes, artist_T: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the counts that scores are made of by artist, so that a resample is one matrix product.

    Shapes: (A, 3 G + 3): by genre, tracks correctly predicted, true and predicted; then correct tracks, loss, tracks.
    """
    columns = [
        outcome.truth_TG & outcome.predicted_TG,
        outcome.truth_TG,
        outcome.predicted_TG,
        outcome.is_correct()[:, None],
        outcome.loss_T[:, None],
        np.ones((len(artist_T), 1)),
    ]
    values_TK = np.concatenate(columns, axis=1, dtype=np.float64)
    sums_AK = np.zeros((int(artist_T.max()) + 1, values_TK.shape[1]))
    np.add.at(sums_AK, artist_T, values_TK)
    return sums_AK


def score_resamples(sums_AK: NDArray[np.float64], drawn_RA: NDArray[np.float32]) -> ResampleScores:
    """Score resamples from the sums of each artist. Shapes: (A, 3 G + 3), (R, A)."""
    sums_RK = drawn_RA.astype(np.float64) @ sums_AK
    hits_RG, support_RG, predicted_RG = np.split(sums_RK[:, :-3], 3, axis=1)
    correct_R, loss_R, tracks_R = sums_RK[:, -3:].T
    f1_RG = np.where(support_RG > 0, 2 * hits_RG / np.maximum(support_RG + predicted_RG, 1), np.nan)
    return ResampleScores(correct_R / tracks_R, loss_R / tracks_R, f1_RG)


def bootstrap_intervals(
    outcome: TrackOutcomes,
    artists: Sequence[str | None],
    scores: Mapping[str, float | None],
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return 95 % intervals of accuracy, macro F1, log-loss and mean average precision, by these names.

    Source: cluster bootstrap, percentiles (Field & Welsh, 2007); Clopper & Pearson (1934).

    Tracks of one artist are correct or wrong together, so artists are drawn, not tracks. All scores
    are taken of the same resamples, the mean average precision of the first RANKED_RESAMPLES.
    A resample lacks some rare genres, which shifts macro scores: an interval that would not contain
    the score itself is widened to do so. If all tracks are correct (or all wrong), so is every resample,
    which would claim certainty: then the accuracy has the exact interval for as many independent
    predictions as there are artists, and a score that never varies has none. With a single artist
    there is no interval.
    """
    artist_T = index_artists(artists)
    count = int(artist_T.max()) + 1
    if count < 2:
        return {}
    found = {}
    for name, values_R in _resampled_scores(outcome, artist_T, count, seed).items():
        known, value = values_R[~np.isnan(values_R)], scores[name]
        if value is None or not len(known) or (name != "accuracy" and np.ptp(known) == 0):
            continue
        low, high = (float(bound) for bound in np.percentile(known, INTERVAL_PERCENTILES))
        found[name] = Interval(min(low, value), max(high, value), count, "bootstrap by artist")
    correct_T = outcome.is_correct()
    if correct_T.all() or not correct_T.any():
        bound = 0.025 ** (1 / count)
        low, high = (bound, 1.0) if correct_T.all() else (0.0, 1 - bound)
        found["accuracy"] = Interval(low, high, count, "exact by artist")
    return found


def _resampled_scores(
    outcome: TrackOutcomes, artist_T: NDArray[np.int64], count: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    sums_AK = sum_by_artist(outcome, artist_T)
    blocks, ranked = [], []
    for number, drawn_RA in enumerate(draw_artists(count, seed)):
        blocks.append(score_resamples(sums_AK, drawn_RA))
        if number * RESAMPLES_PER_BLOCK < RANKED_RESAMPLES:
            weight_TR = np.ascontiguousarray(drawn_RA.T[artist_T])
            ranked.append(
                resampled_mean_average_precision(outcome.truth_TG, outcome.probability_TG, weight_TR)
            )
    return {
        "accuracy": np.concatenate([block.accuracy_R for block in blocks]),
        "macro_f1": np.concatenate([block.macro_f1() for block in blocks]),
        "log_loss": np.concatenate([block.log_loss_R for block in blocks]),
        "mean_average_precision": np.concatenate(ranked),
    }
