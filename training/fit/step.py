"""One step of gradient descent.

Axes: B crops, F frames, M mel bands, G genres.

The crops of a step go through the network in micro-batches. Each has its own seed (dropout,
augmentation) and its own batch-norm statistics, so a step is the same sum over micro-batches
however many processes share them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from training.fit.augment import augment
from training.fit.settings import TrainSettings
from training.loading.batches import Batch, to_db


@dataclass(frozen=True)
class Step:
    """The loss and the gradient norm of a step, still on the device."""

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
    class_weight_G: Tensor | None = None,
) -> Step:
    """Move the model one step down the loss, with one seed for each micro-batch of this rank.

    Shapes: batch.mel_BFM (B, F, M), as stored; batch.target_BG (B, G); class_weight_G (G,); all on the device.

    DDP averages over ranks, which may have unequal numbers of micro-batches: each has the weight
    `world_size` / micro-batches of all ranks, so that the result is the mean over micro-batches.

    Loss and gradient norm stay on the device: to read one is to wait for the GPU, so
    the loop does it only when it logs, and stops there if either is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    micro_batches = batch.micro_batches(settings.micro_batch_size)
    weight = world_size * settings.micro_batch_size / settings.batch_size
    losses: list[Tensor] = []
    for seed, micro_batch in zip(seeds, micro_batches, strict=True):
        torch.manual_seed(seed)
        with _all_reduce(model, last=len(losses) == len(micro_batches) - 1):
            loss = weight * _micro_batch_loss(model, micro_batch, settings, class_weight_G)
            torch.autograd.backward(loss)  # under DDP the last one also averages the gradients over all ranks
        losses.append(loss.detach())
    grad_norm = clip_grad_norm_(model.parameters(), settings.max_grad_norm)
    optimizer.step()
    return Step(torch.stack(losses).sum(), grad_norm)


def micro_batch_seeds(seed: int, step: int, micro_batches: range) -> list[int]:
    """Return the seed of each micro-batch of a step, computed without drawing those before it.

    So a run that is resumed needs no saved random state, on any number of processes.
    """
    return [
        int(np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint64)[0])
        for number in micro_batches
    ]


def class_weights(target_TG: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return a weight of each genre, inverse to its number of tracks; their mean over the tracks is 1.

    Shapes: (T, G), one genre a track, no genre without a track -> (G,).
    """
    tracks, genres = target_TG.shape
    weight_G: NDArray[np.float32] = np.float32(tracks / genres) / target_TG.sum(axis=0, dtype=np.float32)
    return weight_G


def genre_loss(
    logits_BG: Tensor, target_BG: Tensor, settings: TrainSettings, class_weight_G: Tensor | None = None
) -> Tensor:
    """Return the loss of logits against their targets, in nats; with the target multi class weights are ignored.

    A crop has the weight of its genre; one that mixup made has the mix of both.

    Source: softmax for one genre a track; one sigmoid a genre where tracks bear several
            (Defferrard et al., 2017); label smoothing (Szegedy et al., 2016).
    """
    match settings.target:
        case "top":
            loss_B = F.cross_entropy(
                logits_BG, target_BG, label_smoothing=settings.label_smoothing, reduction="none"
            )
            return (loss_B if class_weight_G is None else loss_B * (target_BG @ class_weight_G)).mean()
        case "multi":
            smooth_BG = target_BG.lerp(torch.full_like(target_BG, 0.5), settings.label_smoothing)
            return F.binary_cross_entropy_with_logits(logits_BG, smooth_BG)


def _micro_batch_loss(
    model: nn.Module, micro_batch: Batch, settings: TrainSettings, class_weight_G: Tensor | None
) -> Tensor:
    device = micro_batch.mel_BFM.device.type
    mel_BFM, target_BG = augment(to_db(micro_batch.mel_BFM), micro_batch.target_BG, settings.augment)
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logits_BG = model(mel_BFM)
    return genre_loss(logits_BG.float(), target_BG, settings, class_weight_G)


def _all_reduce(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Have DDP average the gradients over ranks after the last micro-batch only."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()
