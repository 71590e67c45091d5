"""A dataset is a set of immutable shards; a snapshot is the one file that names them.

    ROOT/zarr.json                      makes the folder a Zarr group
    ROOT/shards/NAME                    the tracks of one task: a Zarr array, mels end to end
    ROOT/catalogues/HASH.parquet        the requested tracks, with their labels
    ROOT/index/HASH.parquet             the shard and frames of each built track, or the reason it was rejected
    ROOT/snapshots/00000000.json        names all of the above: its creation is the commit

Axes: F frames, M mel bands.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa

from store.dataset.recipe import Recipe
from store.errors import BadInput, CommitConflict
from store.fs.files import exists, join, list_names, put_if_absent, read_bytes
from store.fs.parquet import to_parquet

ZARR_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
SNAPSHOT_NAME = re.compile(r"\d{8}\.json")  # not the hidden draft that a killed writer leaves
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
        ("silence_s", pa.float64()),  # of long digital silence, which the spectrogram leaves out
        ("build_s", pa.float64()),
        ("signature", pa.string()),  # of the file when it was built: see store/fs/signatures.py
        ("sha256", pa.binary(32)),
        ("fingerprint", pa.binary(64)),  # of the audio: copies in other formats have similar ones
    ]
)


@dataclass(frozen=True)
class SnapshotFile:
    """The content of a snapshot file. Paths are relative to the dataset's root."""

    number: int
    write_id: str
    created: str
    recipe: Recipe
    catalogue: str
    index: tuple[str, ...]
    shards: tuple[str, ...]
    settings: dict[str, Any]


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

    `index` has a row for each track that was built or rejected; `catalogue` comes from `put_catalogue`.

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
    """Store the requested tracks, and return the name by which snapshots refer to them.

    A build publishes often and has one catalogue: so it is stored once, not with each snapshot.
    """
    return _put_table(root, "catalogues", catalogue)


def make_root(root: str) -> None:
    """Create the Zarr groups of the root and of its shards folder, so that `zarr.open(root)` opens the whole.

    Two writers may do so at the same instant, which zarr itself refuses.
    """
    for group in (root, join(root, "shards")):
        if not exists(join(group, "zarr.json")):
            with suppress(FileExistsError):
                put_if_absent(join(group, "zarr.json"), ZARR_GROUP)


def _put_table(root: str, folder: str, table: pa.Table) -> str:
    """Store a table under the hash of its content, once."""
    data = to_parquet(table)
    name = f"{folder}/{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    with suppress(FileExistsError):
        put_if_absent(join(root, name), data)
    return name


def snapshot_url(root: str, number: int) -> str:
    """Return the URL of a snapshot file."""
    return join(root, "snapshots", f"{number:08d}.json")


def latest_snapshot(root: str) -> SnapshotFile | None:
    """Read the newest snapshot file of a dataset; return None if nothing was published yet."""
    names = [name for name in list_names(join(root, "snapshots")) if SNAPSHOT_NAME.fullmatch(name)]
    return read_snapshot_file(join(root, "snapshots", names[-1])) if names else None


def read_snapshot_file(url: str) -> SnapshotFile:
    """Read one snapshot file. Raises: FileNotFoundError; BadInput if it is no snapshot file."""
    try:
        content = json.loads(read_bytes(url))
        content["recipe"] = Recipe(**content["recipe"])
        content["index"], content["shards"] = tuple(content["index"]), tuple(content["shards"])
        return SnapshotFile(**content)
    except (KeyError, TypeError, json.JSONDecodeError) as why:
        raise BadInput(f"{url}: not a snapshot of a dataset ({why}); name the folder of a store") from why
