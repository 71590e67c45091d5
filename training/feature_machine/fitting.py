"""The fitting of a feature machine on tracks whose blocks are computed.

Axes: T tracks, D features, G genres, V values of a patch.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.catalogue.splits import assign_artist_folds, group_tracks
from preprocessing.features.musicnn import Musicnn
from preprocessing.features.patches import PatchDictionary, fit_dictionary
from store.errors import BadInput
from training.evaluation.calibration import Target
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.track_features import PATCHES_PER_TRACK, read_block_sizes
from training.feature_machine.version_file import FeatureMachine, FittedFeatures

MAX_DICTIONARY_TRACKS = 2_000


def fit_patch_dictionary(blocks: pa.Table, track_ids: list[str], seed: int) -> PatchDictionary:
    """Fit the dictionary on the patches of some tracks of a table of BLOCKS_SCHEMA."""
    rows = index_rows(blocks, track_ids)
    if len(rows) > MAX_DICTIONARY_TRACKS:
        rows = np.random.default_rng(seed).choice(rows, MAX_DICTIONARY_TRACKS, replace=False)
    patches = blocks["patches"].take(pa.array(rows)).combine_chunks()
    patch_values = patches.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    size = len(patch_values) // (len(rows) * PATCHES_PER_TRACK)
    return fit_dictionary(patch_values.reshape(-1, size), seed)


def fit_feature_machine(
    blocks: pa.Table,
    patch_features: Mapping[str, NDArray[np.float32]],
    dictionary: PatchDictionary,
    tracks: pa.Table,
    artist_T: NDArray[np.int64],
    fold_T: NDArray[np.int64],
    target: Target,
    seed: int,
    musicnn: Musicnn | None = None,
) -> FittedFeatures:
    """Fit a machine on tracks, whose (track_id, target) are `tracks`; `artist_T` are numbers of groups of tracks.

    `musicnn` is the network by which `blocks` has its embedding, if it has.
    """
    track_ids = tracks["track_id"].to_pylist()
    features_TD = assemble_features(blocks, patch_features, track_ids)
    sizes = read_block_sizes(blocks) | {"patches": dictionary.features}
    target_TG = np.array(tracks["target"].to_pylist(), np.float64)
    machine, across_TG = fit_machine(features_TD, target_TG, artist_T, fold_T, sizes, target, seed)
    return FittedFeatures(FeatureMachine(dictionary, machine, musicnn), tuple(track_ids), across_TG)


def assemble_features(
    blocks: pa.Table, patch_features: Mapping[str, NDArray[np.float32]], track_ids: list[str]
) -> NDArray[np.float32]:
    """Return all features of tracks, in the order of a crop's. Shapes: (T, D)."""
    rows = blocks["blocks"].take(pa.array(index_rows(blocks, track_ids))).combine_chunks()
    plain_TD = rows.flatten().to_numpy(zero_copy_only=False).reshape(len(track_ids), -1)
    patch_TD = np.stack([patch_features[track_id] for track_id in track_ids])
    return np.concatenate([plain_TD, patch_TD], axis=1).astype(np.float32)


def assign_folds_or_fewer(labelled: pa.Table, folds: int, seed: int) -> tuple[NDArray[np.int64], int]:
    """Assign tracks to folds that share no artist: as many as wanted, or as the artists allow, or two.

    Returns the fold of each track, and the number of folds; with 1, the artists are too few for any, and the
    folds are of single groups of tracks.
    """
    for count in range(folds, 1, -1):
        try:
            return assign_artist_folds(labelled, count, seed), count
        except BadInput:
            continue
    return group_tracks(labelled) % 2, 1


def join_catalogue(tracks: pa.Table, catalogue: pa.Table) -> pa.Table:
    """Return the rows of the catalogue for some tracks, in their order: their artists, albums and genres."""
    return catalogue.take(pc.index_in(tracks["track_id"], value_set=catalogue["track_id"].combine_chunks()))


def index_rows(blocks: pa.Table, track_ids: list[str]) -> NDArray[np.int64]:
    """Return the row of each track in a table."""
    row_of = {track_id: row for row, track_id in enumerate(blocks["track_id"].to_pylist())}
    return np.array([row_of[track_id] for track_id in track_ids], np.int64)
