"""The stage of the baseline: a support-vector machine on the same tracks, beside every model."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.model_stages.features import store_once
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from store.fs.files import absolute
from store.fs.parquet import read_table
from store.reader import Snapshot
from training.selection.svm_baseline import (
    FEATURES_SCHEMA,
    compute_stored_features,
    limit_tracks,
    svm_predict,
)

TRACKS_PER_FEATURE_BATCH = 64
FIT_ONLY, UNUSED = -1, -2


def predict_by_baseline(
    cluster: Cluster, tracks: pa.Table, fold_T: NDArray[np.int64], snapshot: Snapshot, root: str
) -> NDArray[np.float64]:
    """Predict the tracks of each fold by a machine that was fitted on the others.

    Those in FIT_ONLY are fitted on and not predicted, those in UNUSED neither: their probabilities are 0.

    `tracks` are (track_id, target) of one genre each. Features are kept in `root`, by the tracks that they are of.
    """
    feature_TD = load_baseline_features(cluster, tracks["track_id"].to_pylist(), snapshot, root)
    target_TG = np.array(tracks["target"].to_pylist())
    probability_TG = np.zeros(target_TG.shape)
    for fold in np.unique(fold_T[fold_T >= 0]):
        is_out_T = fold_T == fold
        used = np.flatnonzero(~is_out_T & (fold_T != UNUSED))
        used = used[limit_tracks(target_TG[used])]
        known_G = target_TG[used].any(axis=0)
        if known_G.sum() > 1:
            probability_TG[np.ix_(is_out_T, known_G)] = svm_predict(
                feature_TD[used], target_TG[used][:, known_G], feature_TD[is_out_T]
            )
    return probability_TG


def load_baseline_features(
    cluster: Cluster, track_ids: list[str], snapshot: Snapshot, root: str
) -> NDArray[np.float32]:
    """Return the features of the baseline, computed once for these tracks and kept in `root`. Shapes: (T, D)."""
    table = read_table(store_baseline_features(cluster, track_ids, snapshot, root))
    feature_of = dict(zip(table["track_id"].to_pylist(), table["features"].to_pylist(), strict=True))
    return np.array([feature_of[track_id] for track_id in track_ids], np.float32)


def store_baseline_features(cluster: Cluster, track_ids: list[str], snapshot: Snapshot, root: str) -> str:
    """Compute the features of the baseline, unless `root` has them of these tracks; return their URL."""
    ordered = sorted(track_ids)
    return store_once(
        "baseline", ordered, snapshot, root, lambda: compute_features(cluster, ordered, snapshot)
    )


@stage
def compute_features(cluster: Cluster, track_ids: list[str], snapshot: Snapshot) -> pa.Table:
    """Compute the features of each track for the baseline."""
    with showing_progress("Computing features of the baseline", len(track_ids), "tracks") as advance:
        tables = [FEATURES_SCHEMA.empty_table()]
        batches = in_batches(track_ids, TRACKS_PER_FEATURE_BATCH)
        for batch, table in fan_out(
            cluster, compute_stored_features, batches, snapshot_url=absolute(snapshot.url)
        ):
            tables.append(table)
            advance(len(batch), "")
    return pa.concat_tables(tables)
