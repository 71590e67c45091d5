"""The latest snapshot as one array at the root of a local store, so that `xarray.open_zarr(STORE)` shows it.

    ROOT/mel                 frames x mel bands: the objects of all shards, by hard links, which take no space
    ROOT/start_frame, frames where each track of the snapshot begins in it, and its length; by track, in catalogue order
    ROOT/zarr.json           names the three

Only the last object of a shard is not full, so frames up to the next multiple of OBJECT_FRAMES belong to no track:
they are the fill value, or repeat the last frame to the end of its chunk.

Object stores, and some file systems, have no links: there each shard is opened by itself. The snapshot is the
dataset, this a view of it.
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray

from store.dataset.reader import open_snapshot
from store.dataset.shard_objects import METADATA_FILE, OBJECT_FRAMES
from store.dataset.shards import create_mel_metadata
from store.fs.files import local_path, write_atomic

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)


def relink_concatenation(root: str) -> None:
    """Link again where there is such an array: its links to the shards of older snapshots hold their space."""
    path = local_path(root)
    if path is not None and (path / "mel").is_dir():
        link_concatenation(root)


def link_concatenation(root: str) -> None:
    """Link the shards of the latest snapshot to one array, in place of the array of an earlier one."""
    path = local_path(root)
    if path is None:
        return
    snapshot = open_snapshot(root)
    found = snapshot.locate(snapshot.catalogue_columns(["track_id"])["track_id"])
    found = found.take(found.shard_T >= 0)
    # Other shards may be gone: all their tracks were built again.
    used = found.shards[np.unique(found.shard_T)]
    names = sorted(used.tolist())  # a name begins with its time: so an array grows at its end
    draft = path / f".concatenation-{uuid4().hex}"
    try:
        first_of, total = _link_objects(path, names, draft / "mel")
        attributes = {"mel": snapshot.mel_settings, "snapshot": snapshot.number}
        bands = int(snapshot.mel_settings["bands"])
        create_mel_metadata(
            str(draft / "mel"), (total, bands), snapshot.encoding, attributes, chunk_separator="."
        )
        first_S = np.array([first_of.get(name, 0) for name in found.shards], np.int64)
        _write_column(draft / "start_frame", first_S[found.shard_T] + found.start_T)
        _write_column(draft / "frames", found.frames_T)
        for part in ("mel", "start_frame", "frames"):
            _replace_folder(draft / part, path / part)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _name_arrays(path)


def _link_objects(root: Path, shards: list[str], folder: Path) -> tuple[Mapping[str, int], int]:
    """Link the objects of shards, in order; return the first frame of each shard, and the number of all frames."""
    folder.mkdir(parents=True)
    first_of: dict[str, int] = {}
    number = total = 0
    for name in shards:
        frames = int(json.loads((root / "shards" / name / METADATA_FILE).read_bytes())["shape"][0])
        first_of[name] = number * OBJECT_FRAMES
        total = first_of[name] + frames
        for own in range(-(-frames // OBJECT_FRAMES)):
            os.link(root / "shards" / name / "c" / str(own) / "0", folder / f"c.{number}.0")
            number += 1
    return first_of, total


def _write_column(path: Path, values_T: NDArray[np.int64]) -> None:
    zarr.create_array(str(path), data=values_T, chunks=(max(1, len(values_T)),), dimension_names=("track",))


def _replace_folder(draft: Path, path: Path) -> None:
    """Put a folder in the place of another: for a moment neither is there."""
    if path.exists():
        path.rename(draft.with_name(f"old-{path.name}"))
    draft.rename(path)


def _name_arrays(root: Path) -> None:
    """Write the metadata of the arrays into that of the root: so nobody lists it, and no other folder is in the way."""
    arrays: dict[str, Any] = {
        name: json.loads((root / name / METADATA_FILE).read_bytes())
        for name in ("mel", "start_frame", "frames")
    }
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}, "consolidated_metadata": consolidated}
    write_atomic(str(root / METADATA_FILE), json.dumps(group).encode())
