"""Average precision, ROC-AUC and precision-recall curves: how well probabilities rank the tracks.

Axes: T tracks, G genres, R resamples, P positives: the tracks that have a genre.

scikit-learn is imported where it is called: it costs 1.5 s of CPU, and tagging needs none of it.
"""

import numpy as np
from numpy.typing import NDArray


def average_precisions(
    truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the average precision of each genre. Shapes: (T, G), (T, G) -> (G,).

    It is nan for a genre that no track or every track has: scikit-learn would return 0 or 1.
    """
    from sklearn.metrics import average_precision_score

    found_G = np.full(truth_TG.shape[1], np.nan)
    for genre in _rankable_genres(truth_TG):
        found_G[genre] = average_precision_score(truth_TG[:, genre], probability_TG[:, genre])
    return found_G


def roc_aucs(truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each genre. Shapes: (T, G), (T, G) -> (G,).

    It is nan for a genre that no track or every track has.
    """
    from sklearn.metrics import roc_auc_score

    found_G = np.full(truth_TG.shape[1], np.nan)
    for genre in _rankable_genres(truth_TG):
        found_G[genre] = roc_auc_score(truth_TG[:, genre], probability_TG[:, genre])
    return found_G


def precision_recall(
    truth_T: NDArray[np.bool_], probability_T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall and precision from the highest threshold down; at least one track must have the genre."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth_T, probability_T)
    return recall[-2::-1], precision[-2::-1]  # the last point, (0, 1), belongs to no threshold


def resampled_mean_average_precision(
    truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64], weight_TR: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the mean average precision of resamples, in which a track counts as often as it was drawn.

    Shapes: (T, G), (T, G), (T, R) -> (R,); genres that no track or every track of a resample has are left out.

    It equals scikit-learn's with `sample_weight`, which would sort the tracks again for each resample.
    """
    total_R, counted_R = np.zeros(weight_TR.shape[1]), np.zeros(weight_TR.shape[1])
    for genre in _rankable_genres(truth_TG):
        order_T = np.argsort(-probability_TG[:, genre], kind="stable")
        last_T = _last_of_equals(probability_TG[order_T, genre])
        rank_P = np.flatnonzero(truth_TG[order_T, genre])
        sorted_TR = weight_TR[order_T]
        drawn_TR = sorted_TR.cumsum(axis=0)
        hits_PR = sorted_TR[rank_P].cumsum(axis=0)
        last_P = last_T[rank_P]
        hits_until_PR = hits_PR[np.searchsorted(rank_P, last_P, side="right") - 1]
        precision_PR = hits_until_PR / np.maximum(drawn_TR[last_P], 1)
        support_R = hits_PR[-1]
        average_R = (sorted_TR[rank_P] * precision_PR).sum(axis=0) / np.maximum(support_R, 1)
        known_R = (support_R > 0) & (support_R < drawn_TR[-1])
        total_R += np.where(known_R, average_R, 0.0)
        counted_R += known_R
    return np.where(counted_R > 0, total_R / np.maximum(counted_R, 1), np.nan)


def _last_of_equals(sorted_T: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return for each rank the last rank of the same probability. Shapes: (T,) -> (T,)."""
    last_C = np.flatnonzero(np.append(sorted_T[1:] != sorted_T[:-1], True))
    return last_C[np.searchsorted(last_C, np.arange(len(sorted_T)))]


def _rankable_genres(truth_TG: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices of the genres that some tracks have and others have not."""
    return np.flatnonzero(truth_TG.any(axis=0) & ~truth_TG.all(axis=0))
