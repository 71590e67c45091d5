"""The choice between kinds of models, by what each predicted for tracks of artists that it was not trained on.

Axes: T tracks, G genres, A artists.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from training.evaluation.calibration import Target
from training.evaluation.probabilities import PROBABILITY_EPSILON
from training.inference.members import combine_members

Probabilities = NDArray[np.float64]  # (T, G)


class CandidateScore(BaseModel, frozen=True):
    """The scores of one candidate over the tracks that all candidates predicted."""

    name: str
    accuracy: float = Field(description="Share of tracks whose genres are all correct")
    log_loss: float = Field(description="In nats a track")
    behind: float = Field(description="Difference of its loss to that of the best candidate")
    standard_error: float = Field(description="Of that difference, by artist")
    is_candidate: bool = Field(True, description="False for the baseline, which is only compared with")


class ModelChoice(BaseModel, frozen=True):
    """The model that was chosen, and the table by which it was."""

    name: str
    network_share: float
    reason: str
    tracks: int = Field(description="Predicted by all candidates; none of them is a test track")
    folds: int
    scores: tuple[CandidateScore, ...]


def choose(
    predictions: Mapping[str, Probabilities],
    baseline: Probabilities | None,
    truth_TG: NDArray[np.float64],
    artist_T: NDArray[np.int64],
    target: Target,
    *,
    folds: int,
    network_share: float,
) -> ModelChoice:
    """Choose the first candidate that is not worse than the best by more than a standard error.

    The candidates come in order of what they cost in tagging. The loss is the share of wrong tracks
    where tracks have one genre, else the log-loss.

    Source: the one-standard-error rule of Breiman et al., Classification and Regression Trees (1984).
    """
    losses = {name: track_losses(each_TG, truth_TG, target) for name, each_TG in predictions.items()}
    best = min(losses, key=lambda name: losses[name].mean())
    scores = [
        _score(name, predictions[name], losses[name] - losses[best], truth_TG, artist_T, target)
        for name in predictions
    ]
    chosen = next(each for each in scores if each.behind <= each.standard_error)
    if baseline is not None:
        behind_T = track_losses(baseline, truth_TG, target) - losses[best]
        svm = _score("svm", baseline, behind_T, truth_TG, artist_T, target)
        scores.append(svm.model_copy(update={"is_candidate": False}))
    return ModelChoice(
        name=chosen.name,
        network_share=network_share,
        reason=_explain(chosen, best, target),
        tracks=len(truth_TG),
        folds=folds,
        scores=tuple(scores),
    )


def track_losses(
    probability_TG: Probabilities, truth_TG: NDArray[np.float64], target: Target
) -> NDArray[np.float64]:
    """Return the loss of each track. Shapes: (T, G), (T, G) -> (T,)."""
    if target == "top":
        return np.asarray(probability_TG.argmax(axis=1) != truth_TG.argmax(axis=1), np.float64)
    return log_losses(probability_TG, truth_TG, target)


def log_losses(
    probability_TG: Probabilities, truth_TG: NDArray[np.float64], target: Target
) -> NDArray[np.float64]:
    """Return the log-loss of each track, over its genres. Shapes: (T, G), (T, G) -> (T,)."""
    clipped_TG = probability_TG.clip(PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    nats_TG = -truth_TG * np.log(clipped_TG)
    if target == "multi":
        nats_TG -= (1 - truth_TG) * np.log1p(-clipped_TG)
    return np.asarray(nats_TG.sum(axis=1))


def fit_network_share(
    network_TG: Probabilities, features_TG: Probabilities, truth_TG: NDArray[np.float64], target: Target
) -> float:
    """Return the share of the network in the average with least log-loss, from tracks that neither was fitted on."""

    def loss(share: float) -> float:
        pooled_TG = combine_members([network_TG, features_TG], [share, 1 - share], target)
        return float(log_losses(pooled_TG, truth_TG, target).mean())

    return round(float(scipy.optimize.minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x), 2)


def _score(
    name: str,
    probability_TG: Probabilities,
    behind_T: NDArray[np.float64],
    truth_TG: NDArray[np.float64],
    artist_T: NDArray[np.int64],
    target: Target,
) -> CandidateScore:
    if target == "top":
        is_correct_T = probability_TG.argmax(axis=1) == truth_TG.argmax(axis=1)
    else:
        is_correct_T = ((probability_TG >= 0.5) == (truth_TG > 0)).all(axis=1)
    return CandidateScore(
        name=name,
        accuracy=float(is_correct_T.mean()),
        log_loss=float(log_losses(probability_TG, truth_TG, target).mean()),
        behind=float(behind_T.mean()),
        standard_error=_standard_error(behind_T, artist_T),
    )


def _standard_error(values_T: NDArray[np.float64], artist_T: NDArray[np.int64]) -> float:
    """Return the standard error of a mean over tracks, of which those of an artist depend on each other."""
    _, artist_index_T = np.unique(artist_T, return_inverse=True)
    sums_A = np.bincount(artist_index_T, weights=values_T - values_T.mean())
    artists = len(sums_A)
    if artists < 2:
        return 0.0
    return float(np.sqrt((sums_A**2).sum() * artists / (artists - 1)) / len(values_T))


def _explain(chosen: CandidateScore, best: str, target: Target) -> str:
    loss = "wrong tracks" if target == "top" else "log-loss"
    if chosen.name == best:
        return (
            f"{chosen.name} has the fewest wrong tracks"
            if target == "top"
            else f"{best} has the least {loss}"
        )
    return (
        f"{best} is better by {chosen.behind:.3f} in {loss}, which is within one standard error "
        f"({chosen.standard_error:.3f}); {chosen.name} costs less"
    )


def only_candidate(
    name: str, reason: str, share: float = 0.5, scores: Sequence[CandidateScore] = ()
) -> ModelChoice:
    """Return the choice of a model without a comparison, and why there was none."""
    return ModelChoice(name=name, network_share=share, reason=reason, tracks=0, folds=0, scores=tuple(scores))
