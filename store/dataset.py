"""A dataset is a set of immutable shards; a snapshot is the one file that names them.

    ROOT/zarr.json                      makes the folder a Zarr group
    ROOT/shards/NAME                    what one task stored: a Zarr array, mels end to end
    ROOT/catalogues/HASH.parquet        the tracks that were asked for, with their labels
    ROOT/index/NAME.parquet             where each built track lies, or why it was rejected
    ROOT/snapshots/00000000.json        names all of the above: its creation is the commit

Axes: F frames, M mel bands.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from store.errors import BadInput, CommitConflict
from store.files import exists, file_system, join, list_names, local_path, put_if_absent, read_bytes, sync
from store.tables import to_parquet

CHUNK_FRAMES = 1_024  # the unit of reading: about the 30 s clip of FMA
OBJECT_FRAMES = 65_536  # the unit of storage, a file or object: 16 MiB of float16 at 128 bands
Encoding = Literal["float16", "float32", "uint8"]
UINT8_LOWEST_DB, UINT8_STEP_DB = -100.0, 140.0 / 255  # -100 to +40 dB: all that 16-bit music reaches
ENCODING_ERROR_DB: Mapping[Encoding, float] = {  # the largest error of a value in [-100, 40] dB
    "float32": 0.0,
    "float16": 0.03125,
    "uint8": UINT8_STEP_DB / 2,
}

INDEX_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("status", pa.string()),  # ok | ok-truncated | rejected
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("shard", pa.string()),
        ("start_frame", pa.int64()),
        ("frames", pa.int64()),
        ("decoded_s", pa.float64()),
        ("stated_s", pa.float64()),
        ("build_s", pa.float64()),
        ("signature", pa.string()),  # of the file when it was tried: another one means another file
        ("sha256", pa.binary(32)),
        ("fingerprint", pa.binary(64)),  # of what is heard: copies in other formats are alike
    ]
)


@dataclass(frozen=True)
class Shard:
    """What one task stored: which frames are whose, and the hash of what was stored."""

    name: str
    starts: dict[str, int]
    frames: dict[str, int]
    sha256: str
    stored_bytes: int


@dataclass(frozen=True)
class Recipe:
    """How all spectrograms of a dataset were made: it holds one recipe only."""

    mel_settings: dict[str, Any]
    mel_fingerprint: str
    encoding: Encoding
    excerpt: dict[str, float | None]


@dataclass(frozen=True)
class SnapshotFile:
    """The content of a snapshot's file. Paths are relative to the dataset's root."""

    number: int
    write_id: str
    created: str
    recipe: Recipe
    catalogue: str
    index: tuple[str, ...]
    shards: tuple[str, ...]
    settings: dict[str, Any]


def encode(mel_FM: NDArray[np.float32], encoding: Encoding) -> NDArray[Any]:
    """Turn dB into what is stored. Units: dB; uint8 clips to [-100, 40] dB, see ENCODING_ERROR_DB."""
    match encoding:
        case "uint8":
            steps_FM = np.rint((mel_FM - UINT8_LOWEST_DB) / UINT8_STEP_DB)
            stored_FM: NDArray[Any] = np.clip(steps_FM, 0, 255).astype(np.uint8)
        case "float16" | "float32":
            stored_FM = mel_FM.astype(encoding)
    return stored_FM


def decode_stored(stored_FM: NDArray[Any]) -> NDArray[np.float32]:
    """Turn what is stored back into dB."""
    if stored_FM.dtype == np.uint8:
        return stored_FM.astype(np.float32) * np.float32(UINT8_STEP_DB) + np.float32(UINT8_LOWEST_DB)
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
    Raises: OSError if the disk fails or is full; what was written by then is removed.

    Pieces are taken one by one and written an object at a time: memory grows neither with
    the batch nor with a track. A task that is retried writes a second shard instead of racing the first.
    Neither can be seen until `publish` names it.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex}"
    url = join(root, "shards", name)
    starts: dict[str, int] = {}
    frames: dict[str, int] = {}
    digest = hashlib.sha256()
    try:
        array = _create_mel_array(url, bands, encoding, attributes)
        for first, rows_FM in _in_objects(_one_after_another(mels, starts, frames), bands, encoding):
            array.resize((first + len(rows_FM), bands))
            array[first : first + len(rows_FM)] = rows_FM
            digest.update(rows_FM.tobytes())
        array.attrs.update({"track_ids": list(starts), "start_frames": list(starts.values())})
        return Shard(name, starts, frames, digest.hexdigest(), _make_durable(url))
    except BaseException:  # Ctrl-C and cancelling too: nobody else knows the name of what is half written
        _remove(url)
        raise


def _create_mel_array(
    url: str, bands: int, encoding: Encoding, attributes: Mapping[str, Any]
) -> "zarr.Array[Any]":
    scale = {"scale_factor": UINT8_STEP_DB, "add_offset": UINT8_LOWEST_DB} if encoding == "uint8" else {}
    return zarr.create_array(
        url,
        shape=(0, bands),
        dtype=encoding,
        chunks=(CHUNK_FRAMES, bands),
        shards=(OBJECT_FRAMES, bands),
        compressors=BloscCodec(cname="lz4", clevel=5, shuffle=BloscShuffle.shuffle),
        dimension_names=("frame", "mel_band"),
        attributes={"units": "dB", **scale, **attributes},
        # Silence is stored like sound: so an object that is not there is one that was lost.
        config={"write_empty_chunks": True},
    )


def _one_after_another(
    mels: Iterable[tuple[str, Iterable[NDArray[np.float32]]]], starts: dict[str, int], frames: dict[str, int]
) -> Iterator[NDArray[np.float32]]:
    """Yield the pieces of all tracks; note where each track starts, and its frames."""
    at = 0
    for track_id, pieces in mels:
        assert track_id not in starts, f"{track_id} twice in one batch"
        starts[track_id] = at
        for piece_FM in pieces:
            at += len(piece_FM)
            yield piece_FM
        frames[track_id] = at - starts[track_id]


def _in_objects(
    pieces: Iterator[NDArray[np.float32]], bands: int, encoding: Encoding
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Encode pieces and cut them where storage objects end: none is written twice."""
    full_FM = np.empty((OBJECT_FRAMES, bands), encoding)
    first = filled = 0
    for piece_FM in pieces:
        while len(piece_FM):
            taken = min(len(piece_FM), OBJECT_FRAMES - filled)
            full_FM[filled : filled + taken] = encode(piece_FM[:taken], encoding)
            filled, piece_FM = filled + taken, piece_FM[taken:]
            if filled == OBJECT_FRAMES:
                yield first, full_FM
                first, filled = first + filled, 0
    if filled:
        yield first, full_FM[:filled]


def _make_durable(url: str) -> int:
    """Have a local disk hold every file of a shard; give their size in bytes."""
    path = local_path(url)
    if path is None:
        fs, remote = file_system(url)
        return int(fs.du(remote))
    size_bytes = 0
    for entry in [path, *path.rglob("*")]:
        sync(entry)
        size_bytes += entry.stat().st_size if entry.is_file() else 0
    return size_bytes


def _remove(url: str) -> None:
    fs, path = file_system(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def publish(
    root: str,
    *,
    parent: SnapshotFile | None,
    shards: Iterable[str],
    index: pa.Table,
    catalogue: str,
    recipe: Recipe,
    settings: Mapping[str, Any],
) -> SnapshotFile:
    """Make shards visible, all at one instant, on top of `parent`.

    `index` has a row for each track that was tried, `catalogue` is what `put_catalogue` answered.

    Raises: CommitConflict if `parent` is no longer the latest snapshot.
    """
    make_root(root)
    snapshot = SnapshotFile(
        number=parent.number + 1 if parent else 0,
        write_id=uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipe,
        catalogue=catalogue,
        index=(
            *(parent.index if parent else ()),
            *([_put_table(root, "index", index)] if len(index) else []),
        ),
        shards=(*(parent.shards if parent else ()), *shards),
        settings=dict(settings),
    )
    url = snapshot_url(root, snapshot.number)
    try:
        put_if_absent(url, json.dumps(asdict(snapshot), indent=1).encode())
    except FileExistsError:
        # A client that retries by itself can be refused by the very write it just made.
        if read_snapshot_file(url).write_id != snapshot.write_id:
            raise CommitConflict(
                f"{url}: another run published first; run again to continue on top of it"
            ) from None
    return snapshot


def put_catalogue(root: str, catalogue: pa.Table) -> str:
    """Store the tracks that were asked for, and give the name that snapshots know them by.

    A build publishes often and has one catalogue: so it is stored once, not with each snapshot.
    """
    return _put_table(root, "catalogues", catalogue)


def make_root(root: str) -> None:
    """Make the root and its shards folder Zarr groups, so that `zarr.open(root)` opens the whole."""
    for group in (root, join(root, "shards")):
        if not exists(join(group, "zarr.json")):
            zarr.open_group(group, mode="a", zarr_format=3)


def _put_table(root: str, folder: str, table: pa.Table) -> str:
    """Store a table under the hash of its content: what is there already is not written again."""
    data = to_parquet(table)
    name = f"{folder}/{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    with suppress(FileExistsError):
        put_if_absent(join(root, name), data)
    return name


def snapshot_url(root: str, number: int) -> str:
    """Name the file of a snapshot."""
    return join(root, "snapshots", f"{number:08d}.json")


def latest_snapshot(root: str) -> SnapshotFile | None:
    """Read the newest snapshot of a dataset, or None if nothing was published yet."""
    names = [name for name in list_names(join(root, "snapshots")) if name.endswith(".json")]
    return read_snapshot_file(join(root, "snapshots", names[-1])) if names else None


def read_snapshot_file(url: str) -> SnapshotFile:
    """Read one snapshot's file. Raises: BadInput if it is none."""
    try:
        content = json.loads(read_bytes(url))
        content["recipe"] = Recipe(**content["recipe"])
        content["index"], content["shards"] = tuple(content["index"]), tuple(content["shards"])
        return SnapshotFile(**content)
    except (KeyError, TypeError, json.JSONDecodeError) as why:
        raise BadInput(f"{url}: not a snapshot of a dataset ({why}); name the folder of a store") from why
