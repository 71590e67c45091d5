"""From a network's probabilities to assigned genres: temperature, genre tree and thresholds.

Axes: T tracks, G genres.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, Field

from store.dataset.genre_tree import ancestor_indices
from training.evaluation.probabilities import PROBABILITY_EPSILON, clip_probabilities, expit, logit, softmax

Target = Literal["top", "multi"]
Scalar = TypeVar("Scalar", bound=np.generic)
DEFAULT_THRESHOLD = 0.5  # of a genre for which none was fitted
UNREACHABLE_THRESHOLD = 2.0  # no probability reaches it; JSON has no infinity


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """Temperature, thresholds and genre tree of one model, fitted on validation tracks only."""

    temperature: float = Field(1.0, gt=0.0, description="Divides the logits: above 1 lowers the confidence")
    thresholds: tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...] = Field(
        (), description="Lowest probability at which each genre is assigned; empty: 0.5 each; above 1: never"
    )
    parents: dict[str, str] = Field({}, description="Parent of each genre that has one")

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # the tree is a dict, which has no hash of its own

    def calibrate(
        self, probabilities_TG: ArrayLike, genres: Sequence[str], target: Target
    ) -> NDArray[np.float64]:
        """Return the calibrated probabilities. Shapes: (T, G) -> (T, G).

        Source: temperature scaling (Guo et al., 2017), here of probabilities averaged over crops.

        With several genres a track, a parent is at least as probable as its children. With one,
        the probabilities sum to 1 and the tree is not used.
        """
        scaled_TG = _scale_temperature(np.asarray(probabilities_TG, np.float64), self.temperature, target)
        return scaled_TG if target == "top" else propagate_to_ancestors(scaled_TG, genres, self.parents)

    def assign_genres(
        self, calibrated_TG: ArrayLike, genres: Sequence[str], target: Target
    ) -> NDArray[np.bool_]:
        """Return which genres are assigned to each track. Shapes: (T, G) -> (T, G).

        The likeliest one where tracks have one genre, else all that reach their thresholds and
        the ancestors of each of them.
        """
        probability_TG = np.asarray(calibrated_TG)
        match target:
            case "top":
                likeliest_T = probability_TG.argmax(axis=1)
                return np.asarray(likeliest_T[:, None] == np.arange(probability_TG.shape[1]))
            case "multi":
                assigned_TG = probability_TG >= np.array(self.thresholds_for(genres))
                return propagate_to_ancestors(assigned_TG, genres, self.parents)

    def thresholds_for(self, genres: Sequence[str]) -> tuple[float, ...]:
        """Return one threshold for each genre."""
        assert len(self.thresholds) in (0, len(genres)), "a threshold for each genre, or none"
        return self.thresholds or (DEFAULT_THRESHOLD,) * len(genres)


def propagate_to_ancestors(
    values_TG: NDArray[Scalar], genres: Sequence[str], parents: Mapping[str, str]
) -> NDArray[Scalar]:
    """Raise each genre to the highest of its descendants: children imply parents. Shapes: (T, G) -> (T, G)."""
    raised_TG = values_TG.copy()
    for genre, above in enumerate(ancestor_indices(genres, parents)):
        for ancestor in above:
            np.maximum(raised_TG[:, ancestor], values_TG[:, genre], out=raised_TG[:, ancestor])
    return raised_TG


def _scale_temperature(
    probability_TG: NDArray[np.float64], temperature: float, target: Target
) -> NDArray[np.float64]:
    if temperature == 1.0:
        return probability_TG
    match target:
        case "top":
            return softmax(np.log(probability_TG.clip(PROBABILITY_EPSILON, 1)) / temperature)
        case "multi":
            return expit(logit(clip_probabilities(probability_TG)) / temperature)
