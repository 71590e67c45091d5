"""The part of a training that is the same in all its epochs.

Axes: T tracks, G genres.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from preprocessing.mel.settings import MelSettings
from store.dataset.frame_reader import Locations
from store.errors import BadInput
from store.reader import Snapshot
from training.fit.distributed import RankContext
from training.fit.events import Emit
from training.fit.run import TrainingRun, artists_of, targets_of
from training.fit.settings import TrainSettings
from training.fit.step import class_weights
from training.loading.batches import BatchMemory, CropSource
from training.loading.crops import Tracks, micro_batches_of_rank
from training.loading.readers import ReadingPlan


@dataclass(frozen=True)
class TrainingContext:
    """The settings, the data and the rank that all epochs share."""

    settings: TrainSettings
    genres: tuple[str, ...]
    rank_context: RankContext
    emit: Emit
    training: Tracks
    validation: Tracks
    source: CropSource
    memory: BatchMemory
    crop_frames: int
    steps: int  # in one epoch
    micro_batches: range  # of each step: those of this rank
    class_weight_G: Tensor | None  # on the device; None without class weights

    @property
    def weight(self) -> float:
        """This rank's share of all crops."""
        return len(self.micro_batches) * self.settings.micro_batch_size / self.settings.batch_size


def make_training_context(
    run: TrainingRun, tracks: pa.Table, snapshot: Snapshot, rank_context: RankContext, emit: Emit
) -> TrainingContext:
    """Return the context of a run on one rank.

    Raises: BadInput if run and snapshot do not fit, or a rank would have no micro-batch.
    """
    settings = run.settings
    if snapshot.mel_fingerprint != run.mel_fingerprint:
        raise BadInput(
            f"{snapshot.url}: its mel settings are {snapshot.mel_fingerprint}, the run needs "
            f"{run.mel_fingerprint}; name the snapshot that the run was made for"
        )
    micro_batches = micro_batches_of_rank(
        settings.batch_size // settings.micro_batch_size,
        rank=rank_context.rank,
        world_size=rank_context.world_size,
    )
    training, validation = _tracks_of_splits(tracks, snapshot)
    reading = reading_plan(settings)
    source = reading.open_reader(snapshot)
    warning = reading.warning(training, source)
    if warning and rank_context.rank == 0:
        emit({"event": "notice", "message": warning})
    return TrainingContext(
        settings=settings,
        genres=run.genres,
        rank_context=rank_context,
        emit=emit,
        training=training,
        validation=validation,
        source=source,
        memory=BatchMemory(pinned=rank_context.device.type == "cuda"),
        crop_frames=MelSettings.model_validate(snapshot.mel_settings).count_frames(settings.crop_s),
        steps=math.ceil(len(training) * settings.crops_per_track / settings.batch_size),
        micro_batches=micro_batches,
        class_weight_G=torch.from_numpy(class_weights(training.target_TG)).to(rank_context.device)
        if settings.class_weights
        else None,
    )


def reading_plan(settings: TrainSettings) -> ReadingPlan:
    """Return how crops are read."""
    return ReadingPlan(settings.reading, settings.mixed_runs, settings.cache_folder, settings.cache_gib)


def _tracks_of_splits(tracks: pa.Table, snapshot: Snapshot) -> tuple[Tracks, Tracks]:
    """Return the training and the validation tracks. Raises: BadInput if one has no spectrogram."""
    is_located = "shard" in tracks.column_names
    locations = Locations.of(tracks) if is_located else snapshot.locate(tracks["track_id"])
    target_TG, artist_T = targets_of(tracks), artists_of(tracks)
    missing = tracks["track_id"].filter(pa.array(locations.shard_T < 0))
    if len(missing):
        raise BadInput(
            f"{snapshot.url}: has no spectrogram of track {missing[0]} ({len(missing)} missing); "
            "build them, or leave them out of the run"
        )
    training_T, validation_T = (
        np.flatnonzero(pc.equal(tracks["split"], split).to_numpy()) for split in ("training", "validation")
    )
    training, validation = (
        Tracks(
            tracks["track_id"].take(pa.array(row_T)),
            locations.take(row_T),
            target_TG[row_T],
            None if artist_T is None else artist_T[row_T],
        )
        for row_T in (training_T, validation_T)
    )
    return training, validation
