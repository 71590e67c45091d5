import numpy as np
import pytest

from training.interpretation.neighbours import measure_distances, rank_typical

# On a line: genre 0 around 0, genre 1 around 10; one track of genre 0 lies among those of genre 1.
POSITIONS = np.array([[0], [1], [9.5], [10], [11], [12]], np.float32)
GENRES = np.array([0, 0, 0, 1, 1, 1])


def test_neighbours_are_the_nearest_tracks_of_other_artists():
    artists = np.array([0, 0, 1, 2, 3, 4])
    found = measure_distances(POSITIONS, GENRES, artists, 2)
    assert found.neighbour_TK.tolist()[0] == [2, 3]  # not 1, which is by the same artist
    assert found.distance_TK.tolist()[0] == [9.5, 10]
    assert found.neighbour_TK.tolist()[3] == [2, 4]


def test_typicality_is_the_silhouette_and_the_track_among_another_genre_is_the_odd_one():
    found = measure_distances(POSITIONS, GENRES, np.arange(6), 1)
    own, other = (1 + 9.5) / 2, (10 + 11 + 12) / 3
    assert found.typicality_T[0] == pytest.approx((other - own) / other)
    assert found.typicality_T[2] < 0
    assert found.nearest_genre_T.tolist() == [0, 0, 1, 1, 1, 1]
    typical, odd = rank_typical(found.typicality_T, GENRES == 0, 1)
    assert (typical.tolist(), odd.tolist()) == ([1], [2])


def test_the_only_artist_of_a_genre_is_neither_typical_nor_odd():
    found = measure_distances(POSITIONS, GENRES, np.array([0, 1, 2, 3, 3, 3]), 1)
    assert np.isnan(found.typicality_T[3:]).all()
    assert [len(rows) for rows in rank_typical(found.typicality_T, GENRES == 1, 2)] == [0, 0]


def test_equal_tracks_have_distance_0_and_no_typicality():
    found = measure_distances(np.zeros((4, 3), np.float32), np.array([0, 0, 1, 1]), np.arange(4), 9)
    assert found.distance_TK[0, :3].tolist() == [0, 0, 0]
    assert np.isnan(found.typicality_T).all()
