"""How balanced a catalogue is."""

import numpy as np
import pyarrow as pa

from training.studies.balance import count_shares, find_imbalances, most_confused_pair


def test_small_and_lopsided_genres_are_named():
    rows = [("Rock", "training", f"artist {number}") for number in range(80)]
    rows += [("Jazz", "training", "Coltrane")] * 4 + [
        ("Jazz", "test", f"artist {number}") for number in range(5)
    ]
    table = pa.table(
        {
            "track_id": [str(number) for number in range(len(rows))],
            "genre_top": [row[0] for row in rows],
            "split": [row[1] for row in rows],
            "artist": [row[2] for row in rows],
            "decoded_s": [1800.0] * len(rows),
        }
    )
    shares = count_shares(table)
    jazz = shares["Jazz", "training"]
    assert (jazz.tracks, len(jazz.artists), jazz.hours) == (4, 1, 2.0)
    found = " ".join(find_imbalances(shares))
    assert "Jazz has 5 test tracks: one of them is 20 points of its recall." in found
    assert "4 of the 9 tracks of Jazz are by Coltrane." in found
    assert "Rock has 8.9 times the tracks of Jazz" in found


def test_the_worst_pair_is_found_among_those_that_may_be():
    truth = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    predicted = np.eye(3)[[1, 1, 1, 1, 2, 0]]
    genres = ("a", "b", "c")
    assert most_confused_pair(genres, truth, predicted, genres) == ("a", "b")
    assert most_confused_pair(genres, truth, predicted, ("a", "c")) == ("a", "c")
