"""A trained network explained: what its wrong predictions rest on, and the maximum of each genre.

Axes: F frames, M mel bands, G genres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from store.reader import Snapshot
from training.inference.model_version import ModelIdentity, load_model
from training.interpretation.activation_maximisation import maximise_activation
from training.interpretation.saliency import choose_layer, grad_cam
from training.loading.crops import evenly_spaced_crops, repeat_to_length
from training.networks.network import GenreNet

LEVEL_TRACKS = 64  # of which the mean level of each band is taken
START_NOISE_DB = 3.0  # a start that is constant in time stays so


@dataclass(frozen=True)
class Explanation:
    """The crop of a track with the greatest probability of the predicted genre, and what two logits rest on there."""

    mel_FM: NDArray[np.float32]
    predicted_saliency_FM: NDArray[np.float32]
    truth_saliency_FM: NDArray[np.float32]


class NetworkExplainer:
    """A network of a training run or a model version, and the spectrograms to explain it on."""

    def __init__(self, folder_url: str, identity: ModelIdentity, snapshot: Snapshot) -> None:
        network = load_model(folder_url, identity)
        assert isinstance(network, GenreNet)
        self.network, self.identity, self.snapshot = network, identity, snapshot

    def explain(self, track_id: str, truth: int, predicted: int) -> Explanation:
        """Explain a prediction by Grad-CAM on the crop with the greatest probability of the predicted genre."""
        crops = self._crops(track_id)
        with torch.inference_mode():
            probability_BG = self.network(torch.from_numpy(np.stack(crops))).softmax(dim=1)
        mel_FM = crops[int(probability_BG[:, predicted].argmax())]
        layer = choose_layer(self.network.trunk, self.network, mel_FM)
        saliencies = [grad_cam(self.network, layer, mel_FM, genre) for genre in (predicted, truth)]
        return Explanation(mel_FM, *saliencies)

    def maximum(self, genre: int, start_FM: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the spectrogram near a start that has the greatest logit of a genre. Shapes: (F, M)."""
        return maximise_activation(self.network, genre, start_FM)

    def mean_level(self, track_ids: Sequence[str], seed: int) -> NDArray[np.float32]:
        """Return noise at the mean level of each band of some tracks. Shapes: (F, M) dB."""
        means = [
            np.mean([crop_FM.mean(axis=0) for crop_FM in self._crops(track_id)], axis=0)
            for track_id in track_ids[:: max(1, len(track_ids) // LEVEL_TRACKS)][:LEVEL_TRACKS]
        ]
        shape = (self.identity.crop_frames, self.identity.mel.bands)
        noise_FM = np.random.default_rng(seed).normal(0, START_NOISE_DB, shape)
        return np.asarray(np.mean(means, axis=0) + noise_FM, np.float32)

    def _crops(self, track_id: str) -> list[NDArray[np.float32]]:
        frames, crop_frames = self.snapshot.frames(track_id), self.identity.crop_frames
        starts_N = evenly_spaced_crops(
            np.array([frames]), crop_frames=crop_frames, count=self.identity.training.validation_crops
        ).start_N
        return [
            repeat_to_length(
                self.snapshot.mel_slice(track_id, int(start), min(crop_frames, frames)), crop_frames
            ).astype(np.float32)
            for start in starts_N
        ]
