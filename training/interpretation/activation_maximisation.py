"""Activation maximisation: the spectrogram with the greatest logit of a genre.

Axes: F frames, M mel bands.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.networks.devices import one_thread

STEPS = 120
STEP_DB = 2.0  # of the first step; later ones are smaller
PULL = 0.01  # in logits a squared dB, mean over the cells: how strongly the result is held at its start
SMOOTHNESS = 0.5  # the same, of the difference between the changes of adjacent cells
RANGE_DB = (-100.0, 40.0)  # no recording has other levels


def maximise_activation(
    model: nn.Module,
    genre: int,
    start_FM: NDArray[np.float32],
    *,
    steps: int = STEPS,
    pull: float = PULL,
    smoothness: float = SMOOTHNESS,
) -> NDArray[np.float32]:
    """Return the spectrogram near `start_FM` that has the greatest logit of a genre.

    Shapes: (F, M) dB -> (F, M) dB.
    Source: Erhan et al. (2009); the penalties as in Mahendran and Vedaldi (2016), steps of one root mean square as in
        DeepDream (Mordvintsev et al., 2015).

    Without the penalties the maximum is a texture that no music has. One thread computes it: a single crop is too small
    for more, which on a busy machine wait for each other (18 s of CPU for 1 s of work).
    """
    start = torch.from_numpy(start_FM).float()
    mel_FM = start.clone()
    with one_thread():
        for step in range(steps):
            ascent_FM = _objective_gradient(model, genre, mel_FM, start, pull, smoothness)
            step_db = STEP_DB * (1 - step / steps) / ascent_FM.square().mean().sqrt().clamp_min(1e-12)
            mel_FM = (mel_FM + step_db * ascent_FM).clamp(*RANGE_DB)
    return np.asarray(mel_FM.numpy())


@torch.enable_grad()
def _objective_gradient(
    model: nn.Module, genre: int, mel_FM: Tensor, start_FM: Tensor, pull: float, smoothness: float
) -> Tensor:
    """Return the gradient of the logit less the penalties. Shapes: (F, M)."""
    mel_FM = mel_FM.detach().requires_grad_()
    change_FM = mel_FM - start_FM
    roughness = change_FM.diff(dim=0).square().mean() + change_FM.diff(dim=1).square().mean()
    penalty = pull * change_FM.square().mean() + smoothness * roughness
    (gradient_FM,) = torch.autograd.grad(model(mel_FM[None])[0, genre] - penalty, mel_FM)
    return gradient_FM
