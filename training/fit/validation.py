"""How well a network does on tracks it does not learn from.

Axes: T tracks, N crops of all of them, B crops at once, F frames, M mel bands, G genres.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from preprocessing.prefetch import prefetch
from store.errors import BadInput
from training.evaluation.metrics import Scores, score
from training.fit.crops import MelSlice, Tracks, evenly_spaced_crops, read_crops
from training.fit.distributed import RankContext, all_reduce_sum
from training.fit.settings import TrainSettings


def validate(
    model: nn.Module,
    mel_slice: MelSlice,
    tracks: Tracks,
    genres: Sequence[str],
    *,
    crop_frames: int,
    settings: TrainSettings,
    rank_context: RankContext,
    heartbeat: Callable[[], None] = lambda: None,
) -> Scores:
    """Score a network on whole tracks; each rank listens to its share, and all know the result.

    Raises: BadInput if a track gives no finite answer.
    """
    mine = np.arange(rank_context.rank, len(tracks.ids), rank_context.world_size)
    share = Tracks(tuple(tracks.ids[row] for row in mine), tracks.frames_T[mine], tracks.target_TG[mine])
    chance_TG = torch.zeros(tracks.target_TG.shape, dtype=torch.float64, device=rank_context.device)
    chance_TG[torch.from_numpy(mine)] = predict_tracks(
        model, mel_slice, share, crop_frames, settings, rank_context.device, heartbeat
    )
    heard_TG = all_reduce_sum(chance_TG, rank_context).cpu().numpy()
    for track_id, chance_G in zip(tracks.ids, heard_TG, strict=True):
        if not np.isfinite(chance_G).all():
            raise BadInput(f"validation track {track_id}: its spectrogram is not finite; build it again")
    return score(tracks.target_TG, heard_TG, genres, settings.target)


@torch.no_grad()
def predict_tracks(
    model: nn.Module,
    mel_slice: MelSlice,
    tracks: Tracks,
    crop_frames: int,
    settings: TrainSettings,
    device: torch.device,
    heartbeat: Callable[[], None] = lambda: None,
) -> Tensor:
    """Average the probabilities of each track's crops. Shapes: (T, G) float64.

    `heartbeat` is called after each group of crops.
    """
    model.eval()
    chance_TG = torch.zeros(tracks.target_TG.shape, dtype=torch.float64, device=device)
    crops = evenly_spaced_crops(tracks, crop_frames=crop_frames, count=settings.validation_crops)
    at_once = settings.micro_batch_size
    parts = [crops[first : first + at_once] for first in range(0, len(crops), at_once)]
    mels = prefetch(lambda part: read_crops(mel_slice, tracks, part, crop_frames), parts)
    for part, mel_BFM in zip(parts, mels, strict=True):
        logits_BG = model(torch.from_numpy(mel_BFM).to(device).float()).double()
        chance_BG = logits_BG.softmax(dim=1) if settings.target == "top" else logits_BG.sigmoid()
        chance_TG.index_add_(0, torch.from_numpy(part.track_N).to(device), chance_BG)
        heartbeat()
    return chance_TG / settings.validation_crops
