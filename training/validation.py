"""How well a network does on tracks it does not learn from.

Axes: T tracks, N crops of all of them, B crops at once, F frames, M mel bands, G genres.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.crops import MelSlice, Tracks, even_crops, one_ahead, read_crops
from training.ranks import Seat, sum_over_ranks
from training.run import TrainSettings


@dataclass(frozen=True)
class Validation:
    """Scores of whole tracks: log-loss in nats, the others from 0 to 1."""

    loss: float
    accuracy: float
    macro_f1: float


def validate(
    model: nn.Module,
    mel_slice: MelSlice,
    tracks: Tracks,
    *,
    crop_frames: int,
    settings: TrainSettings,
    seat: Seat,
) -> Validation:
    """Score a network on whole tracks; each rank listens to its share, and all know the result."""
    mine = np.arange(seat.rank, len(tracks.ids), seat.world_size)
    share = Tracks(tuple(tracks.ids[row] for row in mine), tracks.frames_T[mine], tracks.target_TG[mine])
    chance_TG = torch.zeros(tracks.target_TG.shape, dtype=torch.float64, device=seat.device)
    chance_TG[torch.from_numpy(mine)] = _hear(model, mel_slice, share, crop_frames, settings, seat.device)
    return score(sum_over_ranks(chance_TG, seat).cpu().numpy(), tracks.target_TG, settings.target)


@torch.inference_mode()
def _hear(
    model: nn.Module,
    mel_slice: MelSlice,
    tracks: Tracks,
    crop_frames: int,
    settings: TrainSettings,
    device: torch.device,
) -> torch.Tensor:
    """Average the probabilities of a track's crops. Shapes: (T, G) float64."""
    model.eval()
    chance_TG = torch.zeros(tracks.target_TG.shape, dtype=torch.float64, device=device)
    crops = even_crops(tracks, crop_frames=crop_frames, count=settings.validation_crops)
    parts = [
        crops[first : first + 2 * settings.crops_at_once]
        for first in range(0, len(crops), 2 * settings.crops_at_once)
    ]
    mels = one_ahead(lambda part: read_crops(mel_slice, tracks, part, crop_frames), parts)
    for part, mel_BFM in zip(parts, mels, strict=True):
        logits_BG = model(torch.from_numpy(mel_BFM).to(device).float()).double()
        chance_BG = logits_BG.softmax(dim=1) if settings.target == "top" else logits_BG.sigmoid()
        chance_TG.index_add_(0, torch.from_numpy(part.track_N).to(device), chance_BG)
    return chance_TG / settings.validation_crops


def score(chance_TG: NDArray[np.float64], target_TG: NDArray[np.float32], target: str) -> Validation:
    """Compare probabilities of tracks with the truth.

    Accuracy is the share of tracks whose genres are all told right; macro F1 the mean over
    the genres that occur. A multi-label genre counts as told from a probability of 0.5.
    """
    truth_TG = target_TG > 0.5
    sure_TG = chance_TG.clip(1e-7, 1 - 1e-7)
    if target == "top":
        told_TG = chance_TG == chance_TG.max(axis=1, keepdims=True)
        loss = -np.log(sure_TG)[truth_TG].mean()
    else:
        told_TG = chance_TG >= 0.5
        loss = -np.where(truth_TG, np.log(sure_TG), np.log(1 - sure_TG)).mean()
    right_G = (told_TG & truth_TG).sum(axis=0)
    f1_G = 2 * right_G / np.maximum(told_TG.sum(axis=0) + truth_TG.sum(axis=0), 1)
    occurs_G = truth_TG.any(axis=0)
    return Validation(
        loss=float(loss),
        accuracy=float((told_TG == truth_TG).all(axis=1).mean()),
        macro_f1=float(f1_G[occurs_G].mean()) if occurs_G.any() else 0.0,
    )
