"""A snapshot as tar files, and back, for the terminal."""

from flows.reporting.progress import showing_progress
from store.dataset.concatenation import link_concatenation
from store.dataset.snapshot_tags import find_snapshot
from store.dataset.tar_files import INDEX_FILE, export_tars, import_tars
from store.fs.files import join
from store.fs.parquet import read_table
from store.reader import Snapshot


def export_store(root: str, which: str, target: str, tar_mib: int, seed: int) -> str:
    """Export a snapshot; return the line to print."""
    snapshot = Snapshot(root, find_snapshot(root, which))
    with showing_progress("Exporting", len(snapshot.track_ids), "tracks") as advance:
        result = export_tars(
            snapshot, target, tar_bytes=tar_mib << 20, seed=seed, advance=lambda tracks: advance(tracks, "")
        )
    return f"{target}: {result.tracks:,} spectrograms of snapshot {snapshot.number} in {len(result.tars):,} tar files"


def import_store(source: str, root: str) -> str:
    """Import an export; return the line to print."""
    with showing_progress("Importing", _tracks(source), "tracks") as advance:
        file = import_tars(source, root, advance=lambda tracks: advance(tracks, ""))
    link_concatenation(root)
    return f"{root}: snapshot {file.number} has the tracks of {source}"


def _tracks(source: str) -> int:
    try:
        return int(read_table(join(source, INDEX_FILE), ["shard"])["shard"].is_valid().to_numpy().sum())
    except FileNotFoundError:
        return 0  # the import reports what is missing
