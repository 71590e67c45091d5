"""The splits that a store has assigned its tracks to, which new splits must not change."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.catalogue.settings import SplitSettings
from preprocessing.catalogue.splits import resolve_split_mode
from store.dataset.snapshots import kept_snapshots
from store.fs.files import join
from store.fs.parquet import read_table
from store.reader import Snapshot

SPLIT_COLUMNS = ("track_id", "split")


def read_previous_splits(root: str, catalogue: pa.Table, settings: SplitSettings) -> pa.Table | None:
    """Return track_id and split of all tracks of finished builds, or None if all are to be assigned.

    The catalogue is the source's, with its official splits or none. Splits of an interrupted build
    are not kept but assigned again, so that a resumed build equals an uninterrupted one.

    A track's split is that of the newest build that had it. Older builds matter too: a track that the
    last one lacked, since a disk was missing for a night, may have been trained on before. Builds
    before the last one that assigned all tracks, or that did not split by artist, do not matter.
    """
    if not settings.keep_existing or resolve_split_mode(catalogue, settings) != "artist":
        return None
    previous: pa.Table | None = None
    for snapshot, splits in _finished_builds(root):
        was = snapshot.file.settings["catalogue"]["split"]
        as_then = settings.model_copy(update={"mode": was["mode"]})
        if resolve_split_mode(catalogue, as_then) != "artist":
            break  # official splits may have an artist in two: they cannot be continued
        if previous is None:
            previous = splits
        else:
            is_newer = pc.is_in(splits["track_id"], value_set=previous["track_id"].combine_chunks())
            previous = pa.concat_tables([previous, splits.filter(pc.invert(is_newer))])
        if not was.get("keep_existing", True):
            break
    return previous


def _finished_builds(root: str) -> Iterator[tuple[Snapshot, pa.Table]]:
    """Yield the last snapshot of each finished build, newest first, and the splits in its catalogue.

    A build publishes many snapshots with one catalogue, so each is read once, as is each part of the index.
    """
    seen: set[str] = set()
    unfinished: set[str] = set()
    tried_of_part: dict[str, pa.ChunkedArray] = {}
    next_number: int | None = None
    for file in kept_snapshots(root):
        if next_number not in (None, file.number):
            return  # those between were removed, so what a track's split was last is not known
        next_number = file.number - 1
        snapshot = Snapshot(root, file)
        build = f"{snapshot.file.catalogue} {snapshot.file.settings['catalogue']['split']}"
        if snapshot.file.catalogue in unfinished or build in seen:
            continue  # the last snapshot of a build has all of its tracks
        splits = snapshot.catalogue_columns(SPLIT_COLUMNS)
        if _is_finished(snapshot, splits["track_id"], tried_of_part):
            seen.add(build)
            yield snapshot, splits
        else:
            unfinished.add(snapshot.file.catalogue)


def _is_finished(
    snapshot: Snapshot, track_ids: pa.ChunkedArray, tried_of_part: dict[str, pa.ChunkedArray]
) -> bool:
    """Return whether every track of the catalogue was tried; `tried_of_part` caches the parts of the index."""
    for name in snapshot.file.index:
        if name not in tried_of_part:
            part = read_table(join(snapshot.root, name), ("track_id", "status"))
            tried_of_part[name] = part.filter(pc.is_valid(part["status"]))["track_id"]
    tried = pa.chunked_array((tried_of_part[name] for name in snapshot.file.index), pa.string())
    return bool(pc.all(pc.is_in(track_ids, value_set=tried.combine_chunks()), min_count=0).as_py())
