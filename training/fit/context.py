"""The part of a training that is the same in all its epochs.

Axes: T tracks, G genres.
"""

import math
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.reader import Snapshot
from training.fit.distributed import RankContext
from training.fit.events import Emit
from training.fit.run import TrainingRun
from training.fit.settings import TrainSettings
from training.loading.batches import CropSource
from training.loading.crops import Tracks, micro_batches_of_rank


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
        source=snapshot.reader,
        crop_frames=MelSettings.model_validate(snapshot.mel_settings).count_frames(settings.crop_s),
        steps=math.ceil(len(training) * settings.crops_per_track / settings.batch_size),
        micro_batches=micro_batches,
    )


def _tracks_of_split(split: str, tracks: pa.Table, snapshot: Snapshot) -> Tracks:
    rows = tracks.filter(pc.equal(tracks["split"], split))
    locations = snapshot.locate(rows["track_id"])
    missing = rows["track_id"].filter(pa.array(locations.shard_T < 0))
    if len(missing):
        raise BadInput(
            f"{snapshot.url}: has no spectrogram of track {missing[0]} ({len(missing)} missing); "
            "build them, or leave them out of the run"
        )
    target_TG = pc.list_flatten(rows["target"]).to_numpy().reshape(len(rows), -1)
    return Tracks(rows["track_id"], locations, target_TG)
