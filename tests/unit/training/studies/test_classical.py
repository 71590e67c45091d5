"""Models without epochs."""

import numpy as np
import pytest

from training.studies.classical import draw_equally, predict_classically


@pytest.fixture(scope="module")
def tracks():
    random = np.random.default_rng(0)
    genre_T = np.repeat([0, 1, 2], [40, 10, 6])
    features_TD = (
        random.normal(0, 1, (56, 5)).astype(np.float32) + 4 * np.eye(3, 5, dtype=np.float32)[genre_T]
    )
    return features_TD, np.eye(3, dtype=np.int8)[genre_T]


@pytest.mark.parametrize("balancing", ["none", "weights", "sampling"])
@pytest.mark.parametrize("name", ["svm", "logistic"])
def test_each_model_learns_however_it_is_balanced(tracks, name, balancing):
    features_TD, target_TG = tracks
    probability_TG = predict_classically(
        name, features_TD, target_TG, features_TD, balancing=balancing, seed=0
    )
    np.testing.assert_allclose(probability_TG.sum(axis=1), 1, rtol=4 * np.finfo(np.float32).eps)  # three sums
    assert (probability_TG.argmax(axis=1) == target_TG.argmax(axis=1)).mean() > 0.9


def test_two_genres_have_two_probabilities(tracks):
    features_TD, target_TG = tracks
    two = target_TG[:50, :2]
    assert predict_classically("svm", features_TD[:50], two, features_TD, balancing="none", seed=0).shape == (
        56,
        2,
    )


def test_rare_genres_are_drawn_again_and_no_track_is_left_out():
    genre_T = np.repeat([0, 1], [7, 3])
    rows = draw_equally(genre_T, seed=0)
    assert np.bincount(genre_T[rows]).tolist() == [7, 7]
    assert set(rows) == set(range(10))
