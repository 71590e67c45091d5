"""The predictions of an audit: each track by feature machines that were fitted without its artist.

The body of a Dask task. Axes: T tracks, G genres, D features, R repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.catalogue.splits import assign_artist_folds, group_tracks
from store.errors import BadInput
from store.fs.parquet import read_table
from training.evaluation.probabilities import PROBABILITY_EPSILON, softmax
from training.feature_machine.feature_table import select_features
from training.feature_machine.fitting import assign_folds_or_fewer
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.track_features import read_block_sizes
from training.label_audit.swapped_labels import swap_labels

AUDIT_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("given", pa.int64()),  # index of the genre that was audited, swapped or not
        ("swapped", pa.bool_()),
        ("probabilities", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True)
class Audit:
    """The labels to audit. `tracks` are rows of a catalogue with one of the genres each.

    With a `swap_seed`, `swap_share` of the labels are swapped in memory first.
    """

    tracks: pa.Table
    genres: tuple[str, ...]
    features_url: str
    folds: int
    fold_seeds: tuple[int, ...]
    swap_share: float = 0.0
    swap_seed: int | None = None


def choose_audited_genres(tracks: pa.Table, genres: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the genres that can be audited, and those that a single artist has, whose tracks nothing can judge.

    Raises: BadInput if fewer than two can.
    """
    group_T = group_tracks(tracks)
    genre_T = np.array(tracks["genre_top"].to_pylist(), object)
    artists_of = {genre: len(np.unique(group_T[genre_T == genre])) for genre in genres}
    kept = tuple(genre for genre in genres if artists_of[genre] > 1)
    left_out = [genre for genre in genres if artists_of[genre] == 1]
    if len(kept) < 2:
        raise BadInput(
            f"{len(kept)} genre has two artists or more ({', '.join(kept) or 'none'}); an audit needs two such genres"
        )
    return kept, left_out


def predict_across_folds(audit: Audit) -> pa.Table:
    """Predict each track by machines that were not fitted on it or its artist; return AUDIT_SCHEMA.

    Several assignments to folds are averaged: what one machine predicts depends on which artists it lacks.
    """
    table = read_table(audit.features_url)
    features_TD = select_features(table, audit.tracks["track_id"])
    given_T = np.array([audit.genres.index(name) for name in audit.tracks["genre_top"].to_pylist()], np.int64)
    is_swapped_T = np.zeros(len(given_T), bool)
    if audit.swap_seed is not None:
        given_T, is_swapped_T = swap_labels(given_T, len(audit.genres), audit.swap_share, audit.swap_seed)
    sizes, target_TG = read_block_sizes(table), np.eye(len(audit.genres))[given_T]
    artist_T = group_tracks(audit.tracks)
    repeats = [
        fit_machine(features_TD, target_TG, artist_T, _folds(audit, seed), sizes, "top", seed)[1]
        for seed in audit.fold_seeds
    ]
    columns = [audit.tracks["track_id"], given_T, is_swapped_T, average(repeats).tolist()]
    return pa.table(columns, names=AUDIT_SCHEMA.names).cast(AUDIT_SCHEMA)


def average(repeats: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the normalised geometric mean of probabilities. Shapes: R of (T, G) -> (T, G)."""
    logs = [np.log(each_TG.clip(PROBABILITY_EPSILON, 1)) for each_TG in repeats]
    return softmax(np.mean(logs, axis=0))


def _folds(audit: Audit, seed: int) -> NDArray[np.int64]:
    """Assign artists to folds, fewer than asked for if a genre has fewer. Raises: BadInput if two are impossible."""
    fold_T, folds = assign_folds_or_fewer(audit.tracks, audit.folds, seed)
    return fold_T if folds > 1 else assign_artist_folds(audit.tracks, 2, seed)
