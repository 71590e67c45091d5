"""The members of a model, opened for inference: what each computes for a crop, and what follows for a track.

Axes: B crops, T tracks, D values of a crop, F frames, M mel bands, G genres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.features.crop_features import CROP_S, count_crops
from training.evaluation.calibration import Target
from training.evaluation.probabilities import PROBABILITY_EPSILON, clip_probabilities, expit, logit, softmax
from training.feature_machine.version_file import load_feature_machine
from training.inference.backends import CropPredictor
from training.inference.model_version import ModelIdentity


@dataclass(frozen=True)
class OpenMember:
    """A member: the mean over a track's crops of what `describe_crops` returns is what `predict` takes.

    `describe_crops` returns probabilities of a network, and features of a feature machine.
    """

    crop_frames: int
    count_crops: Callable[[int], int]  # of a window, by its frames
    describe_crops: CropPredictor
    predict: Callable[[NDArray[np.float64]], NDArray[np.float64]]


def open_feature_member(version_url: str, identity: ModelIdentity) -> OpenMember:
    """Open the feature machine of a model version. Raises: BadInput if its file cannot be used."""
    features = load_feature_machine(version_url, identity.mel, len(identity.genres))
    crop_frames = identity.mel.count_frames(CROP_S)

    def describe_crops(mels: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        return np.stack([features.describe_crop(mel_FM, identity.mel) for mel_FM in mels]).astype(np.float64)

    def predict(mean_TD: NDArray[np.float64]) -> NDArray[np.float64]:
        return features.predict(mean_TD.astype(np.float32), identity.training.target)

    return OpenMember(crop_frames, lambda frames: count_crops(frames, crop_frames), describe_crops, predict)


def combine_members(
    probabilities: Sequence[NDArray[np.float64]], weights: Sequence[float], target: Target
) -> NDArray[np.float64]:
    """Return the decision of several members: the weighted mean of their log-probabilities or log-odds.

    Shapes: each (T, G) -> (T, G).
    Source: logarithmic opinion pools (Genest and Zidek, 1986).
    """
    if len(probabilities) == 1:
        return probabilities[0]
    match target:
        case "top":
            logs = [np.log(each.clip(PROBABILITY_EPSILON, 1)) for each in probabilities]
            return softmax(_weighted_sum(logs, weights))
        case "multi":
            logs = [logit(clip_probabilities(each)) for each in probabilities]
            return expit(_weighted_sum(logs, weights))


def _weighted_sum(values: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(sum(weight * each_TG for weight, each_TG in zip(weights, values, strict=True)))
