"""The quality of given labels, by the probabilities of models that were not fitted on the track or its artist.

Axes: T tracks, G genres.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelQuality:
    """The label of each track, compared with a model's probabilities.

    `quality_T` is the probability of the given label, as a multiple of what is usual for that genre.
    """

    given_T: NDArray[np.int64]
    suggested_T: NDArray[np.int64]  # the likeliest of the other genres
    given_probability_T: NDArray[np.float64]
    suggested_probability_T: NDArray[np.float64]
    quality_T: NDArray[np.float64]
    is_confident_T: NDArray[np.bool_]  # another genre is predicted, as surely as usual on tracks that have it

    def conflicts(self) -> NDArray[np.bool_]:
        """Return for each track whether another genre is more probable than the given one. Shapes: (T,)."""
        return self.suggested_probability_T > self.given_probability_T

    def ranked(self) -> NDArray[np.int64]:
        """Return all tracks, the worst label first. Shapes: (T,)."""
        return np.argsort(self.quality_T, kind="stable")


def assess_labels(probability_TG: NDArray[np.float64], given_T: NDArray[np.int64]) -> LabelQuality:
    """Compare given labels with probabilities across folds.

    Source: confident learning (Northcutt, Jiang and Chuang, 2021): self-confidence, and the mean of it for each
        class as its threshold; relative to that mean as in Kuan and Mueller (2022).

    A model is less sure of some genres than of others: by self-confidence alone these would fill the top of the list.
    """
    rows = np.arange(len(given_T))
    threshold_G = mean_self_confidence(probability_TG, given_T)
    given_probability_T = probability_TG[rows, given_T]
    others_TG = probability_TG.copy()
    others_TG[rows, given_T] = -np.inf
    suggested_T = others_TG.argmax(axis=1)
    suggested_probability_T = others_TG[rows, suggested_T]
    return LabelQuality(
        given_T=given_T,
        suggested_T=suggested_T,
        given_probability_T=given_probability_T,
        suggested_probability_T=suggested_probability_T,
        quality_T=given_probability_T / np.maximum(threshold_G[given_T], np.finfo(np.float64).tiny),
        is_confident_T=(suggested_probability_T > given_probability_T)
        & (suggested_probability_T >= threshold_G[suggested_T]),
    )


def mean_self_confidence(
    probability_TG: NDArray[np.float64], given_T: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the mean probability of each genre on the tracks that have it; of a genre without any, on all tracks.

    Shapes: (T, G), (T,) -> (G,).
    """
    has_TG = given_T[:, None] == np.arange(probability_TG.shape[1])
    tracks_G = has_TG.sum(axis=0)
    own_G = np.where(has_TG, probability_TG, 0.0).sum(axis=0) / np.maximum(tracks_G, 1)
    return np.asarray(np.where(tracks_G > 0, own_G, probability_TG.mean(axis=0)))
