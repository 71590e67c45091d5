"""How right the guesses are: scores of whole tracks, as plain data that JSON can hold.

Axes: T tracks, G genres.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluation.bootstrap import TrackOutcomes
from training.evaluation.calibration import PROBABILITY_EPSILON, Calibration, Target
from training.evaluation.ranking import average_precisions, roc_aucs

CALIBRATION_BINS = 15  # of the calibration error, as Guo et al. have them
TOP_K = 3  # a person choosing from so many suggestions is still helped


@dataclass(frozen=True)
class GenreScore:
    """Scores of one genre; null where there is nothing to divide by.

    `support` counts the tracks that have it, `guessed` those that were told to have it,
    by `threshold` (null where the likeliest genre is told and none was fitted).
    `average_precision` and `roc_auc` rank by probability, and need tracks of both kinds.
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

    `accuracy` is the share of tracks whose genres are all told right (multi-label: exact
    match); `chance` what always giving the commonest answer of these tracks would reach.
    `macro_f1` is the mean over genres, but for the `untested` ones that no track has;
    `micro_f1` counts all tracks and genres together. `mean_average_precision` and `roc_auc` are
    means over the genres that some tracks have and others have not.
    `top_k` is the share of tracks whose genre is among the `k` likeliest, null for multi-label.
    `calibration_error` is the ECE: see `calibration_error`.
    `confusion` counts tracks, truth down and guess across; null where tracks bear several genres.
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
    """Answers sorted into bins by their probability: what was said, and how often it was so.

    Empty bins are left out. `share` is the part of all answers that lies in a bin.
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
) -> Scores:
    """Compare what is told of some tracks with the truth.

    `probabilities_TG` are the network's own: the calibration calibrates them, and tells by them.

    Shapes: truth_TG (T, G) of 0 and 1, exactly one 1 a track where target is top; at least one track.
    """
    truth = np.asarray(truth_TG) > 0
    raw = np.asarray(probabilities_TG, np.float64)
    assert truth.shape == raw.shape == (len(truth), len(genres)), "one value a track and genre"
    assert len(truth), "at least one track"
    assert np.isfinite(raw).all(), "finite probabilities"
    assert target == "multi" or (truth.sum(axis=1) == 1).all(), "one genre a track"
    probabilities = calibration.calibrate(raw, genres, target)
    told = calibration.assign_genres(probabilities, genres, target)
    correct = int((told == truth).all(axis=1).sum())
    loss_T = _losses(truth, probabilities, target)
    per_genre = _score_genres(truth, told, probabilities, genres, _thresholds(calibration, genres, target))
    k = min(TOP_K, len(genres) - 1) if target == "top" else None
    return Scores(
        target=target,
        tracks=len(truth),
        correct=correct,
        accuracy=correct / len(truth),
        chance=max(Counter(map(bytes, truth)).values()) / len(truth),
        macro_f1=_mean([each.f1 for each in per_genre]) or 0.0,
        micro_f1=float(2 * (truth & told).sum() / max(truth.sum() + told.sum(), 1)),
        mean_average_precision=_mean([each.average_precision for each in per_genre]),
        roc_auc=_mean([each.roc_auc for each in per_genre]),
        top_k=_among_likeliest(truth, probabilities, k) if k is not None else None,
        k=k,
        calibration_error=calibration_error(reliability(truth, probabilities, target)),
        log_loss=float(loss_T.mean()),
        # Of a single track it cannot be known.
        log_loss_standard_error=float(loss_T.std() / np.sqrt(max(len(loss_T) - 1, 1))),
        genres=per_genre,
        untested=tuple(each.genre for each in per_genre if each.support == 0),
        confusion=_confuse(truth, told) if target == "top" else None,
    )


def track_outcomes(
    truth_TG: ArrayLike,
    probabilities_TG: ArrayLike,
    genres: Sequence[str],
    target: Target,
    calibration: Calibration,
) -> TrackOutcomes:
    """Give what resampling needs to know of answers; `probabilities_TG` are the network's own."""
    truth = np.asarray(truth_TG) > 0
    probability_TG = calibration.calibrate(probabilities_TG, genres, target)
    told = calibration.assign_genres(probability_TG, genres, target)
    return TrackOutcomes(truth, told, probability_TG, _losses(truth, probability_TG, target))


def reliability(truth_TG: ArrayLike, probabilities_TG: ArrayLike, target: Target) -> Reliability:
    """Compare what was said with how often it was so, in CALIBRATION_BINS bins of equal width.

    Where tracks have one genre, an answer is the likeliest genre of a track; where they bear
    several, each pair of a track and a genre is one: most are then a small chance of a rare genre.
    """
    truth, probabilities = np.asarray(truth_TG) > 0, np.asarray(probabilities_TG, np.float64)
    match target:
        case "top":
            said = probabilities.max(axis=1)
            true = np.take_along_axis(truth, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
        case "multi":
            said, true = probabilities.ravel(), truth.ravel()
    bins = np.minimum((said * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = counts > 0
    said_sum, true_sum = (np.bincount(bins, values, CALIBRATION_BINS) for values in (said, true))
    return Reliability(
        said_sum[filled] / counts[filled], true_sum[filled] / counts[filled], counts[filled] / len(said)
    )


def calibration_error(found: Reliability) -> float:
    """Give the expected calibration error: by how much what is said is off, on average over answers.

    Source: ECE with 15 bins of equal width (Guo et al., 2017).
    """
    return float((found.share * np.abs(found.predicted - found.observed)).sum())


def assigned_probability(
    answer_TG: ArrayLike, probabilities_TG: ArrayLike, target: Target
) -> NDArray[np.float64]:
    """Say what probability was given to an answer. Shapes: (T, G), (T, G) -> (T,).

    Where tracks bear several genres it is the geometric mean over genres of the
    probability given to "has it" or "has it not": minus its logarithm is the track's log-loss.
    """
    answer, probabilities = np.asarray(answer_TG) > 0, np.asarray(probabilities_TG, np.float64)
    match target:
        case "top":
            return np.asarray(np.where(answer, probabilities, 0.0).sum(axis=1))
        case "multi":
            of_each = np.where(answer, probabilities, 1 - probabilities).clip(PROBABILITY_EPSILON, 1)
            return np.asarray(np.exp(np.log(of_each).mean(axis=1)))


def _score_genres(
    truth: NDArray[np.bool_],
    told: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    genres: Sequence[str],
    thresholds: Sequence[float | None],
) -> tuple[GenreScore, ...]:
    # A column each, so one genre a track is several yes-or-no questions too.
    hits_G, support_G, predicted_G = (of.sum(axis=0) for of in (truth & told, truth, told))
    average_precision, roc_auc = average_precisions(truth, probabilities), roc_aucs(truth, probabilities)
    return tuple(
        GenreScore(
            genre=genre,
            support=int(support_G[row]),
            predicted=int(predicted_G[row]),
            precision=float(hits_G[row] / predicted_G[row]) if support_G[row] and predicted_G[row] else None,
            recall=float(hits_G[row] / support_G[row]) if support_G[row] else None,
            f1=float(2 * hits_G[row] / (support_G[row] + predicted_G[row])) if support_G[row] else None,
            average_precision=_number(average_precision[row]),
            roc_auc=_number(roc_auc[row]),
            threshold=thresholds[row],
        )
        for row, genre in enumerate(genres)
    )


def _thresholds(calibration: Calibration, genres: Sequence[str], target: Target) -> Sequence[float | None]:
    unfitted = target == "top" and not calibration.thresholds
    return [None] * len(genres) if unfitted else calibration.thresholds_for(genres)


def _among_likeliest(truth: NDArray[np.bool_], probabilities: NDArray[np.float64], k: int) -> float:
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(truth, likeliest, axis=1).any(axis=1).mean())


def _confuse(truth: NDArray[np.bool_], told: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    counts = truth.T.astype(np.int64) @ told
    return tuple(tuple(int(count) for count in row) for row in counts)


def _losses(
    truth: NDArray[np.bool_], probabilities: NDArray[np.float64], target: Target
) -> NDArray[np.float64]:
    return np.asarray(
        -np.log(assigned_probability(truth, probabilities, target).clip(PROBABILITY_EPSILON, 1))
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
