"""The stage of librosa's features: computed from the audio of all tracks, once, on Dask."""

import pyarrow as pa

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.model_stages.features import store_once
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from store.reader import Snapshot
from training.studies.librosa_table import compute_librosa_features

TRACKS_PER_BATCH = 8  # a track takes about a second


def store_librosa_features(cluster: Cluster, tracks: pa.Table, snapshot: Snapshot, root: str) -> str:
    """Compute librosa's features of tracks, unless `root` has them; return their URL."""
    ordered = tracks.sort_by("track_id")
    track_ids = ordered["track_id"].to_pylist()
    return store_once("librosa", track_ids, snapshot, root, lambda: compute_all(cluster, ordered))


@stage
def compute_all(cluster: Cluster, tracks: pa.Table) -> pa.Table:
    """Compute librosa's features of tracks from their audio."""
    rows = zip(tracks["track_id"].to_pylist(), tracks["url"].to_pylist(), strict=True)
    with showing_progress("Computing librosa's features", len(tracks), "tracks") as advance:
        tables = []
        for batch, table in fan_out(cluster, compute_librosa_features, in_batches(rows, TRACKS_PER_BATCH)):
            tables.append(table)
            advance(len(batch), "")
    return pa.concat_tables(tables)
