"""Names that people give to snapshots. A tagged snapshot is never removed by a sweep.

ROOT/tags/NAME.json      {"snapshot": 3, "write_id": "..."}; by the id a writer recognises its own file
"""

import json
import re
from collections.abc import Mapping, Set
from uuid import uuid4

from store.dataset.snapshots import (
    SnapshotFile,
    latest_snapshot,
    read_snapshot_file,
    snapshot_name,
    snapshot_url,
    swept_names,
)
from store.errors import BadInput
from store.fs.files import join, list_names, put_if_absent, read_bytes, remove, write_atomic

LATEST = "latest"
TAG_NAME = re.compile(r"(?=.*[^\d])[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # no number: that names a snapshot


def read_tags(root: str) -> Mapping[str, int]:
    """Return the number of the snapshot that each tag names."""
    names = [name for name in list_names(join(root, "tags")) if not name.startswith(".")]
    return {name.removesuffix(".json"): _read(join(root, "tags", name)) for name in names}


def put_tag(root: str, name: str, number: int, *, move: bool = False) -> None:
    """Name a snapshot, so that sweeps keep it. `move` allows a tag that names another one.

    Raises: BadInput if the name cannot be used, or names another snapshot, or the snapshot is not there.

    A sweep publishes what it is about to remove, then reads the tags, then removes. So a tag that is written
    before that reading is respected; if it is written later, what the sweep published is visible here.
    """
    if TAG_NAME.fullmatch(name) is None or name == LATEST:
        raise BadInput(
            f"{name!r}: cannot be a tag; use letters, digits, '.', '_' and '-', and not a number or {LATEST!r}"
        )
    announced = _announced(root)
    read_snapshot_file(snapshot_url(root, number))
    refusal = BadInput(f"{root}: a sweep removes snapshot {number}, or was to; tag another one")
    if snapshot_name(number) in announced:
        raise refusal
    content = json.dumps({"snapshot": number, "write_id": uuid4().hex}).encode()
    before = _write(root, name, content, number, move=move)
    if snapshot_name(number) in _announced(root):
        _restore(root, name, before, announced)
        raise refusal


def remove_tag(root: str, name: str) -> None:
    """Remove a tag; the snapshot stays until a sweep removes it. Raises: BadInput if there is no such tag."""
    if name not in read_tags(root):
        raise BadInput(f"{root}: no tag is named {name!r}; `spectrogram-one store log` lists the tags")
    remove(_url(root, name))


def find_snapshot(root: str, which: str) -> SnapshotFile:
    """Read the snapshot that a number, a tag or "latest" names. Raises: BadInput if there is none."""
    if which == LATEST:
        latest = latest_snapshot(root)
        if latest is None:
            raise BadInput(f"{root}: holds no published spectrograms; run `spectrogram-one build` first")
        return latest
    number = int(which) if which.isdecimal() else read_tags(root).get(which)
    try:
        if number is not None:
            return read_snapshot_file(snapshot_url(root, number))
    except FileNotFoundError:
        pass
    raise BadInput(f"{root}: no snapshot {which!r}; `spectrogram-one store log` lists snapshots and tags")


def _write(root: str, name: str, content: bytes, number: int, *, move: bool) -> bytes | None:
    """Write a tag; return what it was before."""
    url = _url(root, name)
    try:
        put_if_absent(url, content)
        return None
    except FileExistsError:
        before = read_bytes(url)
    if before == content:
        return None  # a request that was repeated
    if _read(url) != number:
        if not move:
            raise BadInput(
                f"{root}: tag {name!r} names snapshot {_read(url)}; give --move to change that"
            ) from None
        write_atomic(url, content)
    return before


def _restore(root: str, name: str, before: bytes | None, announced: Set[str]) -> None:
    """Write what a tag was before; not if the snapshot it named was given up in between, when no tag named it."""
    url = _url(root, name)
    if before is not None:
        write_atomic(url, before)
        if snapshot_name(_read(url)) not in _announced(root) - announced:
            return
    remove(url)


def _announced(root: str) -> Set[str]:
    """Return all that sweeps have removed or are about to."""
    latest = latest_snapshot(root)
    return swept_names(root, latest) if latest is not None else frozenset()


def _url(root: str, name: str) -> str:
    return join(root, "tags", f"{name}.json")


def _read(url: str) -> int:
    try:
        return int(json.loads(read_bytes(url))["snapshot"])
    except (KeyError, TypeError, ValueError) as why:
        raise BadInput(f"{url}: not a tag ({why}); remove it and tag again") from None
