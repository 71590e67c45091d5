"""Tracks by their distance in sound: nearest neighbours, and the most typical and most odd tracks of each genre.

Axes: T tracks, D features, G genres, K neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

ROWS_PER_BLOCK = 500  # of the matrix of distances, which bounds the memory


@dataclass(frozen=True)
class TrackDistances:
    """The nearest tracks by other artists of each track, and how well the track fits its genre by its sound.

    `typicality_T` is a silhouette: from 1 for a track that is much nearer to its own genre than to any other, to -1
    for one that is much nearer to another. It is nan for the only artist of a genre.
    """

    neighbour_TK: NDArray[np.int64]
    distance_TK: NDArray[np.float64]
    typicality_T: NDArray[np.float64]
    nearest_genre_T: NDArray[np.int64]  # of all genres, its own included


def measure_distances(
    features_TD: NDArray[np.float32], genre_T: NDArray[np.int64], artist_T: NDArray[np.int64], neighbours: int
) -> TrackDistances:
    """Compare tracks by the L1 distance of their features, with tracks of other artists only.

    Source: silhouette (Rousseeuw, 1987).

    Tracks of one artist share a sound and mostly a genre: by their own artist, all tracks would be typical.
    """
    genres = int(genre_T.max()) + 1
    blocks = list(_by_block(features_TD, genre_T, artist_T, genres, neighbours))
    neighbour_TK, distance_TK, mean_TG = (np.concatenate(each) for each in zip(*blocks, strict=True))
    rows = np.arange(len(genre_T))
    own_T = mean_TG[rows, genre_T]
    others_TG = mean_TG.copy()
    others_TG[rows, genre_T] = np.inf
    other_T = np.nanmin(others_TG, axis=1)
    greater_T = np.maximum(other_T, own_T)  # nan where the genre has no other artist
    is_known_T = np.isfinite(greater_T) & (greater_T > 0)
    typicality_T = np.full(len(rows), np.nan)
    np.divide(other_T - own_T, greater_T, out=typicality_T, where=is_known_T)
    nearest_genre_T = np.where(np.isnan(mean_TG), np.inf, mean_TG).argmin(axis=1)
    return TrackDistances(neighbour_TK, distance_TK, typicality_T, nearest_genre_T)


def _by_block(
    features_TD: NDArray[np.float32],
    genre_T: NDArray[np.int64],
    artist_T: NDArray[np.int64],
    genres: int,
    neighbours: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Yield neighbours, their distances and the mean distance to each genre, of one block of tracks after another."""
    is_of_genre_TG = (genre_T[:, None] == np.arange(genres)).astype(np.float64)
    for first in range(0, len(features_TD), ROWS_PER_BLOCK):
        rows = slice(first, first + ROWS_PER_BLOCK)
        distance_BT = cdist(features_TD[rows], features_TD, "cityblock")
        is_other_BT = artist_T[rows, None] != artist_T
        tracks_BG = is_other_BT @ is_of_genre_TG
        sum_BG = np.where(is_other_BT, distance_BT, 0.0) @ is_of_genre_TG
        mean_BG = np.where(tracks_BG > 0, sum_BG / np.maximum(tracks_BG, 1), np.nan)
        distance_BT[~is_other_BT] = np.inf
        nearest_BK = np.argsort(distance_BT, axis=1, kind="stable")[:, :neighbours]
        yield nearest_BK, np.take_along_axis(distance_BT, nearest_BK, axis=1), mean_BG


def rank_typical(
    typicality_T: NDArray[np.float64], is_of_genre_T: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the most typical and the most odd tracks of a genre, the most so first; no track is in both."""
    rows = np.flatnonzero(is_of_genre_T & ~np.isnan(typicality_T))
    ordered = rows[np.argsort(-typicality_T[rows], kind="stable")]
    count = min(count, len(ordered) // 2)
    return ordered[:count], ordered[::-1][:count]
