"""What is made of a network's probabilities: how sure it really is, and which genres a track is told to have.

Axes: T tracks, G genres, C cuts: the places where a list sorted by probability may end.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax

from training.evaluation.settings import CalibrationSettings

Target = Literal["top", "multi"]
Scalar = TypeVar("Scalar", bound=np.generic)
DEFAULT_THRESHOLD = 0.5  # a multi-label genre is told from this probability on, where nothing better is known
UNREACHABLE_THRESHOLD = 2.0  # a threshold that no probability reaches; JSON has no infinity
PROBABILITY_EPSILON = 1e-7  # a probability of 0 would make the log-loss infinite
MIN_POSITIVES = 10  # validation tracks that must have a genre, or its threshold would be luck
MIN_CALIBRATION_TRACKS = 30  # validation tracks from which on a temperature is fitted
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.1, 10.0


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """How the probabilities of one model become answers; fitted on validation tracks only."""

    temperature: float = Field(1.0, gt=0.0, description="Above 1 makes the network less sure of itself")
    thresholds: tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...] = Field(
        (), description="Lowest probability of each genre; empty for 0.5 each, above 1 for never"
    )
    parents: dict[str, str] = Field({}, description="Genre to the one it is a kind of")

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # the tree is a dict, which has no hash of its own

    def calibrate(
        self, probabilities_TG: ArrayLike, genres: Sequence[str], target: Target
    ) -> NDArray[np.float64]:
        """Give the probabilities to believe. Shapes: (T, G) -> (T, G).

        Source: temperature scaling (Guo et al., 2017), here of probabilities averaged over crops.

        Where tracks bear several genres a parent is at least as probable as its children;
        where they bear one, all sum to 1 and the tree says nothing.
        """
        cooled_TG = _cool(np.asarray(probabilities_TG, np.float64), self.temperature, target)
        return cooled_TG if target == "top" else propagate_to_ancestors(cooled_TG, genres, self.parents)

    def assign_genres(
        self, calibrated_TG: ArrayLike, genres: Sequence[str], target: Target
    ) -> NDArray[np.bool_]:
        """Say which genres a track is told to have. Shapes: (T, G) -> (T, G).

        The likeliest one where tracks have one genre, else all that reach their thresholds,
        and the ancestors of each of them.
        """
        probability_TG = np.asarray(calibrated_TG)
        match target:
            case "top":
                likeliest_T = probability_TG.argmax(axis=1)
                return np.asarray(likeliest_T[:, None] == np.arange(probability_TG.shape[1]))
            case "multi":
                predicted_TG = probability_TG >= np.array(self.thresholds_for(genres))
                return propagate_to_ancestors(predicted_TG, genres, self.parents)

    def thresholds_for(self, genres: Sequence[str]) -> tuple[float, ...]:
        """Give one threshold for each genre."""
        assert len(self.thresholds) in (0, len(genres)), "a threshold for each genre, or none"
        return self.thresholds or (DEFAULT_THRESHOLD,) * len(genres)


def fit_calibration(
    truth_TG: ArrayLike,
    probabilities_TG: ArrayLike,
    genres: Sequence[str],
    target: Target,
    settings: CalibrationSettings,
    parents: Mapping[str, str],
) -> Calibration:
    """Fit temperature and thresholds on validation tracks. Shapes: (T, G) of 0 and 1, (T, G).

    The temperature has the least log-loss; fewer than MIN_CALIBRATION_TRACKS tracks, or tracks that
    are all so right that only certainty would do, leave it at 1. Of equally good thresholds
    the highest is taken: a genre that is wrongly told harms more than one left out. A genre
    of fewer than MIN_POSITIVES tracks keeps 0.5; one that cannot reach the wanted
    precision gets UNREACHABLE_THRESHOLD.
    """
    truth, raw = np.asarray(truth_TG) > 0, np.asarray(probabilities_TG, np.float64)
    assert truth.shape == raw.shape == (len(truth), len(genres)), "one value a track and genre"
    tree = _tree_of(genres, parents)
    temperature = 1.0
    if settings.fit_temperature and len(truth) >= MIN_CALIBRATION_TRACKS:
        closed = raw if target == "top" else propagate_to_ancestors(raw, genres, tree)
        temperature = _fit_temperature(truth, closed, target)
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
    """Say in sentences what could be fitted on these validation tracks, and what could not."""
    truth = np.asarray(truth_TG) > 0
    tracks, few_G = len(truth), truth.sum(axis=0) < MIN_POSITIVES
    if not settings.fit_temperature:
        yield "The probabilities are the network's own: no calibration was wanted."
    elif calibration.temperature == 1.0:
        why = (
            f"it takes {MIN_CALIBRATION_TRACKS}"
            if tracks < MIN_CALIBRATION_TRACKS
            else "they do not say how sure it may be"
        )
        yield f"The probabilities are the network's own: {tracks:,} validation tracks fit no temperature ({why})."
    else:
        way = "more" if calibration.temperature < 1 else "less"
        yield (
            f"A temperature of {calibration.temperature:.2f}, fitted on {tracks:,} validation tracks, makes the "
            f"network {way} sure than it was by itself."
        )
    wish = "the best F1" if settings.goal == "f1" else f"a precision of {settings.precision:.0%}"
    use = (
        "for a tagger that is told to abstain; else the likeliest genre is told, however unlikely"
        if target == "top"
        else "used to tell"
    )
    yield f"Each genre has a threshold of its own for {wish} on the validation tracks ({use})."
    if few_G.any():
        yield (
            f"Fewer than {MIN_POSITIVES} validation tracks have {_listed(genres, few_G)}: "
            f"too few to fit a threshold, so {DEFAULT_THRESHOLD} is kept."
        )
    never_G = np.array(calibration.thresholds_for(genres)) >= UNREACHABLE_THRESHOLD
    if never_G.any():
        yield f"No threshold does it for {_listed(genres, never_G)}: never told for their own probability."


def propagate_to_ancestors(
    values_TG: NDArray[Scalar], genres: Sequence[str], parents: Mapping[str, str]
) -> NDArray[Scalar]:
    """Raise each genre to the highest of its descendants: children imply parents. Shapes: (T, G) -> (T, G)."""
    closed_TG = values_TG.copy()
    for place, above in enumerate(ancestor_indices(genres, parents)):
        for ancestor in above:
            np.maximum(closed_TG[:, ancestor], values_TG[:, place], out=closed_TG[:, ancestor])
    return closed_TG


def ancestor_indices(genres: Sequence[str], parents: Mapping[str, str]) -> list[tuple[int, ...]]:
    """Give the places of each genre's ancestors among `genres`, the nearest first.

    An ancestor that is not among them is passed over; what lies above it counts.
    """
    place_of = {genre: place for place, genre in enumerate(genres)}
    found = []
    for genre in genres:
        line = [genre]
        while (parent := parents.get(line[-1])) is not None:
            assert parent not in line, f"the genre tree goes round at {parent}"
            line.append(parent)
        found.append(tuple(place_of[name] for name in line[1:] if name in place_of))
    return found


def _tree_of(genres: Sequence[str], parents: Mapping[str, str]) -> dict[str, str]:
    """Keep of a tree what lies between these genres."""
    lines = zip(genres, ancestor_indices(genres, parents), strict=True)
    return {genre: genres[above[0]] for genre, above in lines if above}


def _cool(probabilities: NDArray[np.float64], temperature: float, target: Target) -> NDArray[np.float64]:
    if temperature == 1.0:
        return probabilities
    match target:
        case "top":
            return np.asarray(
                softmax(np.log(probabilities.clip(PROBABILITY_EPSILON, 1)) / temperature, axis=1)
            )
        case "multi":
            return np.asarray(
                expit(logit(probabilities.clip(PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)) / temperature)
            )


def _fit_temperature(truth: NDArray[np.bool_], chance: NDArray[np.float64], target: Target) -> float:
    log_odds = (
        np.log(chance.clip(PROBABILITY_EPSILON, 1))
        if target == "top"
        else logit(chance.clip(PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
    )
    away = np.where(truth, -log_odds, log_odds)

    def loss(log_temperature: float) -> float:
        cold = np.exp(-log_temperature)
        if target == "top":
            return float(-log_softmax(cold * log_odds, axis=1)[truth].mean())
        return float(np.logaddexp(0.0, cold * away).mean())

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
    return 1.0 if found < 1.05 * MIN_TEMPERATURE else found


def _fit_thresholds(
    truth: NDArray[np.bool_],
    chance: NDArray[np.float64],
    above: Sequence[Sequence[int]],
    settings: CalibrationSettings,
) -> tuple[float, ...]:
    """Fit children before their parents: what a child is told for, its parents are told for too."""
    thresholds = [DEFAULT_THRESHOLD] * len(above)
    implied = np.zeros_like(truth)
    for place in sorted(range(len(above)), key=lambda place: -len(above[place])):
        if truth[:, place].sum() >= MIN_POSITIVES:
            shown_T = np.where(implied[:, place], np.inf, chance[:, place])
            thresholds[place] = _fit_threshold(truth[:, place], shown_T, settings)
        predicted_T = implied[:, place] | (chance[:, place] >= thresholds[place])
        for ancestor in above[place]:
            implied[:, ancestor] |= predicted_T
    return tuple(thresholds)


def _fit_threshold(
    has_T: NDArray[np.bool_], probability_T: NDArray[np.float64], settings: CalibrationSettings
) -> float:
    """Choose the cut; an infinite probability stands for a track that is told whatever the cut."""
    order = np.argsort(-probability_T, kind="stable")
    sorted_T = probability_T[order]
    last_C = np.flatnonzero(np.append(sorted_T[1:] != sorted_T[:-1], True))  # equals are told together
    right_C, predicted_C = np.cumsum(has_T[order])[last_C], last_C + 1
    match settings.goal:
        case "f1":
            cut = last_C[np.argmax(2 * right_C / (predicted_C + has_T.sum()))]
        case "precision":
            precise = last_C[right_C / predicted_C >= settings.precision]
            if not len(precise):
                return UNREACHABLE_THRESHOLD
            cut = precise[-1]
    above, below = sorted_T[cut], sorted_T[cut + 1] if cut + 1 < len(sorted_T) else 0.0
    if np.isinf(above):
        return UNREACHABLE_THRESHOLD
    middle = float(below + (above - below) / 2)
    return middle if middle > below else float(above)


def _listed(genres: Sequence[str], chosen_G: NDArray[np.bool_], most: int = 8) -> str:
    names = [genre for genre, chosen in zip(genres, chosen_G, strict=True) if chosen]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
