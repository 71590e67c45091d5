"""From the scores of a machine to logits: one slope, and one offset for each genre.

Axes: T tracks, G genres.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from training.evaluation.calibration import Target
from training.evaluation.probabilities import expit, log_softmax

DEFAULT_SLOPE = 2.0  # logits for scores of -1 and 1
OFFSET_PENALTY = 0.02  # in nats a squared unit: keeps the offset of a rare genre near 0


@dataclass(frozen=True)
class ScoreCalibration:
    """The slope and the offsets."""

    slope: float
    offset_G: NDArray[np.float64]

    def apply(self, score_TG: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logits. Shapes: (T, G) -> (T, G)."""
        return np.asarray(self.slope * score_TG + self.offset_G)


def fit_score_calibration(
    score_TG: NDArray[np.float64], target_TG: NDArray[np.float64], target: Target
) -> ScoreCalibration:
    """Fit on the scores of tracks that the machine was not fitted on, by their log-loss.

    Source: Platt (1999); for several genres Guo et al. (2017), vector scaling with a common slope.
    """
    genres = score_TG.shape[1]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, offset_G = np.exp(parameters[0]), parameters[1:]
        logit_TG = slope * score_TG + offset_G
        if target == "top":
            log_probability_TG = log_softmax(logit_TG)
            probability_TG = np.exp(log_probability_TG)
            nats = -(target_TG * log_probability_TG).sum()
        else:
            probability_TG = expit(logit_TG)
            nats = np.logaddexp(0, np.where(target_TG > 0, -logit_TG, logit_TG)).sum()
        error_TG = (probability_TG - target_TG) / len(score_TG)
        penalty = OFFSET_PENALTY * (offset_G**2).sum()
        gradient = [
            slope * (error_TG * score_TG).sum(),
            *(error_TG.sum(axis=0) + 2 * OFFSET_PENALTY * offset_G),
        ]
        return float(nats / len(score_TG) + penalty), np.array(gradient)

    start = np.array([np.log(DEFAULT_SLOPE), *np.zeros(genres)])
    bounds = [(-3.0, 3.0), *[(-10.0, 10.0)] * genres]
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return ScoreCalibration(float(np.exp(found[0])), found[1:])
