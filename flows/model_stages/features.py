"""The stages of a feature machine: the features of all tracks, computed once for a root, and the fit of a run."""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.reporting.progress import showing_progress
from flows.reporting.stage import stage
from preprocessing.catalogue.splits import group_tracks
from preprocessing.features.musicnn import Musicnn, check_musicnn_mel
from preprocessing.features.musicnn_weights import read_musicnn
from preprocessing.features.patches import PatchDictionary
from preprocessing.mel.settings import MelSettings
from store.dataset.frame_reader import LOCATION_COLUMNS
from store.fs.files import absolute, exists, join, write_atomic
from store.fs.parquet import read_table, write_table
from store.reader import Snapshot
from training.feature_machine.fitting import (
    assign_folds_or_fewer,
    fit_feature_machine,
    fit_patch_dictionary,
    join_catalogue,
)
from training.feature_machine.track_features import compute_stored_blocks, compute_stored_patch_blocks
from training.feature_machine.version_file import FEATURES_FILE, FittedFeatures, recipe_of, write_features
from training.fit.run import TrainingRun
from training.networks.settings import ModelSettings
from training.run_files import HISTORY_FILE

TRACKS_PER_FEATURE_BATCH = 64
FOLDS = 5  # across which a machine's scores are calibrated


def fit_run_features(
    cluster: Cluster, folder: str, run: TrainingRun, snapshot: Snapshot, tracks: pa.Table, root: str
) -> None:
    """Fit the feature machine of a run on its training and validation tracks, unless that is done.

    It chooses nothing by the validation tracks: what it predicts for them is predicted across folds.
    """
    if exists(join(folder, FEATURES_FILE)):
        return
    used = tracks.filter(pc.not_equal(tracks["split"], "test"))
    seed = run.settings.seed
    catalogue = join_catalogue(used, snapshot.tracks)
    fold_T, _ = assign_folds_or_fewer(catalogue, FOLDS, seed)
    musicnn = load_musicnn(run.settings.model, snapshot)
    blocks = load_blocks(cluster, tracks["track_id"].to_pylist(), snapshot, root, musicnn)
    fitted = fit_on_tracks(cluster, blocks, used, group_tracks(catalogue), fold_T, snapshot, run, musicnn)
    write_features(folder, fitted, MelSettings.model_validate(snapshot.mel_settings))
    if not exists(join(folder, HISTORY_FILE)):
        write_atomic(join(folder, HISTORY_FILE), json.dumps({"best_epoch": 0, "epochs": []}).encode())


def fit_on_tracks(
    cluster: Cluster,
    blocks: pa.Table,
    tracks: pa.Table,
    artist_T: NDArray[np.int64],
    fold_T: NDArray[np.int64],
    snapshot: Snapshot,
    run: TrainingRun,
    musicnn: Musicnn | None,
) -> FittedFeatures:
    """Fit a dictionary of patches and a feature machine on tracks; the folds share no artist."""
    track_ids, seed = tracks["track_id"].to_pylist(), run.settings.seed
    dictionary = fit_patch_dictionary(blocks, track_ids, seed)
    patch_features = compute_patch_features(cluster, track_ids, snapshot, dictionary)
    return fit_feature_machine(
        blocks,
        patch_features,
        dictionary,
        tracks,
        artist_T,
        fold_T,
        run.settings.target,
        seed,
        musicnn,
    )


def load_musicnn(model: ModelSettings, snapshot: Snapshot) -> Musicnn | None:
    """Read musicnn if the settings name its wheel. Raises: BadInput for another file, or other spectrograms."""
    if not model.has_musicnn:
        return None
    check_musicnn_mel(MelSettings.model_validate(snapshot.mel_settings))
    return read_musicnn(model.musicnn)


def load_blocks(
    cluster: Cluster, track_ids: list[str], snapshot: Snapshot, root: str, musicnn: Musicnn | None
) -> pa.Table:
    """Return the features that need no dictionary, computed once for these tracks and kept in `root`."""
    return read_table(store_blocks(cluster, track_ids, snapshot, root, musicnn))


def store_blocks(
    cluster: Cluster, track_ids: list[str], snapshot: Snapshot, root: str, musicnn: Musicnn | None
) -> str:
    """Compute the features that need no dictionary, unless `root` has them of these tracks; return their URL."""
    ordered = sorted(track_ids)

    def compute() -> pa.Table:
        return compute_blocks(cluster, ordered, snapshot, musicnn)

    return store_once(recipe_of(musicnn), ordered, snapshot, root, compute)


def store_once(
    kind: str, track_ids: list[str], snapshot: Snapshot, root: str, compute: Callable[[], pa.Table]
) -> str:
    """Compute features of a kind, unless `root` has them of these tracks, which are sorted; return their URL."""
    name = f"{hash_stored_tracks(snapshot, track_ids)}-{kind}.parquet"
    url = join(absolute(root), "features", name)
    if not exists(url):
        write_table(url, compute())
    return url


def hash_stored_tracks(snapshot: Snapshot, track_ids: list[str]) -> str:
    """Return a hash of what is stored of some tracks."""
    column = pa.chunked_array([track_ids], pa.string())
    rows = snapshot.read_index(column, LOCATION_COLUMNS)
    return snapshot.content_hash(rows.append_column("track_id", column))


@stage
def compute_blocks(
    cluster: Cluster, track_ids: list[str], snapshot: Snapshot, musicnn: Musicnn | None
) -> pa.Table:
    """Compute the features that need no dictionary."""
    with showing_progress("Computing features", len(track_ids), "tracks") as advance:
        tables = []
        for batch, table in fan_out(
            cluster,
            compute_stored_blocks,
            in_batches(track_ids, TRACKS_PER_FEATURE_BATCH),
            snapshot_url=absolute(snapshot.url),
            musicnn=musicnn,
        ):
            tables.append(table)
            advance(len(batch), "")
    return pa.concat_tables(tables)


@stage
def compute_patch_features(
    cluster: Cluster, track_ids: list[str], snapshot: Snapshot, dictionary: PatchDictionary
) -> dict[str, NDArray[np.float32]]:
    """Compute the features by a dictionary of patches."""
    features: dict[str, NDArray[np.float32]] = {}
    with showing_progress("Encoding patches", len(track_ids), "tracks") as advance:
        for batch, (ids, features_TD) in fan_out(
            cluster,
            compute_stored_patch_blocks,
            in_batches(track_ids, TRACKS_PER_FEATURE_BATCH),
            snapshot_url=absolute(snapshot.url),
            dictionary=dictionary,
        ):
            features |= dict(zip(ids, features_TD, strict=True))
            advance(len(batch), "")
    return features
