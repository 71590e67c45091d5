"""A training run: a folder with the settings and tracks of a training, and later its results.

The folder (a path or URL that every host sees) holds run.json and tracks.parquet, written before the
run, and pretrained.safetensors if it does not start from random weights; checkpoints while it lasts;
weights.safetensors and history.json when it is finished.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from store.errors import BadInput
from store.fs.column_hash import hash_columns
from store.fs.files import exists, join, read_bytes, write_atomic
from store.fs.parquet import read_table, write_table
from training.fit.settings import SETTINGS_WITHOUT_EFFECT, TrainSettings
from training.loading.settings import needs_artists
from training.networks.network import WEIGHTS_FILE
from training.run_files import HISTORY_FILE, PRETRAINED_FILE, RUN_FILE, TRACKS_FILE

TRACKS_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("split", pa.string()), ("target", pa.list_(pa.int8()))]
)
LABELLED_SCHEMA = pa.schema(
    [
        *TRACKS_SCHEMA,
        ("artist_number", pa.int32()),  # null for an unknown artist, or where nothing depends on it
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        ("start_frame", pa.int64()),
        ("frames", pa.int64()),
    ]
)


class TrainingRun(BaseModel, frozen=True, extra="forbid"):
    """The settings of a run, and the data that it is trained on."""

    snapshot_url: str = Field(description="The snapshot that holds the spectrograms")
    spectrograms_hash: str = Field("", description="Hash of the stored spectrograms of the tracks")
    mel_fingerprint: str = Field(description="The mel settings that the snapshot must have been built with")
    genres: tuple[str, ...] = Field(min_length=2, description="The genres, in the order of the logits")
    genre_parents: dict[str, str] = Field(
        {}, description="Genre to its parent among the genres, where there is a tree"
    )
    pretrained_sha256: str = Field(
        "", description="SHA-256 of pretrained.safetensors; empty where there is none"
    )
    settings: TrainSettings = TrainSettings()


def write_run(folder: str, run: TrainingRun, tracks: pa.Table, pretrained: bytes | None = None) -> None:
    """Write the folder of a run for `python -m training`; run.json is written last and completes it.

    Tracks are rows of TRACKS_SCHEMA, or of LABELLED_SCHEMA: with locations, no rank need look for them.
    `pretrained` is the result of `read_pretrained`, where training does not start from random weights.
    """
    if pretrained is not None:
        write_atomic(join(folder, PRETRAINED_FILE), pretrained)
    schema = LABELLED_SCHEMA if "shard" in tracks.column_names else TRACKS_SCHEMA
    write_table(join(folder, TRACKS_FILE), _pack_targets(tracks.select(schema.names).cast(schema)))
    write_atomic(join(folder, RUN_FILE), run.model_dump_json(indent=2).encode())


def read_run(folder: str) -> tuple[TrainingRun, pa.Table]:
    """Read a run with its training and validation tracks; the test split stays unread.

    Raises: BadInput if there is no run, or its tracks do not fit its genres.
    """
    try:
        run = TrainingRun.model_validate_json(read_bytes(join(folder, RUN_FILE)))
        packed = read_table(join(folder, TRACKS_FILE))
    except FileNotFoundError as error:
        raise BadInput(f"{folder}: {error.filename or error} is missing; write_run makes it") from None
    except (ValidationError, pa.ArrowInvalid) as error:
        raise BadInput(f"{folder}: not a training run: {' '.join(str(error).split())}") from None
    # Lists of a million targets are filtered by a list of all their values: filter them while they are bytes.
    tracks = _unpack_targets(packed.filter(pc.not_equal(packed["split"], "test")))
    _check_tracks(folder, run, tracks)
    return run, tracks


def read_run_tracks(folder: str) -> pa.Table:
    """Return all tracks of a run, as they were written. Raises: FileNotFoundError."""
    return _unpack_targets(read_table(join(folder, TRACKS_FILE)))


def read_run_pretrained(folder: str, run: TrainingRun) -> bytes:
    """Read the pretrained weights of a run. Raises: BadInput if their hash is not that in run.json."""
    try:
        data = read_bytes(join(folder, PRETRAINED_FILE))
    except FileNotFoundError:
        raise BadInput(
            f"{join(folder, PRETRAINED_FILE)}: missing; run the same command again to write it"
        ) from None
    if hashlib.sha256(data).hexdigest() != run.pretrained_sha256:
        raise BadInput(
            f"{join(folder, PRETRAINED_FILE)}: damaged or changed; delete this run's folder and train again"
        )
    return data


def is_finished(folder: str) -> bool:
    """Return whether the results of a run are there."""
    return all(exists(join(folder, name)) for name in (HISTORY_FILE, WEIGHTS_FILE))


def read_history(folder: str) -> dict[str, Any]:
    """Read the history of a finished run: `best_epoch`, and a row of `epochs` for each epoch."""
    history: dict[str, Any] = json.loads(read_bytes(join(folder, HISTORY_FILE)))
    return history


def run_hash(run: TrainingRun, tracks: pa.Table) -> str:
    """Hash all that decides the result of a run, and nothing else: not the place nor the number of processes."""
    settings = run.settings.model_dump_json(
        exclude={
            **dict.fromkeys(SETTINGS_WITHOUT_EFFECT, True),
            "pretrained": {"weights"},
            "model": {"musicnn"},  # a path: the weights are always the same
        }
    )
    digest = hashlib.sha256(f"{hash_training_data(run, tracks)}{run.pretrained_sha256}{settings}".encode())
    if run.settings.model.has_musicnn:
        digest.update(b"musicnn")
    if needs_artists(run.settings.balance) and "artist_number" in tracks.column_names:
        hash_columns(tracks.select(["artist_number"]), digest)
    return digest.hexdigest()[:12]


def hash_training_data(run: TrainingRun, tracks: pa.Table) -> str:
    """Hash the data of a run, whatever its settings: tracks, targets and spectrograms."""
    digest = hashlib.sha256(f"{run.spectrograms_hash}{run.mel_fingerprint}{list(run.genres)}".encode())
    hash_columns(tracks.select(TRACKS_SCHEMA.names).cast(TRACKS_SCHEMA), digest)
    return digest.hexdigest()[:12]


def _check_tracks(folder: str, run: TrainingRun, tracks: pa.Table) -> None:
    for split in ("training", "validation"):
        if not pc.any(pc.equal(tracks["split"], split)).as_py():
            raise BadInput(f"{folder}: no {split} track; need at least one")
    wanted = "one 1" if run.settings.target == "top" else "any number of 1"
    lengths_T = pc.list_value_length(tracks["target"]).to_numpy()
    wrong_T = lengths_T != len(run.genres)
    if not wrong_T.any():
        target_TG = targets_of(tracks)
        ones_T = target_TG.sum(axis=1)
        wrong_T = ones_T != 1 if run.settings.target == "top" else ones_T < 0
    if wrong_T.any():
        track_id = tracks["track_id"][int(wrong_T.argmax())]
        raise BadInput(f"{folder}: the target of track {track_id} must be {len(run.genres)} values, {wanted}")
    is_trained_G = target_TG[pc.equal(tracks["split"], "training").to_numpy()].any(axis=0)
    for genre, is_trained in zip(run.genres, is_trained_G, strict=True):
        if not is_trained:
            raise BadInput(f"{folder}: no training track has the genre {genre}; leave it out or add tracks")


def _pack_targets(tracks: pa.Table) -> pa.Table:
    """Turn lists of targets to strings of bytes: Parquet takes ten times as long for lists of small numbers."""
    return tracks.set_column(2, "target", _recast(tracks["target"], pa.binary()))


def _unpack_targets(packed: pa.Table) -> pa.Table:
    field = TRACKS_SCHEMA.field("target")
    return packed.set_column(2, field, _recast(packed["target"], field.type))


def _recast(column: pa.ChunkedArray, to: pa.DataType) -> pa.Array:
    """Return lists of int8 as strings of bytes, or these as lists: offsets and values are the same."""
    array = pa.concat_arrays([*column.chunks, pa.array([], column.type)])
    if pa.types.is_list(to):
        _, offsets, values = array.buffers()
        numbers = pa.Array.from_buffers(pa.int8(), values.size if values else 0, [None, values])
        return pa.ListArray.from_arrays(
            pa.Array.from_buffers(pa.int32(), len(array) + 1, [None, offsets]), numbers
        )
    return pa.Array.from_buffers(
        to, len(array), [None, array.offsets.buffers()[1], array.values.buffers()[1]]
    )


def artists_of(tracks: pa.Table) -> NDArray[np.int32] | None:
    """Return the number of each track's artist, -1 for an unknown one; None without a column of artists."""
    if "artist_number" not in tracks.column_names:
        return None
    artist_T: NDArray[np.int32] = pc.fill_null(tracks["artist_number"], -1).to_numpy()
    return artist_T


def targets_of(tracks: pa.Table) -> NDArray[np.int8]:
    """Return the targets of tracks that all have the same number of them. Shapes: (T, G)."""
    target_TG: NDArray[np.int8] = pc.list_flatten(tracks["target"]).to_numpy().reshape(len(tracks), -1)
    return target_TG
