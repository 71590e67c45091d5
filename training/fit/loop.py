"""The training of one network, from its first step to its results, alone or as one of several ranks.

Axes: T tracks, G genres.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.torch
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import join, read_bytes, write_atomic
from store.reader import Snapshot
from training.fit.checkpoint import Checkpoint, EpochProgress, read_checkpoint, write_checkpoint
from training.fit.crops import MelSlice, Tracks, cache_in_memory, micro_batches_of_rank
from training.fit.distributed import RankContext, all_reduce_mean
from training.fit.epoch import Emit, TrainingContext, TrainState, make_heartbeat, train_epoch
from training.fit.run import HISTORY_FILE, TrainingRun, is_finished, read_run_pretrained, run_hash
from training.fit.settings import TrainSettings
from training.fit.validation import validate
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.pretrained import load_pretrained

BATCH_NORM_DECAY = 0.9  # of batch norm's running statistics, a step


def train(
    folder: str, run: TrainingRun, tracks: pa.Table, snapshot: Snapshot, rank_context: RankContext, emit: Emit
) -> None:
    """Train a network, or go on from its last checkpoint, and leave weights and history in `folder`.

    Raises: BadInput if run, snapshot and checkpoint do not fit; TrainingStopped if the loss is no longer finite.
    """
    if is_finished(folder):
        history = json.loads(read_bytes(join(folder, HISTORY_FILE)))
        emit({"event": "done", "best_epoch": history["best_epoch"]})
        return
    context = make_training_context(run, tracks, snapshot, rank_context, emit)
    train_state = make_train_state(run, int(snapshot.mel_settings["bands"]), rank_context)
    if run.pretrained_sha256:
        load_pretrained(train_state.model, read_run_pretrained(folder, run))
    name = run_hash(run, tracks)
    state, damaged = read_checkpoint(folder, name)
    _check_same_checkpoint(folder, state, rank_context)
    if state is not None:
        train_state.model.load_state_dict(state.model)
        train_state.optimizer.load_state_dict(state.optimizer)
    _announce(context, train_state, state, damaged)
    state = state or _nothing_done(train_state)

    def keep(reached: Checkpoint) -> None:
        if rank_context.rank == 0:
            write_checkpoint(folder, reached, name)

    while state.epoch < run.settings.epochs:
        train_state = _freeze_or_free(train_state, state.epoch + 1, run.settings, rank_context)
        state = _one_epoch(context, train_state, state, keep)
        keep(state)
        emit({"event": "epoch", **state.history[-1]})
    if rank_context.rank == 0:
        _write_results(folder, state)
    emit({"event": "done", "best_epoch": state.best_epoch})


def make_training_context(
    run: TrainingRun, tracks: pa.Table, snapshot: Snapshot, rank_context: RankContext, emit: Emit
) -> TrainingContext:
    """Look up what the run learns from. Raises: BadInput if run and snapshot do not fit."""
    settings = run.settings
    if snapshot.mel_fingerprint != run.mel_fingerprint:
        raise BadInput(
            f"{snapshot.url}: its mel settings are {snapshot.mel_fingerprint}, the run wants "
            f"{run.mel_fingerprint}; name the snapshot that the run was made for"
        )
    groups = micro_batches_of_rank(
        settings.batch_size // settings.micro_batch_size,
        rank=rank_context.rank,
        world_size=rank_context.world_size,
    )
    training, validation = (_tracks_of(split, tracks, snapshot) for split in ("training", "validation"))
    frames = int(training.frames_T.sum() + validation.frames_T.sum())
    mel_slice: MelSlice = snapshot.mel_slice
    if frames * int(snapshot.mel_settings["bands"]) * 2 <= settings.cache_gib * 2**30:
        mel_slice = cache_in_memory(mel_slice, training, validation, heartbeat=make_heartbeat(emit))
    return TrainingContext(
        settings=settings,
        genres=run.genres,
        rank_context=rank_context,
        emit=emit,
        training=training,
        validation=validation,
        mel_slice=mel_slice,
        crop_frames=MelSettings.model_validate(snapshot.mel_settings).count_frames(settings.crop_s),
        steps=math.ceil(len(training.ids) * settings.crops_per_track / settings.batch_size),
        groups=groups,
    )


def _tracks_of(split: str, tracks: pa.Table, snapshot: Snapshot) -> Tracks:
    rows = tracks.filter(pc.equal(tracks["split"], split))
    ids = tuple(rows["track_id"].to_pylist())
    missing = sorted(set(ids) - set(snapshot.track_ids))
    if missing:
        raise BadInput(
            f"{snapshot.url}: has no spectrogram of track {missing[0]} ({len(missing)} missing); "
            "build them, or leave them out of the run"
        )
    frames_T = np.array([snapshot.frames(track_id) for track_id in ids], np.int64)
    return Tracks(ids, frames_T, np.array(rows["target"].to_pylist(), np.float32))


def make_train_state(run: TrainingRun, bands: int, rank_context: RankContext) -> TrainState:
    settings = run.settings
    torch.manual_seed(settings.seed)
    model = build_model(settings.model, len(run.genres), bands)
    # Convolutions are faster this way, on CPUs too (by a fifth).
    model = model.to(rank_context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        model.compile()
    groups = settings.batch_size / settings.micro_batch_size / rank_context.world_size
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1 - BATCH_NORM_DECAY ** (1 / groups)
    return TrainState(model, _share(model, rank_context), _make_optimizer(model, settings, rank_context))


def _freeze_or_free(
    train_state: TrainState, epoch: int, settings: TrainSettings, rank_context: RankContext
) -> TrainState:
    """Have the trunk learn, or not, as an epoch wants it."""
    frozen = epoch <= settings.pretrained.frozen_epochs
    if train_state.model.trunk_frozen == frozen:
        return train_state
    train_state.model.freeze_trunk(frozen)
    return replace(
        train_state, shared=_share(train_state.model, rank_context)
    )  # DDP notes which weights learn, once


def _make_optimizer(model: nn.Module, settings: TrainSettings, rank_context: RankContext) -> AdamW:
    """Decay only what multiplies, neither biases nor batch norm. Source: He et al. (2019)."""
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    return AdamW(
        [{"params": weights, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        fused=rank_context.device.type == "cuda",
    )


def _share(model: nn.Module, rank_context: RankContext) -> nn.Module:
    """Have all ranks average their gradients; buffers are averaged once an epoch instead."""
    if rank_context.world_size == 1:
        return model
    devices = [rank_context.device] if rank_context.device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def _check_same_checkpoint(folder: str, state: Checkpoint | None, rank_context: RankContext) -> None:
    """Stop where hosts do not see the same folder: half of them would train something else."""
    number = float(state.number if state else 0)
    if all_reduce_mean(torch.tensor(number, device=rank_context.device), rank_context).item() != number:
        raise BadInput(
            f"{folder}: process {rank_context.rank} finds checkpoint {number:.0f}, others another one; "
            "name a folder that all hosts share"
        )


def _announce(
    context: TrainingContext, train_state: TrainState, state: Checkpoint | None, damaged: list[str]
) -> None:
    for name in damaged:
        context.emit(
            {"event": "notice", "message": f"{name} is cut short or damaged; going on from the one before it"}
        )
    context.emit(
        {
            "event": "start",
            "epochs": context.settings.epochs,
            "epochs_done": state.epoch if state else 0,
            "steps_done": state.part.steps if state else 0,
            "steps_per_epoch": context.steps,
            "processes": context.rank_context.world_size,
            "device": str(context.rank_context.device),
            "training_tracks": len(context.training.ids),
            "validation_tracks": len(context.validation.ids),
            "parameters": sum(weight.numel() for weight in train_state.model.parameters()),
        }
    )


def _nothing_done(train_state: TrainState) -> Checkpoint:
    return Checkpoint(
        number=0,
        epoch=0,
        part=EpochProgress(),
        model=train_state.model.state_dict(),
        optimizer=train_state.optimizer.state_dict(),
        best_epoch=0,
        best_weights={},
        history=[],
    )


def _one_epoch(
    context: TrainingContext, train_state: TrainState, before: Checkpoint, keep: Callable[[Checkpoint], None]
) -> Checkpoint:
    """Train what is left of an epoch and validate, and say where the run then stands."""
    state, epoch = before, before.epoch + 1

    def keep_part(part: EpochProgress) -> None:
        nonlocal state
        state = replace(
            state,
            number=state.number + 1,
            part=part,
            model=train_state.model.state_dict(),
            optimizer=train_state.optimizer.state_dict(),
        )
        keep(state)

    began = time.perf_counter()
    measured = train_epoch(context, train_state, epoch, before.part, keep_part)
    scores = validate(
        train_state.model,
        context.mel_slice,
        context.validation,
        context.genres,
        crop_frames=context.crop_frames,
        settings=context.settings,
        rank_context=context.rank_context,
        heartbeat=make_heartbeat(context.emit),
    )
    row = {
        "epoch": epoch,
        **asdict(measured),
        "validation_loss": scores.log_loss,
        "validation_loss_standard_error": scores.log_loss_standard_error,
        "validation_accuracy": scores.accuracy,
        "validation_macro_f1": scores.macro_f1,
        "seconds": before.part.seconds + time.perf_counter() - began,
    }
    weights = train_state.model.state_dict()
    now = Checkpoint(
        number=state.number + 1,
        epoch=epoch,
        part=EpochProgress(),
        model=weights,
        optimizer=train_state.optimizer.state_dict(),
        best_epoch=before.best_epoch,
        best_weights=before.best_weights,
        history=[*before.history, row],
    )
    if _is_among_best(now.history):
        best = {name: tensor.cpu().clone() for name, tensor in weights.items()}
        return replace(now, best_epoch=epoch, best_weights=best)
    return now


def _is_among_best(history: list[dict[str, float]]) -> bool:
    """Say whether the last epoch is as good as the best so far, as far as so many tracks can tell.

    Source: the one-standard-error rule (Breiman et al., 1984), on the validation loss.

    The last such epoch is kept: the rate falls to the end, so what was learned late is
    better learned, and few validation tracks would choose an earlier epoch by luck. Many
    tracks have a small error, and there it is the lowest loss that decides.
    """
    best = min(history, key=lambda row: row["validation_loss"])
    return history[-1]["validation_loss"] <= best["validation_loss"] + best["validation_loss_standard_error"]


def _write_results(folder: str, state: Checkpoint) -> None:
    weights = {name: tensor.contiguous() for name, tensor in state.best_weights.items()}
    history = {"best_epoch": state.best_epoch, "epochs": state.history}
    write_atomic(join(folder, HISTORY_FILE), json.dumps(history, indent=2).encode())
    write_atomic(join(folder, WEIGHTS_FILE), safetensors.torch.save(weights))
