"""How well the probabilities put tracks in order, whatever the thresholds; one sort serves all genres.

Axes: T tracks, G genres, R resamples.
"""

import numpy as np
from numpy.typing import NDArray


def average_precisions(
    truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the average precision of each genre; nan where not both kinds of tracks are there.

    Shapes: (T, G), (T, G) -> (G,).
    Source: the sum over recall steps that sklearn.metrics.average_precision_score takes; equal
            probabilities are one step.
    """
    order_TG, last_TG = _sorted_down(probability_TG)
    has_TG = np.take_along_axis(truth_TG, order_TG, axis=0)
    hits_TG = np.take_along_axis(has_TG.cumsum(axis=0), last_TG, axis=0)
    precision_TG = hits_TG / (last_TG + 1)
    support_G = truth_TG.sum(axis=0)
    total_G = np.where(has_TG, precision_TG, 0.0).sum(axis=0)
    return np.where(_both_kinds(truth_TG), total_G / np.maximum(support_G, 1), np.nan)


def roc_aucs(truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the area under the ROC curve of each genre: how often a track that has it comes first.

    Shapes: (T, G), (T, G) -> (G,), nan where not both kinds of tracks are there.
    Source: the statistic of Mann & Whitney (1947); equal probabilities count half.
    """
    order_TG, last_TG = _sorted_down(probability_TG)
    has_TG = np.take_along_axis(truth_TG, order_TG, axis=0)
    missing_TG = (~has_TG).cumsum(axis=0)  # tracks without the genre that come no later
    until_TG = np.take_along_axis(missing_TG, last_TG, axis=0)
    before_TG = np.take_along_axis(missing_TG, _first_of_equals(last_TG), axis=0)
    equal_starts_TG = np.take_along_axis(~has_TG, _first_of_equals(last_TG), axis=0)
    ahead_TG = (until_TG + before_TG - equal_starts_TG) / 2
    support_G, missing_G = truth_TG.sum(axis=0), (~truth_TG).sum(axis=0)
    lost_G = np.where(has_TG, ahead_TG, 0.0).sum(axis=0)
    return np.where(_both_kinds(truth_TG), 1 - lost_G / np.maximum(support_G * missing_G, 1), np.nan)


def resampled_mean_average_precision(
    truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64], weight_TR: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Give the mean average precision of resamples, in which a track counts as often as it was drawn.

    Shapes: (T, G), (T, G), (T, R) -> (R,); genres of which a resample lacks one kind of track are left out of it.
    """
    order_TG, last_TG = _sorted_down(probability_TG)
    total_R, counted_R = np.zeros(weight_TR.shape[1]), np.zeros(weight_TR.shape[1])
    for genre in np.flatnonzero(_both_kinds(truth_TG)):
        order_T = order_TG[:, genre]
        rows = np.flatnonzero(truth_TG[order_T, genre])
        sorted_TR = weight_TR[order_T]
        drawn_TR = sorted_TR.cumsum(axis=0)
        hits_TR = sorted_TR[rows].cumsum(axis=0)
        last = last_TG[rows, genre]
        until = np.searchsorted(rows, last, side="right") - 1
        precision_TR = hits_TR[until] / np.maximum(drawn_TR[last], 1)
        support_R = hits_TR[-1]
        known_R = (support_R > 0) & (support_R < drawn_TR[-1])
        average_R = (sorted_TR[rows] * precision_TR).sum(axis=0) / np.maximum(support_R, 1)
        total_R += np.where(known_R, average_R, 0.0)
        counted_R += known_R
    return np.where(counted_R > 0, total_R / np.maximum(counted_R, 1), np.nan)


def precision_recall(
    truth_T: NDArray[np.bool_], probability_T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give recall and precision from the likeliest track down; at least one track must have it."""
    order_T1, last_T1 = _sorted_down(probability_T[:, None])
    last = np.unique(last_T1)
    hits = truth_T[order_T1[:, 0]].cumsum()[last]
    return hits / truth_T.sum(), hits / (last + 1)


def _sorted_down(probability_TG: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort each column from the likeliest down; tell for each row where the row of its equals ends."""
    order_TG = np.argsort(-probability_TG, axis=0, kind="stable")
    sorted_TG = np.take_along_axis(probability_TG, order_TG, axis=0)
    tracks = len(sorted_TG)
    ends_TG = np.ones(sorted_TG.shape, bool)
    ends_TG[:-1] = sorted_TG[1:] != sorted_TG[:-1]
    row_T1 = np.arange(tracks)[:, None]
    ends_at_TG = np.where(ends_TG, row_T1, tracks)
    return order_TG, np.minimum.accumulate(ends_at_TG[::-1], axis=0)[::-1]


def _first_of_equals(last_TG: NDArray[np.int64]) -> NDArray[np.int64]:
    row_T1 = np.arange(len(last_TG))[:, None]
    starts_TG = np.ones(last_TG.shape, bool)
    starts_TG[1:] = last_TG[1:] != last_TG[:-1]
    return np.maximum.accumulate(np.where(starts_TG, row_T1, 0), axis=0)


def _both_kinds(truth_TG: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(truth_TG.any(axis=0) & ~truth_TG.all(axis=0))
