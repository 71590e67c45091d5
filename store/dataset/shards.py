"""A shard: a batch of tracks, end to end, in one immutable, uncompressed Zarr array.

Axes: F frames, M mel bands.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray

from store.dataset.checksums import StoredFile, checksum_file
from store.dataset.recipe import Encoding
from store.dataset.shard_objects import (
    CHUNK_FRAMES,
    CHUNKS,
    METADATA_FILE,
    OBJECT_FRAMES,
    encode_index,
    pad_to_chunks,
)
from store.fs.files import (
    file_system,
    join,
    local_path,
    make_folder,
    read_bytes,
    sync_to_disk,
    translate_server_errors,
)

UINT8_MIN_DB, UINT8_STEP_DB = -100.0, 140.0 / 255  # -100 to +40 dB: all that 16-bit music reaches


@dataclass(frozen=True)
class Shard:
    """What one task stored: the first frame and the number of frames of each track."""

    name: str
    starts: dict[str, int]
    frames: dict[str, int]
    files: tuple[StoredFile, ...] = ()


def encode_db(mel_FM: NDArray[np.float32], encoding: Encoding) -> NDArray[Any]:
    """Encode dB values for storage. Units: dB; uint8 clips to [-100, 40] dB."""
    match encoding:
        case "uint8":
            steps_FM = np.rint((mel_FM - UINT8_MIN_DB) / UINT8_STEP_DB)
            stored_FM: NDArray[Any] = np.clip(steps_FM, 0, 255).astype(np.uint8)
        case "float16" | "float32":
            stored_FM = mel_FM.astype(encoding)
    return stored_FM


def decode_db(stored_FM: NDArray[Any]) -> NDArray[np.float32]:
    """Decode stored values to dB."""
    if stored_FM.dtype == np.uint8:
        return stored_FM.astype(np.float32) * np.float32(UINT8_STEP_DB) + np.float32(UINT8_MIN_DB)
    return stored_FM.astype(np.float32)


def write_shard(
    root: str,
    mels: Iterable[tuple[str, Iterable[NDArray[np.float32]]]],
    *,
    bands: int,
    encoding: Encoding,
    attributes: Mapping[str, Any],
) -> Shard:
    """Store a batch of tracks, end to end, under a name never used before.

    Shapes: each mel in pieces (F_ij, M), in dB -> one Zarr array (sum of F_ij, M).
    Raises: OSError if the disk fails or is full; what was written before is removed.

    Pieces are consumed one by one and written an object at a time: memory grows neither with
    the batch nor with a track. A task that is retried writes a second shard instead of racing the first.
    Neither is visible until `publish` names it.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex}"
    url = join(root, "shards", name)
    starts: dict[str, int] = {}
    frames: dict[str, int] = {}
    try:
        objects = _as_objects(_concatenate(mels, starts, frames), bands, encoding)
        total, files = _write_objects(url, objects)
        tracks = {"track_ids": list(starts), "start_frames": list(starts.values())}
        create_mel_metadata(url, (total, bands), encoding, {**attributes, **tracks})
        _sync_local_files(url)
        return Shard(
            name, starts, frames, (*files, _checksum(METADATA_FILE, read_bytes(join(url, METADATA_FILE))))
        )
    # Ctrl-C and cancelling too: no other process knows the name of a half-written shard.
    except BaseException:
        _remove(url)
        raise


def object_url(root: str, shard: str, number: int) -> str:
    """Return the URL of one of a shard's objects."""
    return join(root, "shards", shard, _object_path(number))


def _object_path(number: int) -> str:
    """Return the path of an object within its shard, as Zarr names it."""
    return f"c/{number}/0"


def _write_objects(url: str, objects: Iterable[NDArray[Any]]) -> tuple[int, list[StoredFile]]:
    """Write the objects of a shard; return the number of its frames, and the checksums of what was written.

    zarr-python pads the last object to its full size, and copies each one several times.
    """
    total, files = 0, []
    for number, rows_FM in enumerate(objects):
        total += len(rows_FM)
        chunks_FM = pad_to_chunks(rows_FM)
        chunk_bytes = CHUNK_FRAMES * chunks_FM[0].nbytes
        index = encode_index(len(chunks_FM) // CHUNK_FRAMES, chunk_bytes)
        content = b"".join([chunks_FM.data, index])
        _write_object(join(url, _object_path(number)), content)
        files.append(_checksum(_object_path(number), content))
    return total, files


def _checksum(path: str, content: bytes) -> StoredFile:
    return checksum_file(path, content, chunk_frames=CHUNK_FRAMES, chunks=CHUNKS)


def _write_object(url: str, content: bytes) -> None:
    path = local_path(url)
    if path is None:
        fs, remote = file_system(url)
        with translate_server_errors(url):
            fs.pipe_file(remote, content)
        return
    make_folder(path.parent)
    with path.open("xb") as file:
        file.write(content)


def create_mel_metadata(
    url: str,
    shape: tuple[int, int],
    encoding: Encoding,
    attributes: Mapping[str, Any],
    chunk_separator: Literal[".", "/"] = "/",
) -> None:
    """Create the array that objects are of, without any content."""
    scale = {"scale_factor": UINT8_STEP_DB, "add_offset": UINT8_MIN_DB} if encoding == "uint8" else {}
    bands = shape[1]
    zarr.create_array(  # last: a folder without it is the rest of a build that was killed
        url,
        shape=shape,
        dtype=encoding,
        chunks=(CHUNK_FRAMES, bands),
        shards=(OBJECT_FRAMES, bands),
        compressors=None,
        chunk_key_encoding={"name": "default", "separator": chunk_separator},
        fill_value=0 if encoding == "uint8" else float("nan"),  # of a lost object; silence is stored
        dimension_names=("frame", "mel_band"),
        attributes={"units": "dB", **scale, **attributes},
    )


def _concatenate(
    mels: Iterable[tuple[str, Iterable[NDArray[np.float32]]]], starts: dict[str, int], frames: dict[str, int]
) -> Iterator[NDArray[np.float32]]:
    """Yield the pieces of all tracks; record the start and the number of frames of each track."""
    at = 0
    for track_id, pieces in mels:
        assert track_id not in starts, f"{track_id} occurs twice in one batch"
        starts[track_id] = at
        for piece_FM in pieces:
            at += len(piece_FM)
            yield piece_FM
        frames[track_id] = at - starts[track_id]


def _as_objects(
    pieces: Iterator[NDArray[np.float32]], bands: int, encoding: Encoding
) -> Iterator[NDArray[Any]]:
    """Encode pieces and split them where storage objects end, so that no object is written twice."""
    full_FM = np.empty((OBJECT_FRAMES, bands), encoding)
    filled = 0
    for piece_FM in pieces:
        while len(piece_FM):
            taken = min(len(piece_FM), OBJECT_FRAMES - filled)
            full_FM[filled : filled + taken] = encode_db(piece_FM[:taken], encoding)
            filled, piece_FM = filled + taken, piece_FM[taken:]
            if filled == OBJECT_FRAMES:
                yield full_FM
                filled = 0
    if filled:
        yield full_FM[:filled]


def _sync_local_files(url: str) -> None:
    """Flush every file of a shard to a local disk; object stores need no flush."""
    path = local_path(url)
    if path is not None:
        for entry in [path, *path.rglob("*")]:
            sync_to_disk(entry)


def _remove(url: str) -> None:
    fs, path = file_system(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)
