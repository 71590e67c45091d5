"""One epoch of training: every step of it, timed, watched and told.

Axes: B crops, F frames, M mel bands, G genres.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from preprocessing.prefetch import prefetch
from store.errors import TrainingStopped
from training.fit.checkpoint import EpochProgress
from training.fit.crops import Crops, MelSlice, Tracks, crops_of_rank, plan_epoch, read_crops
from training.fit.distributed import (
    RankContext,
    all_reduce_mean,
    average_batch_norm_statistics,
    communication_wait_s,
)
from training.fit.settings import TrainSettings
from training.fit.step import Batch, micro_batch_seeds, train_step
from training.networks.network import GenreNet

Emit = Callable[[dict[str, Any]], None]
EVENT_INTERVAL_S = 1.0


@dataclass(frozen=True)
class TrainingContext:
    """What stays the same from the first epoch to the last."""

    settings: TrainSettings
    genres: tuple[str, ...]
    rank_context: RankContext
    emit: Emit
    training: Tracks
    validation: Tracks
    mel_slice: MelSlice
    crop_frames: int
    steps: int  # in one epoch
    groups: range  # of each step: those that fall to this rank

    @property
    def weight(self) -> float:
        """This rank's part of all crops."""
        return len(self.groups) * self.settings.micro_batch_size / self.settings.batch_size


@dataclass(frozen=True)
class TrainState:
    """A network, the same network as its ranks share it, and what moves it."""

    model: GenreNet
    shared: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True)
class EpochStatistics:
    """What one epoch of training took and gave; the shares are of its time.

    `communication_share` is what steps wait for gradients after their own backward pass, `compute_share` all
    that is neither that nor waiting for data: augmentation, forward and backward pass, optimizer.
    """

    train_loss: float
    grad_norm: float
    crops_per_s: float
    data_wait_share: float
    communication_share: float
    compute_share: float


def train_epoch(
    context: TrainingContext,
    train_state: TrainState,
    epoch: int,
    progress: EpochProgress,
    keep: Callable[[EpochProgress], None],
) -> EpochStatistics:
    """Make the steps of an epoch that are not made yet. Raises: TrainingStopped if a loss or gradient was not finite.

    `keep` is called every `checkpoint_steps` with what was done so far, when all ranks know the same of it.
    """
    settings, rank_context = context.settings, context.rank_context
    parts = _parts(context, epoch)[progress.steps :]
    batches = prefetch(lambda crops: _read_batch(context, crops), parts)
    # Loss and gradient norm, of all ranks and what was added since. What is not finite stays in the sum:
    # to look now and then is enough.
    total_2 = torch.tensor(
        [progress.loss, progress.grad_norm], dtype=torch.float64, device=rank_context.device
    )
    since_2 = torch.zeros_like(total_2)
    # A rank's own loss is a sum over its groups, which may be more or fewer than another's.
    share_2 = torch.tensor(
        [context.weight * rank_context.world_size, 1.0], dtype=torch.float64, device=rank_context.device
    )
    train_state.shared.train()
    began = logged = time.perf_counter()
    waited_s = 0.0
    for number in range(progress.steps + 1, context.steps + 1):
        asked = time.perf_counter()
        batch = next(batches).to(rank_context.device)
        waited_s += time.perf_counter() - asked
        since_2 += torch.stack(
            _make_step(context, train_state, batch, (epoch - 1) * context.steps + number - 1)
        )
        if rank_context.rank == 0 and time.perf_counter() - logged > EVENT_INTERVAL_S:
            logged = time.perf_counter()
            speed = (number - progress.steps) * settings.batch_size / (logged - began)
            mean_2 = (total_2 + since_2 / share_2) / number
            _log_step(context, train_state, mean_2, epoch=epoch, number=number, crops_per_s=speed)
        if number % settings.checkpoint_steps == 0 or number == context.steps:
            total_2 += all_reduce_mean(since_2, rank_context)
            since_2.zero_()
            average_batch_norm_statistics(train_state.model, context.weight, rank_context)
            loss, grad_norm = total_2.tolist()
            _check_finite(loss / number, grad_norm / number, epoch, number)
            seconds, data_wait_s = (
                progress.seconds + time.perf_counter() - began,
                progress.data_wait_s + waited_s,
            )
            done = EpochProgress(number, loss, grad_norm, seconds, data_wait_s)
            if number < context.steps:
                keep(done)
    return _measure(context, done, communication_wait_s(train_state.shared))


def _make_step(
    context: TrainingContext, train_state: TrainState, batch: Batch, step: int
) -> tuple[Tensor, Tensor]:
    """Make one step of the run; give loss and gradient norm, still on the device."""
    settings = context.settings
    rate = learning_rate_at(step, context.steps * settings.epochs, settings)
    for group in train_state.optimizer.param_groups:
        group["lr"] = rate
    made = train_step(
        train_state.shared,
        train_state.optimizer,
        batch,
        settings,
        seeds=micro_batch_seeds(settings.seed, step, context.groups),
        world_size=context.rank_context.world_size,
    )
    return made.loss, made.grad_norm


def _measure(
    context: TrainingContext, done: EpochProgress, communication_wait_s_per_step: float
) -> EpochStatistics:
    waiting = done.data_wait_s / done.seconds
    exchanging = min(done.steps * communication_wait_s_per_step / done.seconds, 1 - waiting)
    return EpochStatistics(
        train_loss=done.loss / done.steps,
        grad_norm=done.grad_norm / done.steps,
        crops_per_s=done.steps * context.settings.batch_size / done.seconds,
        data_wait_share=waiting,
        communication_share=exchanging,
        compute_share=1 - waiting - exchanging,
    )


def learning_rate_at(step: int, steps: int, settings: TrainSettings) -> float:
    """Give the rate of one step: up in a straight line, then down along a cosine, to almost zero.

    Source: Loshchilov and Hutter (2017).
    """
    rising = math.ceil(settings.warmup_share * steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    return settings.learning_rate * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def _parts(context: TrainingContext, epoch: int) -> list[Crops]:
    """Cut this rank's crops of an epoch into its steps."""
    settings = context.settings
    plan = plan_epoch(
        context.training,
        crop_frames=context.crop_frames,
        crops_per_track=settings.crops_per_track,
        batch_size=settings.batch_size,
        balance=settings.balance,
        seed=settings.seed,
        epoch=epoch,
    )
    return crops_of_rank(
        plan, context.groups, batch_size=settings.batch_size, micro_batch_size=settings.micro_batch_size
    )


def _read_batch(context: TrainingContext, crops: Crops) -> Batch:
    mel_BFM = torch.from_numpy(read_crops(context.mel_slice, context.training, crops, context.crop_frames))
    target_BG = torch.from_numpy(context.training.target_TG[crops.track_N])
    if context.rank_context.device.type == "cuda":
        return Batch(mel_BFM.pin_memory(), target_BG.pin_memory())
    return Batch(mel_BFM, target_BG)


def make_heartbeat(emit: Emit) -> Callable[[], None]:
    """Give a function to call at every turn of long work: now and then it tells that we are at work."""
    told = time.perf_counter()

    def heartbeat() -> None:
        nonlocal told
        if time.perf_counter() - told > EVENT_INTERVAL_S:
            told = time.perf_counter()
            emit({"event": "heartbeat"})

    return heartbeat


def _log_step(
    context: TrainingContext,
    train_state: TrainState,
    mean_2: Tensor,
    *,
    epoch: int,
    number: int,
    crops_per_s: float,
) -> None:
    loss, grad_norm = mean_2.tolist()
    _check_finite(loss, grad_norm, epoch, number)
    context.emit(
        {
            "event": "step",
            "epoch": epoch,
            "step": number,
            "steps": context.steps,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": train_state.optimizer.param_groups[0]["lr"],
            "crops_per_s": crops_per_s,
        }
    )


def _check_finite(loss: float, grad_norm: float, epoch: int, number: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise TrainingStopped(
            f"epoch {epoch}, at step {number} or before: loss {loss:g}, gradient norm {grad_norm:g}; "
            "no weights since the last checkpoint are kept; lower learning_rate, or look for damaged mels"
        )
