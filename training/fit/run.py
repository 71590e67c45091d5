"""A training run: a folder that says what to learn from which tracks, and receives what was learned.

The folder (a path or URL that every host sees) holds run.json and tracks.parquet, written before the
run, and start.safetensors if it does not start from fresh weights; checkpoints while it lasts;
weights.safetensors and history.json when it is finished.
"""

import hashlib
import io
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError, model_validator

from store.errors import BadInput
from store.fs.files import exists, join, read_bytes, write_whole
from training.fit.augment import AugmentSettings
from training.networks.network import WEIGHTS, ModelSettings
from training.networks.pretrained import StartSettings

TRACKS_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("split", pa.string()), ("target", pa.list_(pa.int8()))]
)
HISTORY, START = "history.json", "start.safetensors"


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """How a network is trained."""

    target: Literal["top", "multi"] = Field(
        "top", description="top: one genre a track; multi: each genre is there or not"
    )
    crop_s: float = Field(4.0, ge=0.5, le=60.0, description="Length of a training crop, in seconds")
    crops_per_track: int = Field(8, ge=1, le=1_000, description="Crops of each track in one epoch")
    epochs: int = Field(15, ge=1, le=10_000, description="Epochs of the whole run")
    batch_size: int = Field(32, ge=2, description="Crops of one step, over all processes together")
    crops_at_once: int = Field(
        16,
        ge=2,
        description="Crops that go through the network together, and over which batch norm takes its "
        "statistics; batch_size must be a multiple of this, and has so many groups for processes to share",
    )
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="Highest step size of AdamW")
    weight_decay: float = Field(0.05, ge=0.0, le=1.0, description="Decay of the weights, as AdamW defines it")
    warmup_share: float = Field(0.1, ge=0.0, le=0.5, description="Share of all steps in which the rate rises")
    max_grad_norm: float = Field(5.0, gt=0.0, description="Longer gradients are shortened to this norm")
    label_smoothing: float = Field(
        0.1, ge=0.0, lt=1.0, description="Share of the target given to all genres alike"
    )
    balance: bool = Field(False, description="Show every genre equally often (target top only)")
    validation_crops: int = Field(8, ge=1, le=100, description="Evenly spaced crops of each validation track")
    seed: int = Field(0, ge=0, lt=2**32, description="Fixes weights, crops, dropout and augmentation")
    compile: bool = Field(
        False,
        description="Compile the network with torch.compile, which takes a minute; on CPUs it gains nothing",
    )
    cache_gib: float = Field(
        2.0, ge=0.0, description="Spectrograms are held in memory if they fit in this, in GiB a process"
    )
    checkpoint_steps: int = Field(
        500, ge=1, description="A checkpoint is written after so many steps of an epoch, and after each epoch"
    )
    stall_s: float = Field(
        120.0, ge=5.0, description="A process that is silent for so long is lost, in seconds"
    )
    model: ModelSettings = Field(ModelSettings(), description="The network")
    start: StartSettings = Field(StartSettings(), description="What the network starts from")
    augment: AugmentSettings = Field(AugmentSettings(), description="How training crops are varied")

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if self.batch_size % self.crops_at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of crops_at_once {self.crops_at_once}"
            )
        if self.start.frozen_epochs > self.epochs:
            raise ValueError(f"frozen_epochs {self.start.frozen_epochs} is more than epochs {self.epochs}")
        if self.balance and self.target == "multi":
            raise ValueError("balance needs target top: a track of several genres cannot be counted once")
        return self


class TrainingRun(BaseModel, frozen=True, extra="forbid"):
    """What a run learns, and from what."""

    snapshot_url: str = Field(description="The snapshot that holds the spectrograms")
    spectrograms: str = Field("", description="Name of what is stored of the tracks: other audio, other name")
    mel_fingerprint: str = Field(description="The mel settings that the snapshot must have been built with")
    genres: tuple[str, ...] = Field(min_length=2, description="The genres, in the order of the logits")
    genre_parents: dict[str, str] = Field(
        {}, description="Genre to the one it is a kind of, where there is a tree"
    )
    start: str = Field("", description="SHA-256 of start.safetensors; empty where there is none")
    settings: TrainSettings = TrainSettings()


def write_run(folder: str, run: TrainingRun, tracks: pa.Table, start: bytes | None = None) -> None:
    """Lay out a run for `python -m training` to find; run.json is last, and makes it one.

    `start` is what `training.networks.pretrained.read_start` gave, if the network does not start from fresh weights.
    """
    if start is not None:
        write_whole(join(folder, START), start)
    table = io.BytesIO()
    pq.write_table(tracks.select(TRACKS_SCHEMA.names).cast(TRACKS_SCHEMA), table)
    write_whole(join(folder, "tracks.parquet"), table.getvalue())
    write_whole(join(folder, "run.json"), run.model_dump_json(indent=2).encode())


def read_run(folder: str) -> tuple[TrainingRun, pa.Table]:
    """Read a run and those of its tracks that may be learned from: the test split stays unread.

    Raises: BadInput if there is no run, or its tracks do not fit its genres.
    """
    try:
        run = TrainingRun.model_validate_json(read_bytes(join(folder, "run.json")))
        table = io.BytesIO(read_bytes(join(folder, "tracks.parquet")))
        tracks = pq.read_table(table, filters=[("split", "in", ["training", "validation"])])
    except FileNotFoundError as error:
        raise BadInput(f"{folder}: {error.filename or error} is missing; write_run makes it") from None
    except (ValidationError, pa.ArrowInvalid) as error:
        raise BadInput(f"{folder}: not a training run: {' '.join(str(error).split())}") from None
    _check_tracks(folder, run, tracks)
    return run, tracks


def read_start_of(folder: str, run: TrainingRun) -> bytes:
    """Read what the run starts from. Raises: BadInput if it is not what the run was laid out with."""
    try:
        data = read_bytes(join(folder, START))
    except FileNotFoundError:
        raise BadInput(f"{join(folder, START)}: missing; run the same command again to lay it out") from None
    if hashlib.sha256(data).hexdigest() != run.start:
        raise BadInput(f"{join(folder, START)}: damaged or changed; delete this run's folder and train again")
    return data


def finished(folder: str) -> bool:
    """Say whether the run has left its results."""
    return all(exists(join(folder, name)) for name in (HISTORY, WEIGHTS))


def fingerprint(run: TrainingRun, tracks: pa.Table) -> str:
    """Name all that decides what a run learns, and nothing else: not where nor on how many processes."""
    settings = run.settings.model_dump_json(
        exclude={"cache_gib": True, "stall_s": True, "start": {"weights"}}
    )
    return hashlib.sha256(f"{name_data(run, tracks)}{run.start}{settings}".encode()).hexdigest()[:12]


def name_data(run: TrainingRun, tracks: pa.Table) -> str:
    """Name what a run learns from, whatever its settings: tracks, targets and spectrograms."""
    digest = hashlib.sha256(f"{run.spectrograms}{run.mel_fingerprint}{list(run.genres)}".encode())
    for row in tracks.select(TRACKS_SCHEMA.names).to_pylist():
        digest.update(repr(tuple(row.values())).encode())
    return digest.hexdigest()[:12]


def _check_tracks(folder: str, run: TrainingRun, tracks: pa.Table) -> None:
    splits, targets = tracks["split"].to_pylist(), tracks["target"].to_pylist()
    for split in ("training", "validation"):
        if split not in splits:
            raise BadInput(f"{folder}: no {split} track; it takes one at least")
    ones = [sum(target) if len(target) == len(run.genres) else -1 for target in targets]
    wanted = "one 1" if run.settings.target == "top" else "any number of 1"
    for track_id, count in zip(tracks["track_id"].to_pylist(), ones, strict=True):
        if count < 0 or (run.settings.target == "top" and count != 1):
            raise BadInput(
                f"{folder}: the target of track {track_id} must be {len(run.genres)} values, {wanted}"
            )
    learned = [target for split, target in zip(splits, targets, strict=True) if split == "training"]
    for genre, *row in zip(run.genres, *learned, strict=True):
        if not any(row):
            raise BadInput(f"{folder}: no training track has the genre {genre}; leave it out or add tracks")
