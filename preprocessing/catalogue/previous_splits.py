"""The splits that a store has its tracks in already, for those to come to leave alone."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.catalogue.settings import SplitSettings
from preprocessing.catalogue.splits import resolve_split_mode
from store.dataset.snapshots import latest_snapshot, snapshot_url
from store.fs.files import exists, join
from store.fs.parquet import read_table
from store.reader import Snapshot, open_snapshot

SPLIT_COLUMNS = ("track_id", "split")


def read_previous_splits(root: str, catalogue: pa.Table, settings: SplitSettings) -> pa.Table | None:
    """Give track_id and split of all that finished builds knew, or None if all are to be dealt.

    The catalogue is the source's, with its official splits or none. What an interrupted
    build published does not count: it is dealt again, so that resumed equals uninterrupted.

    The newest build that knew a track says its split; a track that the last build lacked,
    since a disk was missing for a night, may have been learned from before. Nothing older
    counts than the last build that dealt all anew, or that did not split by artist.
    """
    if not settings.keep_existing or resolve_split_mode(catalogue, settings) != "artist":
        return None
    previous: pa.Table | None = None
    for snapshot, known in _finished_builds(root):
        wish = snapshot.file.settings["catalogue"]["split"]
        was = settings.model_copy(update={"mode": wish["mode"]})
        if resolve_split_mode(catalogue, was) != "artist":
            break  # official splits may part an artist: they are nothing to go on from
        if previous is None:
            previous = known
        else:
            is_newer = pc.is_in(known["track_id"], value_set=previous["track_id"].combine_chunks())
            previous = pa.concat_tables([previous, known.filter(pc.invert(is_newer))])
        if not wish.get("keep_existing", True):
            break
    return previous


def _finished_builds(root: str) -> Iterator[tuple[Snapshot, pa.Table]]:
    """Yield the last snapshot of each finished build, newest first, and what its catalogue says.

    A build publishes often under one catalogue, so each is read once, as is each part of the index.
    """
    latest = latest_snapshot(root)
    seen: set[str] = set()
    unfinished: set[str] = set()
    answered: dict[str, pa.ChunkedArray] = {}
    for number in reversed(range(latest.number + 1 if latest else 0)):
        url = snapshot_url(root, number)
        if not exists(url):
            return  # what came before was removed
        snapshot = open_snapshot(url)
        build = f"{snapshot.file.catalogue} {snapshot.file.settings['catalogue']['split']}"
        if snapshot.file.catalogue in unfinished or build in seen:
            continue  # the first snapshots of a build know less than its last
        known = snapshot.read_catalogue(SPLIT_COLUMNS)
        if _is_finished(snapshot, known["track_id"], answered):
            seen.add(build)
            yield snapshot, known
        else:
            unfinished.add(snapshot.file.catalogue)


def _is_finished(
    snapshot: Snapshot, track_ids: pa.ChunkedArray, answered: dict[str, pa.ChunkedArray]
) -> bool:
    """Say whether every track of the catalogue was tried; `answered` keeps the parts of the index read so far."""
    for name in snapshot.file.index:
        if name not in answered:
            part = read_table(join(snapshot.root, name), ("track_id", "status"))
            answered[name] = part.filter(pc.is_valid(part["status"]))["track_id"]
    tried = pa.chunked_array((answered[name] for name in snapshot.file.index), pa.string())
    return bool(pc.all(pc.is_in(track_ids, value_set=tried.combine_chunks()), min_count=0).as_py())
