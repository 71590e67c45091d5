"""The splits that a store has its tracks in already, for those to come to leave alone."""

import pyarrow as pa

from preprocessing.splits import SplitSettings, split_mode
from store.dataset import latest_snapshot, snapshot_url
from store.files import exists
from store.reader import Snapshot, open_snapshot

COLUMNS = ("track_id", "split")


def read_former_splits(root: str, catalogue: pa.Table, settings: SplitSettings) -> pa.Table | None:
    """Give track_id and split of the last build that was finished, or None if all are to be dealt.

    The catalogue is the source's, with its official splits or none. What an interrupted
    build published does not count: it is dealt again, so that resumed equals uninterrupted.
    """
    latest = latest_snapshot(root)
    if latest is None or not settings.keep or split_mode(catalogue, settings) != "artist":
        return None
    unfinished: set[str] = set()
    for number in reversed(range(latest.number + 1)):
        url = snapshot_url(root, number)
        if not exists(url):
            return None  # what came before was removed
        snapshot = open_snapshot(url)
        if snapshot.file.catalogue in unfinished:
            continue  # of a build that published often: its first snapshots know less than its last
        if _is_finished(snapshot):
            was = settings.model_copy(update={"mode": snapshot.file.settings["catalogue"]["split"]["mode"]})
            # Official splits may part an artist: they are nothing to go on from.
            return snapshot.read_catalogue(COLUMNS) if split_mode(catalogue, was) == "artist" else None
        unfinished.add(snapshot.file.catalogue)
    return None


def _is_finished(snapshot: Snapshot) -> bool:
    """Say whether every track of the catalogue was tried."""
    track_ids = snapshot.read_catalogue(("track_id",))["track_id"]
    return bool(snapshot.answers(track_ids, ("status",))["status"].null_count == 0)
