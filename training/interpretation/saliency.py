"""Grad-CAM: which parts of a spectrogram a network's logit of a genre rests on.

Axes: F frames, M mel bands, C channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

MIN_CELLS = 8  # a map of fewer frames or bands shows little of where


def grad_cam(
    model: nn.Module, layer: nn.Module, mel_FM: NDArray[np.float32], genre: int
) -> NDArray[np.float32]:
    """Return how much each cell of a spectrogram raises the logit of a genre, from 0 to 1 for the most.

    Shapes: (F, M) dB -> (F, M); all 0 where nothing raises it.
    Source: Selvaraju et al., "Grad-CAM" (2017): the maps of a layer, weighted by the mean gradient of each.
    """
    (maps_1CFM,), logits_1G = _run(model, [layer], mel_FM)
    (gradient_1CFM,) = torch.autograd.grad(logits_1G[0, genre], maps_1CFM)
    weight_C = gradient_1CFM[0].mean((1, 2))
    summed_FM = F.relu(torch.einsum("c,cfm->fm", weight_C, maps_1CFM[0].detach()))
    full_FM = F.interpolate(summed_FM[None, None], size=mel_FM.shape, mode="bilinear", align_corners=False)[
        0, 0
    ]
    most = full_FM.max()
    return np.asarray((full_FM / most if most > 0 else full_FM).numpy(), np.float32)


def choose_layer(trunk: nn.Module, model: nn.Module, mel_FM: NDArray[np.float32]) -> nn.Module:
    """Return the last layer of a trunk whose maps have MIN_CELLS frames and bands; the first where none has."""
    layers = list(trunk.children())
    while len(layers) == 1 and list(layers[0].children()):  # a trunk in one piece: its parts
        layers = list(layers[0].children())
    maps, _ = _run(model, layers, mel_FM)
    fine = [layer for layer, found in zip(layers, maps, strict=True) if min(found.shape[2:]) >= MIN_CELLS]
    return fine[-1] if fine else layers[0]


def _run(
    model: nn.Module, layers: Sequence[nn.Module], mel_FM: NDArray[np.float32]
) -> tuple[list[Tensor], Tensor]:
    """Return the maps that layers put out for a spectrogram, and the logits."""
    maps: dict[int, Tensor] = {}

    def record(number: int) -> torch.utils.hooks.RemovableHandle:
        return layers[number].register_forward_hook(lambda _module, _inputs, out: maps.update({number: out}))

    handles = [record(number) for number in range(len(layers))]
    try:
        with torch.enable_grad():
            logits_1G = model(torch.from_numpy(mel_FM)[None].float().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return [maps[number] for number in range(len(layers))], logits_1G
