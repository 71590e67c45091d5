"""Removing what no snapshot names: shards and tables of builds that were killed, and of snapshots no longer kept.

A sweep removes in this order, so that it may end at any moment:
1. It publishes a snapshot with the list of all it is about to remove. A writer that has not published some of
   these files yet must publish on top of that snapshot: it reads the list, and is refused.
2. It reads the tags again. A tag written later is refused by its own writer, who reads the list.
3. It replaces the files of snapshots that are no longer kept, so that nothing names what they named.
4. It removes the files.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import pyarrow as pa

from store.dataset.parts import put_part
from store.dataset.shard_objects import METADATA_FILE
from store.dataset.snapshot_tags import read_tags
from store.dataset.snapshots import (
    SnapshotFile,
    commit,
    kept_snapshots,
    removed_snapshot,
    snapshot_name,
    snapshot_url,
)
from store.errors import BadInput, CommitConflict
from store.fs.files import change_time, change_times, join, list_names, put_if_absent, remove, write_atomic
from store.fs.parquet import read_table

FOLDERS = ("catalogues", "index", "files", "sweeps", "reports", "snapshots", "tags")
KEPT_SWEEPS = 32  # lists that later writers compare their files with
MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Sweep:
    """What a sweep removed, or would remove."""

    snapshots: tuple[int, ...]
    files: tuple[str, ...]  # paths in the store; a shard is a folder
    young: int  # unnamed files that were left since they may belong to a build that is running


def sweep(root: str, *, grace_s: float, keep_snapshots: int | None, is_dry_run: bool) -> Sweep:
    """Remove all that no kept snapshot names and that is older than `grace_s`.

    Kept are the newest `keep_snapshots` snapshots (None: all) and those with a tag.

    Raises: BadInput if nothing was published; CommitConflict if other writers publish all the time.
    """
    for attempts_left in reversed(range(MAX_ATTEMPTS)):
        snapshots = list(kept_snapshots(root))
        if not snapshots:
            raise BadInput(f"{root}: holds no published spectrograms, so what is in use is unknown")
        superseded = _superseded(snapshots, read_tags(root).values(), keep_snapshots)
        old, young = _unnamed(root, [it for it in snapshots if it not in superseded], grace_s)
        numbers = tuple(it.number for it in superseded)
        if is_dry_run or not (old or superseded):
            return Sweep(numbers, tuple(old), young)
        try:
            _announce(root, snapshots[0], [*old, *map(snapshot_name, numbers)])
        except CommitConflict:
            if not attempts_left:
                raise
            continue
        return _remove_all(root, snapshots, superseded, old, young)
    raise AssertionError("the last attempt returns or raises")


def _superseded(
    snapshots: Sequence[SnapshotFile], tagged: Iterable[int], keep_snapshots: int | None
) -> list[SnapshotFile]:
    """Return the snapshots, of all from new to old, that are neither among the newest builds nor tagged.

    A sweep's own snapshot has the content of the one before it: it counts as none, unless it is the latest.
    """
    if keep_snapshots is None:
        return []
    builds = [it.number for it in snapshots if it.kind != "sweep"]
    kept = {snapshots[0].number, *builds[:keep_snapshots], *tagged}
    return [it for it in snapshots if it.number not in kept]


def _unnamed(root: str, snapshots: Sequence[SnapshotFile], grace_s: float) -> tuple[list[str], int]:
    """Return the files and shards that no snapshot names and that are old; and how many others are too young."""
    named = _named(root, snapshots)
    names = [f"{folder}/{name}" for folder in FOLDERS for name in list_names(join(root, folder))]
    shards = [f"shards/{name}" for name in list_names(join(root, "shards")) if name != METADATA_FILE]
    files = [name for name in names if name not in named and not _is_commit_or_tag(name)]
    candidates = [*files, *(name for name in shards if name not in named)]
    if not candidates:
        return [], 0
    now_s = _now_s(root)
    changed_s = _file_times(root, files)
    for name in candidates[len(files) :]:  # a shard is as old as its newest file
        changed_s[name] = max(change_times(join(root, name)).values(), default=now_s)
    old = [name for name in candidates if now_s - changed_s.get(name, now_s) >= grace_s]
    return old, len(candidates) - len(old)


def _file_times(root: str, files: Sequence[str]) -> dict[str, float]:
    folders = {name.partition("/")[0] for name in files}
    return {
        f"{folder}/{name}": time
        for folder in folders
        for name, time in change_times(join(root, folder)).items()
    }


def _is_commit_or_tag(name: str) -> bool:
    """Return whether a file is a snapshot or a tag, and not the draft that a killed writer left beside them."""
    folder, _, last = name.partition("/")
    return folder in ("snapshots", "tags") and not last.startswith(".")


def _named(root: str, snapshots: Iterable[SnapshotFile]) -> set[str]:
    """Return the paths of all files and shards that some snapshots name."""
    named: set[str] = set()
    parts: set[str] = set()
    for it in snapshots:
        named |= {it.catalogue, *it.index, *it.files, *it.sweeps, f"reports/{it.number:08d}.parquet"}
        parts |= {*it.files, *it.index}
    for part in parts:
        shards = read_table(join(root, part), ["shard"])["shard"].unique().drop_null()
        named |= {f"shards/{shard}" for shard in shards.to_pylist()}
    return named


def _now_s(root: str) -> float:
    """Return the time by the clock of the store's file system, whatever the clock of this machine says."""
    probe = join(root, f".{uuid4().hex}.part")  # not in a folder that another sweep may sweep
    with suppress(FileExistsError):  # a request that was repeated
        put_if_absent(probe, b"")
    try:
        return change_time(probe)
    finally:
        remove(probe)


def _announce(root: str, latest: SnapshotFile, names: Sequence[str]) -> None:
    listed = put_part(root, "sweeps", pa.table({"path": pa.array(names, pa.string())}))
    commit(
        root,
        replace(
            latest,
            number=latest.number + 1,
            write_id=uuid4().hex,
            parent=latest.write_id,
            kind="sweep",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            sweeps=(*latest.sweeps, listed)[-KEPT_SWEEPS:],
        ),
    )


def _remove_all(
    root: str,
    snapshots: Sequence[SnapshotFile],
    superseded: Sequence[SnapshotFile],
    old: Sequence[str],
    young: int,
) -> Sweep:
    """Remove what was announced, except for what a snapshot names that was tagged in between."""
    tagged = set(read_tags(root).values())
    spared = [it for it in superseded if it.number in tagged]
    removed = [it for it in superseded if it.number not in tagged]
    named = _named(root, spared)
    for it in removed:
        write_atomic(snapshot_url(root, it.number), removed_snapshot(it))
    files = tuple(name for name in old if name not in named)
    for name in files:
        remove(join(root, name))
    return Sweep(tuple(it.number for it in removed), files, young)
