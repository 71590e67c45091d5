"""The part of a training that is the same in all its epochs.

Axes: T tracks, G genres.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.reader import Snapshot
from training.fit.crops import MelSlice, Tracks, cache_in_memory, micro_batches_of_rank
from training.fit.distributed import RankContext
from training.fit.events import Emit, make_heartbeat
from training.fit.run import TrainingRun
from training.fit.settings import TrainSettings


@dataclass(frozen=True)
class TrainingContext:
    """The settings, the data and the rank that all epochs share."""

    settings: TrainSettings
    genres: tuple[str, ...]
    rank_context: RankContext
    emit: Emit
    training: Tracks
    validation: Tracks
    mel_slice: MelSlice
    crop_frames: int
    steps: int  # in one epoch
    micro_batches: range  # of each step: those of this rank

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
    training, validation = (_tracks_of_split(it, tracks, snapshot) for it in ("training", "validation"))
    return TrainingContext(
        settings=settings,
        genres=run.genres,
        rank_context=rank_context,
        emit=emit,
        training=training,
        validation=validation,
        mel_slice=_cache_if_small(snapshot, training, validation, settings.cache_gib, emit),
        crop_frames=MelSettings.model_validate(snapshot.mel_settings).count_frames(settings.crop_s),
        steps=math.ceil(len(training.ids) * settings.crops_per_track / settings.batch_size),
        micro_batches=micro_batches,
    )


def _cache_if_small(
    snapshot: Snapshot, training: Tracks, validation: Tracks, cache_gib: float, emit: Emit
) -> MelSlice:
    frames = int(training.frames_T.sum() + validation.frames_T.sum())
    if frames * int(snapshot.mel_settings["bands"]) * np.float16().nbytes > cache_gib * 2**30:
        return snapshot.mel_slice
    return cache_in_memory(snapshot.mel_slice, training, validation, heartbeat=make_heartbeat(emit))


def _tracks_of_split(split: str, tracks: pa.Table, snapshot: Snapshot) -> Tracks:
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
