"""A dataset is a set of immutable shards; a snapshot is the one file that names them.

    ROOT/zarr.json                      makes the folder a Zarr group
    ROOT/shards/NAME                    the tracks of one task: a Zarr array, mels end to end
    ROOT/catalogues/PART.parquet        the requested tracks, with their labels
    ROOT/index/PART.parquet             the shard and frames of each built track, or the reason it was rejected
    ROOT/files/PART.parquet             size and checksums of each file of each shard
    ROOT/sweeps/PART.parquet            what a sweep removed
    ROOT/snapshots/00000000.json        names all of the above: its creation is the commit

Commits form one chain. A sweep is a commit too: a writer whose unpublished files it removes finds that out when
it publishes on top, whatever the clocks say.

Axes: F frames, M mel bands.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import pyarrow as pa

from store.dataset.checksums import files_table
from store.dataset.parts import append_part, has_content, is_intact, put_part
from store.dataset.recipe import Recipe
from store.dataset.shard_objects import METADATA_FILE
from store.dataset.shards import Shard
from store.errors import BadInput, CommitConflict
from store.fs.files import exists, join, list_names, put_if_absent, read_bytes
from store.fs.parquet import read_table

FORMAT = 1  # of snapshot files; a reader refuses a greater one
Kind = Literal["build", "repair", "import", "sweep"]
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
    parent: str | None  # write_id of the snapshot it is on top of
    kind: Kind  # what published it
    created: str
    recipe: Recipe
    catalogue: str
    index: tuple[str, ...]
    files: tuple[str, ...]
    sweeps: tuple[str, ...]  # the lists of the last sweeps
    settings: dict[str, Any]


def publish(
    root: str,
    *,
    parent: SnapshotFile | None,
    shards: Iterable[Shard],
    index: pa.Table,
    catalogue: str,
    recipe: Recipe,
    settings: Mapping[str, Any],
    kind: Kind = "build",
) -> SnapshotFile:
    """Make shards visible, all at one instant, on top of `parent`.

    `index` has a row for each track that was built or rejected; `catalogue` comes from `put_catalogue`.

    Raises: CommitConflict if `parent` is no longer the latest snapshot, or a sweep has removed a shard.
    """
    files_of_shard = {shard.name: shard.files for shard in shards}
    names = [f"shards/{name}" for name in files_of_shard]
    if parent is not None:
        refuse_swept(root, parent, names if catalogue == parent.catalogue else [*names, catalogue])
    make_root(root)
    return commit(
        root,
        SnapshotFile(
            number=parent.number + 1 if parent else 0,
            write_id=uuid4().hex,
            parent=parent.write_id if parent else None,
            kind=kind,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=recipe,
            catalogue=catalogue,
            index=append_part(root, "index", parent.index if parent else (), index),
            files=append_part(root, "files", parent.files if parent else (), files_table(files_of_shard)),
            sweeps=parent.sweeps if parent else (),
            settings=dict(settings),
        ),
    )


def commit(root: str, snapshot: SnapshotFile) -> SnapshotFile:
    """Create the file of a snapshot. Raises: CommitConflict if another writer has published that number."""
    url = snapshot_url(root, snapshot.number)
    try:
        put_if_absent(url, _to_bytes({"format": FORMAT, **asdict(snapshot)}))
    except FileExistsError:
        # A client that retries by itself can be refused by the very write it just made.
        if _read_json(url).get("write_id") != snapshot.write_id:
            raise CommitConflict(
                f"{url}: another run published first; run again to continue on top of it"
            ) from None
    return snapshot


def refuse_swept(root: str, parent: SnapshotFile, names: Iterable[str]) -> None:
    """Raise CommitConflict if a sweep removed one of the files that are to be published."""
    removed = swept_names(root, parent).intersection(names)
    if removed:
        raise CommitConflict(
            f"{root}: a sweep removed {len(removed)} files that this run had not published yet, such as "
            f"{min(removed)}; run again to make them again, and sweep with more --grace-hours"
        )


def swept_names(root: str, snapshot: SnapshotFile) -> set[str]:
    """Return the files that the last sweeps removed, or are about to remove."""
    tables = [read_table(join(root, name), ["path"]) for name in snapshot.sweeps]
    return {path for table in tables for path in table["path"].to_pylist()}


def put_catalogue(root: str, catalogue: pa.Table) -> str:
    """Store the requested tracks, and return the name by which snapshots refer to them.

    A catalogue that the latest snapshot has is not stored again, unless its file is damaged.
    """
    latest = latest_snapshot(root)
    if latest is not None and has_content(latest.catalogue, "catalogues", catalogue):
        with suppress(FileNotFoundError):
            if is_intact(root, latest.catalogue):
                return latest.catalogue
    return put_part(root, "catalogues", catalogue)


def make_root(root: str) -> None:
    """Create the Zarr groups of the root and of its shards folder, so that `zarr.open(root)` opens the whole.

    Two writers may do so at the same instant, which zarr itself refuses.
    """
    for group in (root, join(root, "shards")):
        if not exists(join(group, METADATA_FILE)):
            with suppress(FileExistsError):
                put_if_absent(join(group, METADATA_FILE), ZARR_GROUP)


def snapshot_name(number: int) -> str:
    """Return the path of a snapshot file in the store."""
    return f"snapshots/{number:08d}.json"


def snapshot_url(root: str, number: int) -> str:
    """Return the URL of a snapshot file."""
    return join(root, snapshot_name(number))


def root_of_snapshot(url: str) -> str:
    """Return the root of the store that a snapshot file lies in."""
    return url.rstrip("/").rsplit("/", 2)[0]


def snapshot_numbers(root: str) -> list[int]:
    """Return the numbers of all snapshots that were ever published, in order."""
    names = list_names(join(root, "snapshots"))
    return [int(name.removesuffix(".json")) for name in names if SNAPSHOT_NAME.fullmatch(name)]


def latest_snapshot(root: str) -> SnapshotFile | None:
    """Read the newest snapshot file of a dataset; return None if nothing was published yet."""
    numbers = snapshot_numbers(root)
    return read_snapshot_file(snapshot_url(root, numbers[-1])) if numbers else None


def kept_snapshots(root: str) -> Iterator[SnapshotFile]:
    """Read all snapshots that no sweep has removed, newest first."""
    for number in reversed(snapshot_numbers(root)):
        content = _read_json(snapshot_url(root, number))
        if "removed" not in content:
            yield _parse(snapshot_url(root, number), content)


def read_snapshot_file(url: str) -> SnapshotFile:
    """Read one snapshot file.

    Raises: FileNotFoundError; BadInput if it is no snapshot file, is damaged, or was removed by a sweep.
    """
    content = _read_json(url)
    if "removed" in content:
        raise BadInput(
            f"{url}: a sweep removed this snapshot on {content['removed']}; `spectrogram-one store log` lists "
            "those that are left"
        )
    return _parse(url, content)


def removed_snapshot(snapshot: SnapshotFile) -> bytes:
    """Return what takes the place of a snapshot that a sweep removes: its number stays in use."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return _to_bytes({"format": FORMAT, "write_id": snapshot.write_id, "removed": now})


def _to_bytes(content: Mapping[str, Any]) -> bytes:
    return json.dumps({**content, "sha256": _digest(content)}, indent=1).encode()


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_json(url: str) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(url))
        version = content["format"]
        stated = content.pop("sha256", None)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as why:
        raise BadInput(f"{url}: not a snapshot of a dataset ({why}); name the folder of a store") from None
    if version != FORMAT:
        raise BadInput(
            f"{url}: format {version}, written by a newer version of this program (this one reads format "
            f"{FORMAT}); install that version"
        )
    if stated != _digest(content):
        raise BadInput(
            f"{url}: this snapshot file is damaged; restore it from a backup, or remove it if it is the last: "
            "the one before it is then the latest, and the next build adds what is missing"
        )
    return dict(content)


def _parse(url: str, content: Mapping[str, Any]) -> SnapshotFile:
    fields = {name: value for name, value in content.items() if name != "format"}
    fields["recipe"] = Recipe(**fields["recipe"])
    for name in ("index", "files", "sweeps"):
        fields[name] = tuple(fields[name])
    return SnapshotFile(**fields)
