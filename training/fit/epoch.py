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
from training.fit.checkpoint import PartOfEpoch
from training.fit.crops import Crops, MelSlice, Tracks, part_of_rank, plan_epoch, read_crops
from training.fit.distributed import Seat, average_statistics, exchange_s, mean_over_ranks
from training.fit.settings import TrainSettings
from training.fit.step import Batch, group_seeds, train_step
from training.networks.network import GenreNet

Emit = Callable[[dict[str, Any]], None]
SECONDS_BETWEEN_LOGS = 1.0


@dataclass(frozen=True)
class Course:
    """What stays the same from the first epoch to the last."""

    settings: TrainSettings
    genres: tuple[str, ...]
    seat: Seat
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
        return len(self.groups) * self.settings.crops_at_once / self.settings.batch_size


@dataclass(frozen=True)
class Learner:
    """A network, the same network as its ranks share it, and what moves it."""

    model: GenreNet
    shared: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True)
class Measured:
    """What one epoch of training took and gave; the shares are of its time.

    `exchange_share` is what steps wait for gradients after their own backward pass, `compute_share` all
    that is neither that nor waiting for data: augmentation, forward and backward pass, optimizer.
    """

    train_loss: float
    grad_norm: float
    crops_per_s: float
    data_wait_share: float
    exchange_share: float
    compute_share: float


def train_epoch(
    course: Course, learner: Learner, epoch: int, begun: PartOfEpoch, keep: Callable[[PartOfEpoch], None]
) -> Measured:
    """Make the steps of an epoch that are not made yet. Raises: TrainingStopped if a loss or gradient was not finite.

    `keep` is called every `checkpoint_steps` with what was done so far, when all ranks know the same of it.
    """
    settings, seat = course.settings, course.seat
    parts = _parts(course, epoch)[begun.steps :]
    batches = prefetch(lambda crops: _read_batch(course, crops), parts)
    # Loss and gradient norm, of all ranks and what was added since. What is not finite stays in the sum:
    # to look now and then is enough.
    total_2 = torch.tensor([begun.loss, begun.grad_norm], dtype=torch.float64, device=seat.device)
    since_2 = torch.zeros_like(total_2)
    # A rank's own loss is a sum over its groups, which may be more or fewer than another's.
    share_2 = torch.tensor([course.weight * seat.world_size, 1.0], dtype=torch.float64, device=seat.device)
    learner.shared.train()
    began = logged = time.perf_counter()
    waited_s = 0.0
    for number in range(begun.steps + 1, course.steps + 1):
        asked = time.perf_counter()
        batch = next(batches).to(seat.device)
        waited_s += time.perf_counter() - asked
        since_2 += torch.stack(_make_step(course, learner, batch, (epoch - 1) * course.steps + number - 1))
        if seat.rank == 0 and time.perf_counter() - logged > SECONDS_BETWEEN_LOGS:
            logged = time.perf_counter()
            speed = (number - begun.steps) * settings.batch_size / (logged - began)
            mean_2 = (total_2 + since_2 / share_2) / number
            _log_step(course, learner, mean_2, epoch=epoch, number=number, crops_per_s=speed)
        if number % settings.checkpoint_steps == 0 or number == course.steps:
            total_2 += mean_over_ranks(since_2, seat)
            since_2.zero_()
            average_statistics(learner.model, course.weight, seat)
            loss, grad_norm = total_2.tolist()
            _check_finite(loss / number, grad_norm / number, epoch, number)
            seconds, data_wait_s = begun.seconds + time.perf_counter() - began, begun.data_wait_s + waited_s
            done = PartOfEpoch(number, loss, grad_norm, seconds, data_wait_s)
            if number < course.steps:
                keep(done)
    return _measure(course, done, exchange_s(learner.shared))


def _make_step(course: Course, learner: Learner, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
    """Make one step of the run; give loss and gradient norm, still on the device."""
    settings = course.settings
    rate = learning_rate_at(step, course.steps * settings.epochs, settings)
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    made = train_step(
        learner.shared,
        learner.optimizer,
        batch,
        settings,
        seeds=group_seeds(settings.seed, step, course.groups),
        world_size=course.seat.world_size,
    )
    return made.loss, made.grad_norm


def _measure(course: Course, done: PartOfEpoch, exchange_s_a_step: float) -> Measured:
    waiting = done.data_wait_s / done.seconds
    exchanging = min(done.steps * exchange_s_a_step / done.seconds, 1 - waiting)
    return Measured(
        train_loss=done.loss / done.steps,
        grad_norm=done.grad_norm / done.steps,
        crops_per_s=done.steps * course.settings.batch_size / done.seconds,
        data_wait_share=waiting,
        exchange_share=exchanging,
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


def _parts(course: Course, epoch: int) -> list[Crops]:
    """Cut this rank's crops of an epoch into its steps."""
    settings = course.settings
    plan = plan_epoch(
        course.training,
        crop_frames=course.crop_frames,
        crops_per_track=settings.crops_per_track,
        batch_size=settings.batch_size,
        balance=settings.balance,
        seed=settings.seed,
        epoch=epoch,
    )
    return part_of_rank(
        plan, course.groups, batch_size=settings.batch_size, crops_at_once=settings.crops_at_once
    )


def _read_batch(course: Course, crops: Crops) -> Batch:
    mel_BFM = torch.from_numpy(read_crops(course.mel_slice, course.training, crops, course.crop_frames))
    target_BG = torch.from_numpy(course.training.target_TG[crops.track_N])
    if course.seat.device.type == "cuda":
        return Batch(mel_BFM.pin_memory(), target_BG.pin_memory())
    return Batch(mel_BFM, target_BG)


def telling_of_work(emit: Emit) -> Callable[[], None]:
    """Give a function to call at every turn of long work: now and then it tells that we are at work."""
    told = time.perf_counter()

    def at_work() -> None:
        nonlocal told
        if time.perf_counter() - told > SECONDS_BETWEEN_LOGS:
            told = time.perf_counter()
            emit({"event": "at-work"})

    return at_work


def _log_step(
    course: Course, learner: Learner, mean_2: Tensor, *, epoch: int, number: int, crops_per_s: float
) -> None:
    loss, grad_norm = mean_2.tolist()
    _check_finite(loss, grad_norm, epoch, number)
    course.emit(
        {
            "event": "step",
            "epoch": epoch,
            "step": number,
            "steps": course.steps,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": learner.optimizer.param_groups[0]["lr"],
            "crops_per_s": crops_per_s,
        }
    )


def _check_finite(loss: float, grad_norm: float, epoch: int, number: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise TrainingStopped(
            f"epoch {epoch}, at step {number} or before: loss {loss:g}, gradient norm {grad_norm:g}; "
            "no weights since the last checkpoint are kept; lower learning_rate, or look for damaged mels"
        )
