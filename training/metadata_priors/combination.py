"""Predictions of sound combined with what is known of a track beside its sound, by one weight for each source.

Axes: T tracks, G genres, K sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from training.evaluation.probabilities import log_softmax, softmax

WEIGHT_PENALTY = 0.01  # in nats a squared weight: a source that adds nothing gets none
MAX_WEIGHT = 5.0


@dataclass(frozen=True)
class SourceWeights:
    """The weight of the sound's own log-probabilities, and that of each other source."""

    own: float
    source_K: NDArray[np.float64]

    def combine(
        self, log_probability_TG: NDArray[np.float64], sources: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return the probabilities of all together. Shapes: (T, G), K of (T, G) -> (T, G)."""
        return softmax(_weighted(np.array([self.own, *self.source_K]), log_probability_TG, sources))


def fit_source_weights(
    log_probability_TG: NDArray[np.float64],
    sources: Sequence[NDArray[np.float64]],
    truth_T: NDArray[np.int64],
) -> SourceWeights:
    """Fit the weights, none below 0, on tracks that neither the model nor the sources were fitted on.

    Source: a logarithmic opinion pool (Genest and Zidek, 1986), fitted by its log-loss.
    """
    rows = np.arange(len(truth_T))
    terms_KTG = np.stack([log_probability_TG, *sources])
    prior_K = np.array([1.0, *np.zeros(len(sources))])

    def loss(weight_K: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_TG = log_softmax(_weighted(weight_K, log_probability_TG, sources))
        error_TG = np.exp(log_TG)
        error_TG[rows, truth_T] -= 1
        penalty = WEIGHT_PENALTY * ((weight_K - prior_K) ** 2).sum()
        gradient_K = np.einsum("ktg,tg->k", terms_KTG, error_TG) / len(rows)
        return (
            float(-log_TG[rows, truth_T].mean() + penalty),
            gradient_K + 2 * WEIGHT_PENALTY * (weight_K - prior_K),
        )

    bounds = [(0.0, MAX_WEIGHT)] * len(prior_K)
    found_K = scipy.optimize.minimize(loss, prior_K, jac=True, method="L-BFGS-B", bounds=bounds).x
    return SourceWeights(float(found_K[0]), np.asarray(found_K[1:]))


def _weighted(
    weight_K: NDArray[np.float64],
    log_probability_TG: NDArray[np.float64],
    sources: Sequence[NDArray[np.float64]],
) -> NDArray[np.float64]:
    terms = [weight_K[0] * log_probability_TG]
    terms += [weight * each_TG for weight, each_TG in zip(weight_K[1:], sources, strict=True)]
    return np.asarray(sum(terms))
