"""The training of one network, from its first step to its results, alone or as one of several ranks."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch

from store.errors import BadInput
from store.fs.files import join, write_atomic
from store.reader import Snapshot
from training.fit.checkpoint import Checkpoint, EpochProgress, read_checkpoint, write_checkpoint
from training.fit.context import TrainingContext, make_training_context
from training.fit.distributed import RankContext, all_reduce_mean
from training.fit.epoch import EpochStatistics, train_epoch
from training.fit.events import Emit, make_heartbeat
from training.fit.run import TrainingRun, is_finished, read_history, read_run_pretrained, run_hash
from training.fit.train_state import TrainState, freeze_for_epoch, make_train_state
from training.fit.validation import validate
from training.networks.network import WEIGHTS_FILE
from training.networks.pretrained import load_pretrained
from training.run_files import HISTORY_FILE


def train(
    folder: str, run: TrainingRun, tracks: pa.Table, snapshot: Snapshot, rank_context: RankContext, emit: Emit
) -> None:
    """Train a network, or resume from its last checkpoint, and write weights and history to `folder`.

    Raises: BadInput if run, snapshot and checkpoint do not fit; TrainingStopped if the loss is no longer finite.
    """
    if is_finished(folder):
        emit({"event": "done", "best_epoch": read_history(folder)["best_epoch"]})
        return
    context = make_training_context(run, tracks, snapshot, rank_context, emit)
    train_state = make_train_state(run, int(snapshot.mel_settings["bands"]), rank_context)
    if run.pretrained_sha256:
        load_pretrained(train_state.model, read_run_pretrained(folder, run))
    hash_of_run = run_hash(run, tracks)
    checkpoint = _resume(folder, hash_of_run, context, train_state)

    def save(checkpoint: Checkpoint) -> None:
        if rank_context.rank == 0:
            write_checkpoint(folder, checkpoint, hash_of_run)

    while checkpoint.epoch < run.settings.epochs:
        train_state = freeze_for_epoch(train_state, checkpoint.epoch + 1, run.settings, rank_context)
        checkpoint = _run_epoch(context, train_state, checkpoint, save)
        save(checkpoint)
        emit({"event": "epoch", **checkpoint.history[-1]})
    if rank_context.rank == 0:
        _write_results(folder, checkpoint)
    emit({"event": "done", "best_epoch": checkpoint.best_epoch})


def _resume(folder: str, hash_of_run: str, context: TrainingContext, train_state: TrainState) -> Checkpoint:
    """Load the last checkpoint into the network and optimizer; return it, or an empty one before the first epoch."""
    checkpoint, damaged = read_checkpoint(folder, hash_of_run)
    _check_same_checkpoint(folder, checkpoint, context.rank_context)
    for name in damaged:
        message = f"{name} is cut short or damaged; resuming from the checkpoint before it"
        context.emit({"event": "notice", "message": message})
    if checkpoint is None:
        checkpoint = _empty_checkpoint(train_state)
    else:
        train_state.model.load_state_dict(checkpoint.model)
        train_state.optimizer.load_state_dict(checkpoint.optimizer)
    _emit_start(context, train_state, checkpoint)
    return checkpoint


def _check_same_checkpoint(folder: str, checkpoint: Checkpoint | None, rank_context: RankContext) -> None:
    """Raise BadInput where hosts read different folders: they would train different networks."""
    number = float(checkpoint.number if checkpoint else 0)
    if all_reduce_mean(torch.tensor(number, device=rank_context.device), rank_context).item() != number:
        raise BadInput(
            f"{folder}: process {rank_context.rank} found checkpoint {number:.0f}, others found another one; "
            "name a folder that all hosts share"
        )


def _emit_start(context: TrainingContext, train_state: TrainState, checkpoint: Checkpoint) -> None:
    context.emit(
        {
            "event": "start",
            "epochs": context.settings.epochs,
            "epochs_done": checkpoint.epoch,
            "steps_done": checkpoint.epoch_progress.steps,
            "steps_per_epoch": context.steps,
            "processes": context.rank_context.world_size,
            "device": str(context.rank_context.device),
            "training_tracks": len(context.training),
            "validation_tracks": len(context.validation),
            "parameters": sum(weight.numel() for weight in train_state.model.parameters()),
        }
    )


def _empty_checkpoint(train_state: TrainState) -> Checkpoint:
    return Checkpoint(
        number=0,
        epoch=0,
        epoch_progress=EpochProgress(),
        model=train_state.model.state_dict(),
        optimizer=train_state.optimizer.state_dict(),
        best_epoch=0,
        best_weights={},
        history=[],
    )


def _run_epoch(
    context: TrainingContext, train_state: TrainState, before: Checkpoint, save: Callable[[Checkpoint], None]
) -> Checkpoint:
    """Train the rest of an epoch, validate, and return the checkpoint after it."""
    last = before

    def save_progress(progress: EpochProgress) -> None:
        nonlocal last
        last = _next_checkpoint(last, train_state, epoch_progress=progress)
        save(last)

    epoch, started = before.epoch + 1, time.perf_counter()
    statistics = train_epoch(context, train_state, epoch, before.epoch_progress, save_progress)
    row = {"epoch": epoch, **_validation_row(context, train_state, statistics)}
    row["seconds"] = before.epoch_progress.seconds + time.perf_counter() - started
    history = [*before.history, row]
    after = _next_checkpoint(last, train_state, epoch=epoch, epoch_progress=EpochProgress(), history=history)
    if not _replaces_best(history):
        return after
    best_weights = {name: tensor.cpu().clone() for name, tensor in after.model.items()}
    return replace(after, best_epoch=epoch, best_weights=best_weights)


def _next_checkpoint(before: Checkpoint, train_state: TrainState, **changes: Any) -> Checkpoint:
    """Return a checkpoint of the network and the optimizer as they are now."""
    return replace(
        before,
        number=before.number + 1,
        model=train_state.model.state_dict(),
        optimizer=train_state.optimizer.state_dict(),
        **changes,
    )


def _validation_row(
    context: TrainingContext, train_state: TrainState, statistics: EpochStatistics
) -> dict[str, float]:
    """Validate the network; return a row of the training history but for its epoch and time."""
    scores = validate(
        train_state.model,
        context.source,
        context.validation,
        context.genres,
        crop_frames=context.crop_frames,
        settings=context.settings,
        rank_context=context.rank_context,
        heartbeat=make_heartbeat(context.emit),
    )
    return {
        **asdict(statistics),
        "validation_loss": scores.log_loss,
        "validation_loss_standard_error": scores.log_loss_standard_error,
        "validation_accuracy": scores.accuracy,
        "validation_macro_f1": scores.macro_f1,
    }


def _replaces_best(history: list[dict[str, float]]) -> bool:
    """Return whether the last epoch becomes the best one: its loss is the lowest, or within one standard error of it.

    Source: the one-standard-error rule (Breiman et al., 1984), on the validation loss.

    The last such epoch is kept: the learning rate falls to the end, so later epochs are trained
    better, and with few validation tracks an earlier epoch would be chosen by luck. With many
    tracks the standard error is small, and the lowest loss decides.
    """
    best = min(history, key=lambda row: row["validation_loss"])
    return history[-1]["validation_loss"] <= best["validation_loss"] + best["validation_loss_standard_error"]


def _write_results(folder: str, checkpoint: Checkpoint) -> None:
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.best_weights.items()}
    history = {"best_epoch": checkpoint.best_epoch, "epochs": checkpoint.history}
    write_atomic(join(folder, HISTORY_FILE), json.dumps(history, indent=2).encode())
    write_atomic(join(folder, WEIGHTS_FILE), safetensors.torch.save(weights))
