"""A shard: a batch of tracks, end to end, in one immutable Zarr array.

Axes: F frames, M mel bands.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from store.dataset.checksums import StoredFile, checksum_file
from store.dataset.recipe import Encoding
from store.fs.files import file_system, join, local_path, read_bytes, sync_to_disk

CHUNK_FRAMES = 1_024  # the unit of reading: about the 30 s clip of FMA
OBJECT_FRAMES = 65_536  # the unit of storage, a file or object: 16 MiB of float16 at 128 bands
UINT8_MIN_DB, UINT8_STEP_DB = -100.0, 140.0 / 255  # -100 to +40 dB: all that 16-bit music reaches
ENCODING_ERROR_DB: Mapping[Encoding, float] = {  # the largest error of a value in [-100, 40] dB
    "float32": 0.0,
    "float16": 0.03125,
    "uint8": UINT8_STEP_DB / 2,
}


@dataclass(frozen=True)
class Shard:
    """What one task stored: the first frame and the number of frames of each track."""

    name: str
    starts: dict[str, int]
    frames: dict[str, int]
    files: tuple[StoredFile, ...] = ()


def encode_db(mel_FM: NDArray[np.float32], encoding: Encoding) -> NDArray[Any]:
    """Encode dB values for storage. Units: dB; uint8 clips to [-100, 40] dB, see ENCODING_ERROR_DB."""
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
        array = _create_mel_array(url, bands, encoding, attributes)
        for first, rows_FM in _as_objects(_concatenate(mels, starts, frames), bands, encoding):
            array.resize((first + len(rows_FM), bands))
            array[first : first + len(rows_FM)] = rows_FM
        array.attrs.update({"track_ids": list(starts), "start_frames": list(starts.values())})
        _sync_local_files(url)
        return Shard(name, starts, frames, _checksum_files(url))
    except (
        BaseException
    ):  # Ctrl-C and cancelling too: no other process knows the name of a half-written shard
        _remove(url)
        raise


def _create_mel_array(
    url: str, bands: int, encoding: Encoding, attributes: Mapping[str, Any]
) -> "zarr.Array[Any]":
    scale = {"scale_factor": UINT8_STEP_DB, "add_offset": UINT8_MIN_DB} if encoding == "uint8" else {}
    return zarr.create_array(
        url,
        shape=(0, bands),
        dtype=encoding,
        chunks=(CHUNK_FRAMES, bands),
        shards=(OBJECT_FRAMES, bands),
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle),
        dimension_names=("frame", "mel_band"),
        attributes={"units": "dB", **scale, **attributes},
        # Silence is stored like sound: so a missing object is a lost one.
        config={"write_empty_chunks": True},
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
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Encode pieces and split them where storage objects end, so that no object is written twice."""
    full_FM = np.empty((OBJECT_FRAMES, bands), encoding)
    first = filled = 0
    for piece_FM in pieces:
        while len(piece_FM):
            taken = min(len(piece_FM), OBJECT_FRAMES - filled)
            full_FM[filled : filled + taken] = encode_db(piece_FM[:taken], encoding)
            filled, piece_FM = filled + taken, piece_FM[taken:]
            if filled == OBJECT_FRAMES:
                yield first, full_FM
                first, filled = first + filled, 0
    if filled:
        yield first, full_FM[:filled]


def _checksum_files(url: str) -> tuple[StoredFile, ...]:
    """Read the files of a shard back, and return their sizes and checksums."""
    fs, folder = file_system(url)
    paths = sorted(path.removeprefix(f"{folder.rstrip('/')}/") for path in fs.find(folder))
    return tuple(
        checksum_file(
            path,
            read_bytes(join(url, path)),
            chunk_frames=CHUNK_FRAMES,
            chunks=OBJECT_FRAMES // CHUNK_FRAMES,
        )
        for path in paths
    )


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
