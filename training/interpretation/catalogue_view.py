"""A catalogue by the sound of its tracks: positions on a map, neighbours, typicality. The body of a Dask task.

Axes: T tracks, D features, K neighbours.
"""

import numpy as np
import pyarrow as pa

from preprocessing.catalogue.splits import group_tracks
from store.fs.parquet import read_table
from training.feature_machine.feature_table import select_features
from training.feature_machine.standardisation import fit_standardisation, sample_tracks
from training.feature_machine.track_features import read_block_sizes
from training.interpretation.catalogue_map import place_on_map
from training.interpretation.neighbours import measure_distances

MAX_TRACKS = 3_000  # all pairs are compared, and a browser draws so many points easily
NEIGHBOURS = 5
VIEW_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("typicality", pa.float64()),  # null for the only artist of a genre
        ("nearest_genre", pa.string()),
        ("neighbours", pa.list_(pa.string())),
        ("distances", pa.list_(pa.float64())),
    ]
)


def sample_catalogue(tracks: pa.Table, seed: int, most: int = MAX_TRACKS) -> pa.Table:
    """Return all tracks of a catalogue, or a random sample of `most` in their order."""
    return tracks.take(pa.array(sample_tracks(np.arange(len(tracks)), most, seed)))


def view_catalogue(tracks: pa.Table, features_url: str, seed: int) -> pa.Table:
    """Compare tracks, one genre each, by the features of a feature machine; VIEW_SCHEMA.

    The distance is the one of the feature machine's kernel, with all features of a block alike: no label is used.
    """
    table = read_table(features_url)
    features_TD = select_features(table, tracks["track_id"])
    artist_T, no_labels_T1 = group_tracks(tracks), np.ones((len(tracks), 1))
    standardisation = fit_standardisation(features_TD, no_labels_T1, artist_T, read_block_sizes(table), seed)
    z_TD = standardisation.apply(features_TD)
    genres, genre_T = np.unique(np.array(tracks["genre_top"].to_pylist(), object), return_inverse=True)
    found = measure_distances(z_TD, genre_T, artist_T, NEIGHBOURS)
    position_T2 = place_on_map(z_TD, seed)
    ids = np.array(tracks["track_id"].to_pylist(), object)
    is_near_TK = np.isfinite(found.distance_TK)  # else there are fewer tracks of other artists
    columns = {
        "track_id": ids,
        "x": position_T2[:, 0],
        "y": position_T2[:, 1],
        "typicality": pa.array(found.typicality_T, mask=np.isnan(found.typicality_T)),
        "nearest_genre": genres[found.nearest_genre_T],
        "neighbours": [
            ids[row_K[near_K]].tolist() for row_K, near_K in zip(found.neighbour_TK, is_near_TK, strict=True)
        ],
        "distances": [
            row_K[near_K].tolist() for row_K, near_K in zip(found.distance_TK, is_near_TK, strict=True)
        ],
    }
    return pa.table(columns).cast(VIEW_SCHEMA)
