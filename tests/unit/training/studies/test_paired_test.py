"""The paired test by artist."""

import numpy as np
import pyarrow as pa
import pytest

from training.studies.paired_test import PairedTest, compare_artists, name_differing, paired_test
from training.studies.trial import PREDICTIONS_SCHEMA


def predictions(correct, artists):
    rows = [
        {"track_id": str(number), "artist": artist, "truth": [1, 0], "probabilities": [it, 1 - it]}
        for number, (it, artist) in enumerate(zip(correct, artists, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA)


def test_few_artists_are_tested_exactly():
    """Of the 2^5 ways to flip five equal differences, two are as extreme."""
    found = compare_artists(np.ones(10), np.arange(10) // 2)
    assert found.p == 2 / 2**5
    assert (found.difference, found.low, found.high, found.artists) == (1.0, 1.0, 1.0, 5)
    assert not found.differs


def test_tracks_of_one_artist_count_once():
    """Twenty tracks of two artists are no more evidence than two."""
    assert compare_artists(np.ones(20), np.arange(20) % 2).p == 0.5
    assert compare_artists(np.ones(20), np.arange(20)).p < 0.001


@pytest.mark.parametrize("artists", [5, 40])
def test_equal_models_do_not_differ(artists):
    found = compare_artists(np.zeros(80), np.arange(80) % artists)
    assert (found.p, found.difference) == (1.0, 0.0)


def test_models_are_compared_on_the_tracks_that_both_predicted():
    artists = [f"artist {number}" for number in range(8)]
    one, other = predictions([1] * 8, artists), predictions([0] * 8, artists).slice(2)
    found = paired_test(one, other)
    assert (found.tracks, found.difference) == (6, 1.0)
    assert paired_test(one.slice(0, 2), other) is None


def test_a_p_value_is_never_shown_as_zero():
    texts = [PairedTest(0.1, 0.0, 0.2, p, 10, 5).p_text for p in (0.0001, 0.001, 0.0496)]
    assert texts == ["p < 0.001", "p = 0.001", "p = 0.050"]


def test_what_one_of_many_comparisons_would_be_by_luck_is_noise():
    """Holm: the lowest of three p-values is multiplied by 3, the next by 2, up to the first that is 0.05 or more."""
    tests = {"b": with_p(0.024), "a": with_p(0.016), "c": with_p(0.04)}
    assert name_differing(tests) == ["a", "b", "c"]
    assert name_differing(tests | {"one more": None}) == ["a", "b", "c"]
    assert name_differing(tests | {"d": with_p(0.9)}) == []
    assert name_differing({"one alone": tests["c"]}) == ["one alone"]
    assert name_differing({"a": with_p(0.02), "b": with_p(0.021), "c": with_p(0.022)}) == [], (
        "the first decides"
    )


def with_p(p):
    return PairedTest(0.1, 0.0, 0.2, p, 100, 20)
