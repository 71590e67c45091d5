"""Temperature and thresholds, fitted on the validation tracks.

Axes: T tracks, G genres, C thresholds: the ranks at which a list sorted by probability may be divided.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.dataset.genre_tree import ancestor_indices, parents_among
from training.evaluation.calibration import (
    DEFAULT_THRESHOLD,
    UNREACHABLE_THRESHOLD,
    Calibration,
    Target,
    propagate_to_ancestors,
)
from training.evaluation.probabilities import PROBABILITY_EPSILON, clip_probabilities, log_softmax, logit
from training.evaluation.settings import CalibrationSettings

MIN_POSITIVES = 10  # validation tracks that must have a genre, or its threshold would be luck
MIN_CALIBRATION_TRACKS = 30  # validation tracks from which on a temperature is fitted
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0


def fit_calibration(
    truth_TG: ArrayLike,
    probabilities_TG: ArrayLike,
    genres: Sequence[str],
    target: Target,
    settings: CalibrationSettings,
    parents: Mapping[str, str],
) -> Calibration:
    """Fit temperature and thresholds on validation tracks. Shapes: (T, G) of 0 and 1, (T, G).

    The temperature minimises the log-loss. It stays 1 with fewer than MIN_CALIBRATION_TRACKS tracks,
    and where all tracks are so clearly correct that the log-loss only falls towards temperature 0.
    Of equally good thresholds the highest is taken: a wrong genre harms more than a missing one. A
    genre of fewer than MIN_POSITIVES tracks keeps 0.5; one that cannot reach the wanted precision
    gets UNREACHABLE_THRESHOLD.
    """
    truth, raw = np.asarray(truth_TG) > 0, np.asarray(probabilities_TG, np.float64)
    assert truth.shape == raw.shape == (len(truth), len(genres)), "one value a track and genre"
    tree = parents_among(genres, parents)
    temperature = 1.0
    if settings.fit_temperature and len(truth) >= MIN_CALIBRATION_TRACKS:
        raised = raw if target == "top" else propagate_to_ancestors(raw, genres, tree)
        temperature = _fit_temperature(truth, raised, target)
    probability_TG = Calibration(temperature=temperature, parents=tree).calibrate(raw, genres, target)
    above = ancestor_indices(genres, tree) if target == "multi" else [()] * len(genres)
    return Calibration(
        temperature=temperature,
        thresholds=_fit_thresholds(truth, probability_TG, above, settings),
        parents=tree,
    )


def explain_calibration(
    calibration: Calibration,
    settings: CalibrationSettings,
    truth_TG: ArrayLike,
    genres: Sequence[str],
    target: Target,
) -> Iterator[str]:
    """Yield sentences on what could be fitted on these validation tracks, and what could not."""
    truth = np.asarray(truth_TG) > 0
    yield _explain_temperature(calibration, settings, len(truth))
    goal = "the best F1" if settings.goal == "f1" else f"a precision of {settings.precision:.0%}"
    use = (
        "used only with --abstain; without it the likeliest genre is assigned, however improbable"
        if target == "top"
        else "a genre is assigned from its threshold on"
    )
    yield f"Each genre has its own threshold, fitted for {goal} on the validation tracks ({use})."
    few_G = truth.sum(axis=0) < MIN_POSITIVES
    if few_G.any():
        yield (
            f"Fewer than {MIN_POSITIVES} validation tracks have {_names(genres, few_G)}: "
            f"too few to fit a threshold, so {DEFAULT_THRESHOLD} is kept."
        )
    never_G = np.array(calibration.thresholds_for(genres)) >= UNREACHABLE_THRESHOLD
    if never_G.any():
        yield f"No threshold reaches that for {_names(genres, never_G)}: never assigned by their own probability."


def _explain_temperature(calibration: Calibration, settings: CalibrationSettings, tracks: int) -> str:
    if not settings.fit_temperature:
        return "The probabilities are the network's own: no temperature was to be fitted."
    if calibration.temperature == 1.0:
        why = (
            f"it takes {MIN_CALIBRATION_TRACKS}"
            if tracks < MIN_CALIBRATION_TRACKS
            else "they do not determine one"
        )
        return f"The probabilities are the network's own: {tracks:,} validation tracks fit no temperature ({why})."
    change = "raises" if calibration.temperature < 1 else "lowers"
    return (
        f"A temperature of {calibration.temperature:.2f}, fitted on {tracks:,} validation tracks, {change} the "
        "network's confidence."
    )


def _fit_temperature(
    truth_TG: NDArray[np.bool_], probability_TG: NDArray[np.float64], target: Target
) -> float:
    from scipy.optimize import minimize_scalar  # half a second of import, needed here only

    if target == "top":
        logits_TG = np.log(probability_TG.clip(PROBABILITY_EPSILON, 1))
    else:
        logits_TG = logit(clip_probabilities(probability_TG))
    wrong_logits_TG = np.where(truth_TG, -logits_TG, logits_TG)

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        if target == "top":
            return float(-log_softmax(scale * logits_TG)[truth_TG].mean())
        return float(np.logaddexp(0.0, scale * wrong_logits_TG).mean())

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
    return 1.0 if found < 1.05 * MIN_TEMPERATURE else found  # at the bound: there is no minimum


def _fit_thresholds(
    truth_TG: NDArray[np.bool_],
    probability_TG: NDArray[np.float64],
    above: Sequence[Sequence[int]],
    settings: CalibrationSettings,
) -> tuple[float, ...]:
    """Fit children before their parents, since a child's assignment implies its parents'."""
    thresholds = [DEFAULT_THRESHOLD] * len(above)
    implied_TG = np.zeros_like(truth_TG)
    for genre in sorted(range(len(above)), key=lambda genre: -len(above[genre])):
        if truth_TG[:, genre].sum() >= MIN_POSITIVES:
            probability_T = np.where(implied_TG[:, genre], np.inf, probability_TG[:, genre])
            thresholds[genre] = _fit_threshold(truth_TG[:, genre], probability_T, settings)
        assigned_T = implied_TG[:, genre] | (probability_TG[:, genre] >= thresholds[genre])
        for ancestor in above[genre]:
            implied_TG[:, ancestor] |= assigned_T
    return tuple(thresholds)


def _fit_threshold(
    has_T: NDArray[np.bool_], probability_T: NDArray[np.float64], settings: CalibrationSettings
) -> float:
    """Choose the threshold of one genre; an infinite probability stands for a genre implied by a child."""
    sorted_T, rank_C, correct_C = rank_thresholds(has_T, probability_T)
    assigned_C = rank_C + 1
    match settings.goal:
        case "f1":
            rank = rank_C[np.argmax(2 * correct_C / (assigned_C + has_T.sum()))]
        case "precision":
            precise = rank_C[correct_C / assigned_C >= settings.precision]
            if not len(precise):
                return UNREACHABLE_THRESHOLD
            rank = precise[-1]
    above, below = sorted_T[rank], sorted_T[rank + 1] if rank + 1 < len(sorted_T) else 0.0
    if np.isinf(above):
        return UNREACHABLE_THRESHOLD
    middle = float(below + (above - below) / 2)
    return middle if middle > below else float(above)


def rank_thresholds(
    has_T: NDArray[np.bool_], probability_T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.int64]]:
    """Return all ways to divide tracks by a threshold, from the highest threshold down.

    Shapes: (T,), (T,) -> the probabilities in descending order (T,), the rank of the last track above each
        threshold (C,), and how many of the tracks up to there have the genre (C,).

    Tracks of equal probability are never divided.
    """
    order = np.argsort(-probability_T, kind="stable")
    sorted_T = probability_T[order]
    rank_C = np.flatnonzero(np.append(sorted_T[1:] != sorted_T[:-1], True))
    return sorted_T, rank_C, np.cumsum(has_T[order], dtype=np.int64)[rank_C]


def _names(genres: Sequence[str], chosen_G: NDArray[np.bool_], most: int = 8) -> str:
    names = [genre for genre, chosen in zip(genres, chosen_G, strict=True) if chosen]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
