"""One step down the loss.

Axes: B crops, F frames, M mel bands, G genres.

The crops of a step go through the network in groups of `micro_batch_size`. A group is the unit of
all that is random or a statistic: it has its own seed (dropout, augmentation) and its own batch
norm. So a step is the same sum of groups however many processes share them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from training.fit.augment import augment
from training.fit.settings import TrainSettings


@dataclass(frozen=True)
class Batch:
    """Crops (B, F, M) in dB and how much of each genre they have (B, G)."""

    mel_BFM: Tensor
    target_BG: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Send it to a device, without waiting for it to get there."""
        return Batch(*(part.to(device, non_blocking=True) for part in (self.mel_BFM, self.target_BG)))

    def groups(self, size: int) -> list["Batch"]:
        """Cut it into groups of `size` crops."""
        parts = zip(torch.split(self.mel_BFM, size), torch.split(self.target_BG, size), strict=True)
        return [Batch(*part) for part in parts]


@dataclass(frozen=True)
class Step:
    """What a step measured, still on the device."""

    loss: Tensor
    grad_norm: Tensor


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    settings: TrainSettings,
    *,
    seeds: Sequence[int],
    world_size: int = 1,
) -> Step:
    """Move the model one step down the loss, by one seed for each group of the batch.

    Shapes: batch.mel_BFM (B, F, M); batch.target_BG (B, G); both on the device: this rank's groups.

    DDP takes the mean over ranks, which may have unequal numbers of groups: so a group weighs
    `world_size` over the groups of all ranks, and what comes out is the mean over groups.

    Loss and gradient norm stay on the device: to read one is to wait for the GPU, so
    the loop does it only when it logs, and stops there if either is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    groups = batch.groups(settings.micro_batch_size)
    weight = world_size * settings.micro_batch_size / settings.batch_size
    losses: list[Tensor] = []
    for seed, group in zip(seeds, groups, strict=True):
        torch.manual_seed(seed)
        with _exchange(model, last=len(losses) == len(groups) - 1):
            loss = weight * _group_loss(model, group, settings)
            torch.autograd.backward(loss)  # under DDP the last one also averages the gradients over all ranks
        losses.append(loss.detach())
    grad_norm = clip_grad_norm_(model.parameters(), settings.max_grad_norm)
    optimizer.step()
    return Step(torch.stack(losses).sum(), grad_norm)


def micro_batch_seeds(seed: int, step: int, groups: range) -> list[int]:
    """Give each group of a step its own random numbers, known without drawing those before it.

    A run that is resumed needs no saved random state, on as many processes as it likes.
    """
    return [
        int(np.random.SeedSequence([seed, step, group]).generate_state(1, np.uint64)[0]) for group in groups
    ]


def genre_loss(logits_BG: Tensor, target_BG: Tensor, settings: TrainSettings) -> Tensor:
    """Measure how far logits are from the truth, in nats.

    Source: softmax for one genre a track; one sigmoid a genre where tracks bear several
            (Defferrard et al., 2017); label smoothing (Szegedy et al., 2016).
    """
    match settings.target:
        case "top":
            return F.cross_entropy(logits_BG, target_BG, label_smoothing=settings.label_smoothing)
        case "multi":
            smooth_BG = target_BG.lerp(torch.full_like(target_BG, 0.5), settings.label_smoothing)
            return F.binary_cross_entropy_with_logits(logits_BG, smooth_BG)


def _group_loss(model: nn.Module, group: Batch, settings: TrainSettings) -> Tensor:
    device = group.mel_BFM.device.type
    mel_BFM, target_BG = augment(group.mel_BFM.float(), group.target_BG, settings.augment)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logits_BG = model(mel_BFM)
    return genre_loss(logits_BG.float(), target_BG, settings)


def _exchange(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Let the gradients travel between ranks after the last group only."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
