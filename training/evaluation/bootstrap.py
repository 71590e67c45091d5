"""Between which bounds a score lies: artists are drawn anew, again and again, and the score taken each time.

Axes: T tracks, G genres, A artists, R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.evaluation.ranking import resampled_mean_average_precision

RESAMPLES = 1_000
RESAMPLES_PER_BLOCK = 100  # resamples held in memory together
RANKED_RESAMPLES = 200  # resamples in which tracks are also ranked, which costs a hundred times more
INTERVAL_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """Where a score of many more such tracks would lie, 95 times of 100."""

    low: float
    high: float
    artists: int
    method: Literal["bootstrap by artist", "exact by artist"]


@dataclass(frozen=True)
class TrackOutcomes:
    """What a model said of tracks and what is true, as far as scores of resamples need it."""

    truth_TG: NDArray[np.bool_]
    predicted_TG: NDArray[np.bool_]
    probability_TG: NDArray[np.float64]
    loss_T: NDArray[np.float64]

    def is_correct(self) -> NDArray[np.bool_]:
        """Tell of each track whether all its genres are told right."""
        return np.asarray((self.truth_TG == self.predicted_TG).all(axis=1))


@dataclass(frozen=True)
class ResampleScores:
    """The scores of some resamples; nan where a resample has nothing to score."""

    accuracy_R: NDArray[np.float64]
    log_loss_R: NDArray[np.float64]
    f1_RG: NDArray[np.float64]

    def macro_f1(self) -> NDArray[np.float64]:
        """Give the mean over the genres that the resample has tracks of; 0 without any."""
        known_RG = ~np.isnan(self.f1_RG)
        total_R = np.where(known_RG, self.f1_RG, 0.0).sum(axis=1)
        return np.asarray(total_R / np.maximum(known_RG.sum(axis=1), 1))


def index_artists(artists: Sequence[str | None]) -> NDArray[np.int64]:
    """Number the artists of tracks from 0; a track of unknown artist counts as an artist of its own."""
    names = [(name,) if name is not None else row for row, name in enumerate(artists)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def draw_artists(count: int, seed: int, resamples: int = RESAMPLES) -> Iterator[NDArray[np.float32]]:
    """Draw as many artists as there are, with replacement; give how often each came. Shapes: (R, A) a block."""
    draw = np.random.default_rng(seed)
    for first in range(0, resamples, RESAMPLES_PER_BLOCK):
        rows = min(RESAMPLES_PER_BLOCK, resamples - first)
        drawn_RA = draw.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn_RA.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float32)


def sum_by_artist(outcome: TrackOutcomes, artist_T: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum up what each artist adds to the scores, so that a resample is but a matrix product.

    Shapes: (A, 3 G + 3): tracks rightly told, had and told by genre; tracks right, their loss, tracks.
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
    """Score resamples from what each artist adds."""
    sums_RK = drawn_RA.astype(np.float64) @ sums_AK
    hits_RG, has_RG, predicted_RG = np.split(sums_RK[:, :-3], 3, axis=1)
    right_R, loss_R, tracks_R = sums_RK[:, -3:].T
    f1_RG = np.where(has_RG > 0, 2 * hits_RG / np.maximum(has_RG + predicted_RG, 1), np.nan)
    return ResampleScores(right_R / tracks_R, loss_R / tracks_R, f1_RG)


def bootstrap_intervals(
    outcome: TrackOutcomes,
    artists: Sequence[str | None],
    scores: Mapping[str, float | None],
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """Give 95 % intervals of accuracy, macro F1, log-loss and mean average precision, by these names.

    Source: cluster bootstrap, percentiles (Field & Welsh, 2007); Clopper & Pearson (1934).

    Songs of one artist are right or wrong together, so artists are drawn, not tracks; all
    scores are taken of the same resamples, the mean average precision of the first RANKED_RESAMPLES.
    A resample lacks some rare genres, which shifts macro scores: an interval is widened to
    hold the score itself where it would not. If all tracks are right (or all wrong), so is
    every resample, which would claim certainty: then the accuracy has the exact interval
    for as many answers as there are artists, and a score that never varies has none.
    A single artist gives none at all.
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
    right_T = outcome.is_correct()
    if right_T.all() or not right_T.any():
        bound = 0.025 ** (1 / count)
        low, high = (bound, 1.0) if right_T.all() else (0.0, 1 - bound)
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
