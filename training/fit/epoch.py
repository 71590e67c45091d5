"""One epoch of training: its steps, their timing and their events.

Axes: B crops, F frames, M mel bands, G genres; 2: loss and gradient norm.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from store.errors import TrainingStopped
from training.fit import events
from training.fit.checkpoint import EpochProgress
from training.fit.context import TrainingContext, reading_plan
from training.fit.distributed import all_reduce_mean, average_batch_norm_statistics, communication_wait_s
from training.fit.settings import TrainSettings
from training.fit.step import Step, micro_batch_seeds, train_step
from training.fit.train_state import TrainState
from training.loading.batches import Batch, read_ahead, read_batch
from training.loading.crops import Crops, crops_of_rank, plan_epoch


@dataclass(frozen=True)
class EpochStatistics:
    """The mean loss, gradient norm and speed of one epoch of training; the shares are of its time.

    `communication_share` is the wait for gradients after a step's own backward pass, `compute_share` all
    that is neither that nor waiting for data: augmentation, forward and backward pass, optimizer.
    """

    train_loss: float
    grad_norm: float
    crops_per_s: float
    data_wait_share: float
    communication_share: float
    compute_share: float


class _Meter:
    """Sums of loss and gradient norm, kept on the device, and the times of an epoch.

    `total_2` is over all ranks, `since_2` is what this rank added since. A value that is not finite
    stays in the sum: checking it now and then is enough.
    """

    def __init__(self, context: TrainingContext, before: EpochProgress) -> None:
        rank_context = context.rank_context
        sums = [before.loss, before.grad_norm]
        self.context, self.before = context, before
        self.total_2 = torch.tensor(sums, dtype=torch.float64, device=rank_context.device)
        self.since_2 = torch.zeros_like(self.total_2)
        # A rank's own loss is a sum over its micro-batches, which may be more or fewer than another's.
        self.share_2 = torch.tensor(
            [context.weight * rank_context.world_size, 1.0], dtype=torch.float64, device=rank_context.device
        )
        self.started = time.perf_counter()
        self.data_wait_s = 0.0

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Return the next batch, and add the wait for it to `data_wait_s`."""
        asked = time.perf_counter()
        batch = next(batches).to(self.context.rank_context.device)
        self.data_wait_s += time.perf_counter() - asked
        return batch

    def add(self, step: Step) -> None:
        self.since_2 += torch.stack((step.loss, step.grad_norm))

    def mean_2(self, steps: int) -> Tensor:
        """Return the means of loss and gradient norm after `steps` steps, as far as this rank knows them."""
        return (self.total_2 + self.since_2 / self.share_2) / steps

    def crops_per_s(self, steps: int) -> float:
        crops = (steps - self.before.steps) * self.context.settings.batch_size
        return crops / (time.perf_counter() - self.started)

    def step_s(self, steps: int) -> float:
        return (time.perf_counter() - self.started) / (steps - self.before.steps)

    def all_reduce(self, steps: int) -> EpochProgress:
        """Return the progress after `steps` steps, the same on all ranks but for its times."""
        self.total_2 += all_reduce_mean(self.since_2, self.context.rank_context)
        self.since_2.zero_()
        loss, grad_norm = self.total_2.tolist()
        seconds = self.before.seconds + time.perf_counter() - self.started
        return EpochProgress(steps, loss, grad_norm, seconds, self.before.data_wait_s + self.data_wait_s)


def train_epoch(
    context: TrainingContext,
    train_state: TrainState,
    epoch: int,
    before: EpochProgress,
    save: Callable[[EpochProgress], None],
) -> EpochStatistics:
    """Make the steps of an epoch that are left. Raises: TrainingStopped if a loss or gradient is not finite.

    `save` is called after every `checkpoint_steps` steps, when all ranks have the same weights and statistics.
    """
    settings = context.settings
    step_crops = crops_of_steps(context, epoch)[before.steps :]
    batches = read_ahead(
        lambda crops: read_crops_of_step(context, crops), step_crops, threads=settings.loader_threads
    )
    meter = _Meter(context, before)
    train_state.ddp_model.train()
    last_event = time.perf_counter()
    for number in range(before.steps + 1, context.steps + 1):
        batch = meter.next_batch(batches)
        meter.add(_make_step(context, train_state, batch, (epoch - 1) * context.steps + number - 1))
        if context.rank_context.rank == 0 and time.perf_counter() - last_event > events.EVENT_INTERVAL_S:
            last_event = time.perf_counter()
            _emit_step(context, train_state, meter, epoch, number)
        if number % settings.checkpoint_steps == 0 or number == context.steps:
            progress = meter.all_reduce(number)
            average_batch_norm_statistics(train_state.model, context.weight, context.rank_context)
            _check_finite(progress.loss / number, progress.grad_norm / number, epoch, number)
            if number < context.steps:
                save(progress)
    return _statistics(progress, settings.batch_size, communication_wait_s(train_state.ddp_model))


def learning_rate_at(step: int, steps: int, settings: TrainSettings) -> float:
    """Return the learning rate of one step: a linear rise, then a cosine down to almost zero.

    Source: Loshchilov and Hutter (2017).
    """
    rising = math.ceil(settings.warmup_share * steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    return settings.learning_rate * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def crops_of_steps(context: TrainingContext, epoch: int) -> list[Crops]:
    """Return this rank's crops of an epoch, step by step."""
    settings = context.settings
    plan = plan_epoch(
        context.training,
        crop_frames=context.crop_frames,
        crops_per_track=settings.crops_per_track,
        batch_size=settings.batch_size,
        balance=settings.balance,
        seed=settings.seed,
        epoch=epoch,
        mixed_runs=reading_plan(settings).runs_in_use,
    )
    return crops_of_rank(
        plan,
        context.micro_batches,
        batch_size=settings.batch_size,
        micro_batch_size=settings.micro_batch_size,
    )


def read_crops_of_step(context: TrainingContext, crops: Crops) -> Batch:
    """Read the crops of one step."""
    return read_batch(context.source, context.training, crops, context.crop_frames, context.memory)


def _make_step(context: TrainingContext, train_state: TrainState, batch: Batch, step: int) -> Step:
    """Make one step, numbered from the first of the run."""
    settings = context.settings
    rate = learning_rate_at(step, context.steps * settings.epochs, settings)
    for group in train_state.optimizer.param_groups:
        group["lr"] = rate
    return train_step(
        train_state.ddp_model,
        train_state.optimizer,
        batch,
        settings,
        seeds=micro_batch_seeds(settings.seed, step, context.micro_batches),
        world_size=context.rank_context.world_size,
        class_weight_G=context.class_weight_G,
    )


def _emit_step(
    context: TrainingContext, train_state: TrainState, meter: _Meter, epoch: int, number: int
) -> None:
    loss, grad_norm = meter.mean_2(number).tolist()
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
            "crops_per_s": meter.crops_per_s(number),
            "step_s": meter.step_s(number),
            "gpu_memory_bytes": _gpu_memory_bytes(context.rank_context.device),
        }
    )


def _gpu_memory_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _check_finite(loss: float, grad_norm: float, epoch: int, number: int) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise TrainingStopped(
            f"epoch {epoch}, at step {number} or before: loss {loss:g}, gradient norm {grad_norm:g}; "
            "no weights since the last checkpoint are kept; lower learning_rate, or look for damaged spectrograms"
        )


def _statistics(progress: EpochProgress, batch_size: int, communication_s_per_step: float) -> EpochStatistics:
    waiting = progress.data_wait_s / progress.seconds
    communicating = min(progress.steps * communication_s_per_step / progress.seconds, 1 - waiting)
    return EpochStatistics(
        train_loss=progress.loss / progress.steps,
        grad_norm=progress.grad_norm / progress.steps,
        crops_per_s=progress.steps * batch_size / progress.seconds,
        data_wait_share=waiting,
        communication_share=communicating,
        compute_share=1 - waiting - communicating,
    )
