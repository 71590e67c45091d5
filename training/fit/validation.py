"""The scores of a network on the validation tracks.

Axes: T tracks, N crops of all of them, B crops of a micro-batch, F frames, M mel bands, G genres.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from store.errors import BadInput, TrainingStopped
from training.evaluation.metrics import Scores, score
from training.fit.distributed import RankContext, all_reduce_sum
from training.fit.settings import TrainSettings
from training.loading.batches import BatchMemory, CropSource, read_ahead, read_crops, to_db
from training.loading.crops import Crops, Tracks, evenly_spaced_crops


def validate(
    model: nn.Module,
    source: CropSource,
    tracks: Tracks,
    genres: Sequence[str],
    *,
    crop_frames: int,
    settings: TrainSettings,
    rank_context: RankContext,
    heartbeat: Callable[[], None] = lambda: None,
) -> Scores:
    """Score a network on whole tracks: each rank predicts its share, and all return the same scores.

    Raises: BadInput if a spectrogram is not finite; TrainingStopped if the network's output for a finite one is not.
    """
    mine = np.arange(rank_context.rank, len(tracks), rank_context.world_size)
    share = Tracks((), tracks.locations.take(mine), tracks.target_TG[mine])
    probability_TG = torch.zeros(tracks.target_TG.shape, dtype=torch.float64, device=rank_context.device)
    probability_TG[torch.from_numpy(mine)] = predict_tracks(
        model, source, share, crop_frames, settings, rank_context.device, heartbeat
    )
    all_TG = all_reduce_sum(probability_TG, rank_context).cpu().numpy()
    for row in np.flatnonzero(~np.isfinite(all_TG).all(axis=1)):
        _raise_not_finite(source, tracks, int(row))
    return score(tracks.target_TG.astype(np.float32), all_TG, genres, settings.target, ranked=False)


@torch.no_grad()
def predict_tracks(
    model: nn.Module,
    source: CropSource,
    tracks: Tracks,
    crop_frames: int,
    settings: TrainSettings,
    device: torch.device,
    heartbeat: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return the mean probabilities of each track's crops.

    Shapes: (T, G) float64.

    `heartbeat` is called after each micro-batch.
    """
    model.eval()
    probability_TG = torch.zeros(tracks.target_TG.shape, dtype=torch.float64, device=device)
    crops = evenly_spaced_crops(
        tracks.locations.frames_T, crop_frames=crop_frames, count=settings.validation_crops
    )
    size = settings.micro_batch_size
    micro_batches = [crops[first : first + size] for first in range(0, len(crops), size)]
    memory = BatchMemory(pinned=device.type == "cuda")
    mels = read_ahead(
        lambda it: read_crops(source, tracks, it, crop_frames, memory),
        micro_batches,
        threads=settings.loader_threads,
    )
    for micro_batch, mel_BFM in zip(micro_batches, mels, strict=True):
        logits_BG = model(to_db(mel_BFM.to(device, non_blocking=True))).double()
        probability_BG = logits_BG.softmax(dim=1) if settings.target == "top" else logits_BG.sigmoid()
        probability_TG.index_add_(0, torch.from_numpy(micro_batch.track_N).to(device), probability_BG)
        heartbeat()
    return probability_TG / settings.validation_crops


def _raise_not_finite(source: CropSource, tracks: Tracks, row: int) -> NoReturn:
    """Raise the error of a track whose probabilities are not finite."""
    track_id, whole = tracks.ids[row], Crops(np.array([row], np.int32), np.array([0], np.int32))
    if not read_crops(source, tracks, whole, int(tracks.locations.frames_T[row])).isfinite().all():
        raise BadInput(f"validation track {track_id}: its spectrogram is not finite; build it again")
    raise TrainingStopped(
        f"validation track {track_id}: the network's output is not finite; the training has diverged, and no "
        "weights since the last checkpoint are kept; lower learning_rate"
    )
