"""Probabilities, logits and softmax in numpy: scipy.special would cost a fifth of a second of import."""

import numpy as np
from numpy.typing import NDArray

PROBABILITY_EPSILON = 1e-7  # a probability of 0 would make the log-loss infinite


def expit(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logistic function 1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))


def logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of probabilities within (0, 1)."""
    return np.asarray(np.log(probabilities) - np.log1p(-probabilities))


def log_softmax(logits_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the softmax of each row. Shapes: (T, G) -> (T, G)."""
    shifted_TG = logits_TG - logits_TG.max(axis=1, keepdims=True)
    return np.asarray(shifted_TG - np.log(np.exp(shifted_TG).sum(axis=1, keepdims=True)))


def softmax(logits_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax of each row. Shapes: (T, G) -> (T, G)."""
    return np.asarray(np.exp(log_softmax(logits_TG)))


def clip_probabilities(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep probabilities so far from 0 and 1 that their log-odds are finite."""
    return np.asarray(probabilities.clip(PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
