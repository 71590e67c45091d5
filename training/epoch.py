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

from store.errors import BadInput
from training.crops import Crops, MelSlice, Tracks, one_ahead, part_of_rank, plan_epoch, read_crops
from training.ranks import Seat, mean_over_ranks
from training.run import TrainSettings
from training.step import Batch, group_seeds, train_step

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


@dataclass(frozen=True)
class Learner:
    """A network, the same network as its ranks share it, and what moves it."""

    model: nn.Module
    shared: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True)
class Measured:
    """What one epoch of training took and gave."""

    train_loss: float
    grad_norm: float
    crops_per_s: float
    data_wait_share: float


def train_epoch(course: Course, learner: Learner, epoch: int) -> Measured:
    """Make all steps of an epoch. Raises: BadInput if a loss or gradient was not finite."""
    settings, seat = course.settings, course.seat
    own = settings.batch_size // seat.world_size
    groups = range(seat.rank * own // settings.crops_at_once, (seat.rank + 1) * own // settings.crops_at_once)
    batches = one_ahead(lambda crops: _read_batch(course, crops), _parts(course, epoch, own))
    # Loss and gradient norm. What is not finite stays in the sum: to look now and then is enough.
    total_2 = torch.zeros(2, device=seat.device)
    learner.shared.train()
    began = logged = time.perf_counter()
    waited_s = 0.0
    for number in range(1, course.steps + 1):
        step = (epoch - 1) * course.steps + number - 1
        asked = time.perf_counter()
        batch = next(batches).to(seat.device)
        waited_s += time.perf_counter() - asked
        rate = learning_rate_at(step, course.steps * settings.epochs, settings)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        made = train_step(
            learner.shared, learner.optimizer, batch, settings, seeds=group_seeds(settings.seed, step, groups)
        )
        total_2 += torch.stack([made.loss, made.grad_norm])
        if seat.rank == 0 and time.perf_counter() - logged > SECONDS_BETWEEN_LOGS:
            logged = time.perf_counter()
            speed = number * settings.batch_size / (logged - began)
            _log_step(course, learner, total_2 / number, epoch=epoch, number=number, crops_per_s=speed)
    loss, grad_norm = mean_over_ranks(total_2 / course.steps, seat).tolist()
    _check_finite(loss, grad_norm, epoch, course.steps)
    seconds = time.perf_counter() - began
    return Measured(loss, grad_norm, course.steps * settings.batch_size / seconds, waited_s / seconds)


def learning_rate_at(step: int, steps: int, settings: TrainSettings) -> float:
    """Give the rate of one step: up in a straight line, then down along a cosine, to almost zero.

    Source: Loshchilov and Hutter (2017).
    """
    rising = math.ceil(settings.warmup_share * steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    return settings.learning_rate * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def _parts(course: Course, epoch: int, own: int) -> list[Crops]:
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
    mine = part_of_rank(
        plan, batch_size=settings.batch_size, rank=course.seat.rank, world_size=course.seat.world_size
    )
    return [mine[first : first + own] for first in range(0, len(mine), own)]


def _read_batch(course: Course, crops: Crops) -> Batch:
    mel_BFM = torch.from_numpy(read_crops(course.mel_slice, course.training, crops, course.crop_frames))
    target_BG = torch.from_numpy(course.training.target_TG[crops.track_N])
    if course.seat.device.type == "cuda":
        return Batch(mel_BFM.pin_memory(), target_BG.pin_memory())
    return Batch(mel_BFM, target_BG)


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
        raise BadInput(
            f"epoch {epoch}, at step {number} or before: loss {loss:g}, gradient norm {grad_norm:g}; "
            f"no weights since epoch {epoch - 1} are kept; lower learning_rate, or look for damaged mels"
        )
