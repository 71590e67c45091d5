"""The part of a training that its steps change: the network, its DDP wrapper, and the optimizer."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW, Optimizer

from training.fit.distributed import RankContext
from training.fit.run import TrainingRun
from training.fit.settings import TrainSettings
from training.networks.network import GenreNet, build_model

BATCH_NORM_DECAY = 0.9  # of batch norm's running statistics, per step


@dataclass(frozen=True)
class TrainState:
    """A network, the same network wrapped for DDP (itself, for one process), and its optimizer."""

    model: GenreNet
    ddp_model: nn.Module
    optimizer: Optimizer


def make_train_state(run: TrainingRun, bands: int, rank_context: RankContext) -> TrainState:
    """Return a network with random weights, drawn from the run's seed, and its optimizer."""
    settings = run.settings
    torch.manual_seed(settings.seed)
    model = build_model(settings.model, len(run.genres), bands)
    # Convolutions are faster in this memory format, on CPUs too (by a fifth).
    model = model.to(rank_context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        model.compile()
    updates = settings.batch_size / settings.micro_batch_size / rank_context.world_size  # per step and rank
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1 - BATCH_NORM_DECAY ** (1 / updates)
    return TrainState(model, _wrap_ddp(model, rank_context), _make_optimizer(model, settings, rank_context))


def freeze_for_epoch(
    train_state: TrainState, epoch: int, settings: TrainSettings, rank_context: RankContext
) -> TrainState:
    """Freeze the trunk, or let it learn, as the settings ask for in this epoch."""
    frozen = epoch <= settings.pretrained.frozen_epochs
    if train_state.model.trunk_frozen == frozen:
        return train_state
    train_state.model.freeze_trunk(frozen)
    # DDP reads only once which weights have gradients.
    return replace(train_state, ddp_model=_wrap_ddp(train_state.model, rank_context))


def _make_optimizer(model: nn.Module, settings: TrainSettings, rank_context: RankContext) -> AdamW:
    """Source: no weight decay on biases and batch norm, as He et al. (2019)."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
    return AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=rank_context.device.type == "cuda",
    )


def _wrap_ddp(model: nn.Module, rank_context: RankContext) -> nn.Module:
    """Wrap a network so that all ranks average their gradients; buffers are averaged at checkpoints instead."""
    if rank_context.world_size == 1:
        return model
    devices = [rank_context.device] if rank_context.device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
