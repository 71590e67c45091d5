"""Scores of whole tracks, as plain data that JSON can hold.

Axes: T tracks, G genres.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluation.bootstrap import TrackOutcomes
from training.evaluation.calibration import Calibration, Target
from training.evaluation.probabilities import PROBABILITY_EPSILON
from training.evaluation.ranking import average_precisions, roc_aucs

CALIBRATION_BINS = 15  # of the calibration error, as in Guo et al.
TOP_K = 3  # a person who chooses from three suggestions is still helped


@dataclass(frozen=True)
class GenreScore:
    """Scores of one genre; null where there is nothing to divide by.

    `support` counts the tracks that have it, `predicted` those it was assigned to, by `threshold`
    (null where the likeliest genre is assigned and no threshold was fitted).
    `average_precision` and `roc_auc` rank by probability; they are null for a genre that no track
    or every track has.
    """

    genre: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    roc_auc: float | None
    threshold: float | None


@dataclass(frozen=True)
class Scores:
    """Scores of a set of tracks.

    `accuracy` is the share of tracks whose genres are all predicted correctly (multi-label: exact
    match); `chance` the accuracy of always predicting the most frequent label of these tracks.
    `macro_f1` is the mean over genres without the `untested` ones, which no track has;
    `micro_f1` counts all tracks and genres together. `mean_average_precision` and `roc_auc` are
    means over the genres that some tracks have and others have not.
    `top_k` is the share of tracks whose genre is among the `k` likeliest, null for multi-label.
    `calibration_error` is the ECE: see `calibration_error`.
    `confusion` counts tracks, truth down and prediction across; null for multi-label.
    `log_loss` is in nats, and so is `log_loss_standard_error`, the standard error of that mean over tracks.

    Source: where tracks have one genre, `log_loss` is the multi-class log-loss that ranked the
            WWW'18 challenge "Learning to Recognize Musical Genre" (Defferrard et al., 2018).
    """

    target: Target
    tracks: int
    correct: int
    accuracy: float
    chance: float
    macro_f1: float
    micro_f1: float
    mean_average_precision: float | None
    roc_auc: float | None
    top_k: float | None
    k: int | None
    calibration_error: float
    log_loss: float
    log_loss_standard_error: float
    genres: tuple[GenreScore, ...]
    untested: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None


@dataclass(frozen=True)
class Reliability:
    """Predictions binned by their probability: mean probability and observed frequency of each bin.

    Empty bins are left out. `share` is the part of all predictions that lies in a bin.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    share: NDArray[np.float64]


def score(
    truth_TG: ArrayLike,
    probabilities_TG: ArrayLike,
    genres: Sequence[str],
    target: Target,
    calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
    *,
    ranked: bool = True,
) -> Scores:
    """Compare the predictions of some tracks with the truth.

    `probabilities_TG` are the network's own: the calibration is applied here. Unless `ranked`, average
    precision and ROC-AUC are null: after each epoch of each process nobody reads what they cost.

    Shapes: truth_TG (T, G) of 0 and 1, exactly one 1 a track where target is top; at least one track.
    """
    truth_TG, raw_TG = np.asarray(truth_TG) > 0, np.asarray(probabilities_TG, np.float64)
    _check_predictions(truth_TG, raw_TG, len(genres), target)
    probability_TG = calibration.calibrate(raw_TG, genres, target)
    predicted_TG = calibration.assign_genres(probability_TG, genres, target)
    thresholds = _thresholds(calibration, genres, target)
    rankings = (average_precisions, roc_aucs) if ranked else (_unranked, _unranked)
    average_precision_G, roc_auc_G = (each(truth_TG, probability_TG) for each in rankings)
    per_genre = _score_genres(truth_TG, predicted_TG, average_precision_G, roc_auc_G, genres, thresholds)
    return _score_tracks(truth_TG, predicted_TG, probability_TG, per_genre, target)


def _score_tracks(
    truth_TG: NDArray[np.bool_],
    predicted_TG: NDArray[np.bool_],
    probability_TG: NDArray[np.float64],
    per_genre: tuple[GenreScore, ...],
    target: Target,
) -> Scores:
    correct = int((predicted_TG == truth_TG).all(axis=1).sum())
    loss_T = _losses(truth_TG, probability_TG, target)
    k = min(TOP_K, len(per_genre) - 1) if target == "top" else None
    return Scores(
        target=target,
        tracks=len(truth_TG),
        correct=correct,
        accuracy=correct / len(truth_TG),
        chance=max(Counter(map(bytes, truth_TG)).values()) / len(truth_TG),
        macro_f1=_mean([each.f1 for each in per_genre]) or 0.0,
        micro_f1=_micro_f1(truth_TG, predicted_TG),
        mean_average_precision=_mean([each.average_precision for each in per_genre]),
        roc_auc=_mean([each.roc_auc for each in per_genre]),
        top_k=_share_among_likeliest(truth_TG, probability_TG, k) if k is not None else None,
        k=k,
        calibration_error=calibration_error(reliability(truth_TG, probability_TG, target)),
        log_loss=float(loss_T.mean()),
        log_loss_standard_error=_standard_error(loss_T),
        genres=per_genre,
        untested=tuple(each.genre for each in per_genre if each.support == 0),
        confusion=_count_confusions(truth_TG, predicted_TG) if target == "top" else None,
    )


def _check_predictions(
    truth_TG: NDArray[np.bool_], raw_TG: NDArray[np.float64], genres: int, target: Target
) -> None:
    assert truth_TG.shape == raw_TG.shape == (len(truth_TG), genres), "one value a track and genre"
    assert len(truth_TG), "at least one track"
    assert np.isfinite(raw_TG).all(), "finite probabilities"
    assert target == "multi" or (truth_TG.sum(axis=1) == 1).all(), "one genre a track"


def track_outcomes(
    truth_TG: ArrayLike,
    probabilities_TG: ArrayLike,
    genres: Sequence[str],
    target: Target,
    calibration: Calibration,
) -> TrackOutcomes:
    """Return the tracks' results as resampling needs them; `probabilities_TG` are the network's own."""
    truth_TG = np.asarray(truth_TG) > 0
    probability_TG = calibration.calibrate(probabilities_TG, genres, target)
    predicted_TG = calibration.assign_genres(probability_TG, genres, target)
    return TrackOutcomes(truth_TG, predicted_TG, probability_TG, _losses(truth_TG, probability_TG, target))


def reliability(truth_TG: ArrayLike, probabilities_TG: ArrayLike, target: Target) -> Reliability:
    """Compare predicted probabilities with observed frequencies, in CALIBRATION_BINS bins of equal width.

    Where tracks have one genre, a prediction is the likeliest genre of a track; with several, each
    pair of a track and a genre is one, and most of them are a small probability of a rare genre.
    """
    truth, probabilities = np.asarray(truth_TG) > 0, np.asarray(probabilities_TG, np.float64)
    match target:
        case "top":
            predicted = probabilities.max(axis=1)
            observed = np.take_along_axis(truth, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
        case "multi":
            predicted, observed = probabilities.ravel(), truth.ravel()
    bins = np.minimum((predicted * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = counts > 0
    predicted_mean, observed_share = (
        np.bincount(bins, values, CALIBRATION_BINS)[filled] / counts[filled]
        for values in (predicted, observed)
    )
    return Reliability(predicted_mean, observed_share, counts[filled] / len(predicted))


def calibration_error(found: Reliability) -> float:
    """Return the expected calibration error: the mean distance of predicted and observed frequency.

    Source: ECE with 15 bins of equal width (Guo et al., 2017).
    """
    return float((found.share * np.abs(found.predicted - found.observed)).sum())


def assigned_probability(
    genres_TG: ArrayLike, probabilities_TG: ArrayLike, target: Target
) -> NDArray[np.float64]:
    """Return the probability of each track's combination of genres. Shapes: (T, G), (T, G) -> (T,).

    With several genres a track it is the geometric mean over genres of the probability of "has it"
    or "has it not": minus its logarithm is the track's log-loss.
    """
    has_TG, probability_TG = np.asarray(genres_TG) > 0, np.asarray(probabilities_TG, np.float64)
    match target:
        case "top":
            return np.asarray(np.where(has_TG, probability_TG, 0.0).sum(axis=1))
        case "multi":
            each_TG = np.where(has_TG, probability_TG, 1 - probability_TG).clip(PROBABILITY_EPSILON, 1)
            return np.asarray(np.exp(np.log(each_TG).mean(axis=1)))


def _score_genres(
    truth_TG: NDArray[np.bool_],
    predicted_TG: NDArray[np.bool_],
    average_precision_G: NDArray[np.float64],
    roc_auc_G: NDArray[np.float64],
    genres: Sequence[str],
    thresholds: Sequence[float | None],
) -> tuple[GenreScore, ...]:
    # Column by column: for these scores one genre a track is several yes-or-no questions too.
    hits_G, support_G, predicted_G = (
        each.sum(axis=0) for each in (truth_TG & predicted_TG, truth_TG, predicted_TG)
    )
    return tuple(
        GenreScore(
            genre=genre,
            support=int(support_G[row]),
            predicted=int(predicted_G[row]),
            precision=float(hits_G[row] / predicted_G[row]) if support_G[row] and predicted_G[row] else None,
            recall=float(hits_G[row] / support_G[row]) if support_G[row] else None,
            f1=float(2 * hits_G[row] / (support_G[row] + predicted_G[row])) if support_G[row] else None,
            average_precision=_none_if_nan(average_precision_G[row]),
            roc_auc=_none_if_nan(roc_auc_G[row]),
            threshold=thresholds[row],
        )
        for row, genre in enumerate(genres)
    )


def _unranked(truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.full(truth_TG.shape[1], np.nan)


def _thresholds(calibration: Calibration, genres: Sequence[str], target: Target) -> Sequence[float | None]:
    unfitted = target == "top" and not calibration.thresholds
    return [None] * len(genres) if unfitted else calibration.thresholds_for(genres)


def _share_among_likeliest(truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64], k: int) -> float:
    likeliest_TK = np.argsort(-probability_TG, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(truth_TG, likeliest_TK, axis=1).any(axis=1).mean())


def _count_confusions(
    truth_TG: NDArray[np.bool_], predicted_TG: NDArray[np.bool_]
) -> tuple[tuple[int, ...], ...]:
    counts_GG = truth_TG.T.astype(np.int64) @ predicted_TG
    return tuple(tuple(int(count) for count in row) for row in counts_GG)


def _losses(
    truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64], target: Target
) -> NDArray[np.float64]:
    true_T = assigned_probability(truth_TG, probability_TG, target)
    return np.asarray(-np.log(true_T.clip(PROBABILITY_EPSILON, 1)))


def _micro_f1(truth_TG: NDArray[np.bool_], predicted_TG: NDArray[np.bool_]) -> float:
    return float(2 * (truth_TG & predicted_TG).sum() / max(truth_TG.sum() + predicted_TG.sum(), 1))


def _standard_error(loss_T: NDArray[np.float64]) -> float:
    """Return the standard error of the mean; it is undefined for a single track, and 0 here."""
    return float(loss_T.std() / np.sqrt(max(len(loss_T) - 1, 1)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _none_if_nan(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
