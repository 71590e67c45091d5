import numpy as np
import pytest

from training.feature_machine.kernel_machine import fit_machine
from training.label_audit.label_quality import assess_labels
from training.label_audit.swapped_labels import measure_recall, swap_labels


def test_as_many_labels_as_asked_for_are_swapped_each_for_another_and_the_same_for_a_seed():
    given_T = np.arange(100) % 4
    labels_T, is_swapped_T = swap_labels(given_T, 4, 0.05, seed=1)
    assert is_swapped_T.sum() == 5
    np.testing.assert_array_equal(labels_T != given_T, is_swapped_T)
    assert labels_T.max() < 4
    np.testing.assert_array_equal(labels_T, swap_labels(given_T, 4, 0.05, seed=1)[0])
    assert (labels_T != swap_labels(given_T, 4, 0.05, seed=2)[0]).any()


def test_recall_counts_the_swapped_labels_in_the_first_part_of_the_list():
    is_swapped_T = np.isin(np.arange(20), [3, 7, 11])
    found = measure_recall(
        np.array([3, 7, *[row for row in range(20) if row not in (3, 7)]]), is_swapped_T, 0.1
    )
    assert (found.swapped, found.listed, found.found) == (3, 2, 2)
    assert found.recall == pytest.approx(2 / 3)


def test_swapped_labels_of_separable_genres_are_the_first_of_the_list():
    random, genre_T = np.random.default_rng(0), np.arange(120) % 3
    features_TD = random.normal(4 * np.eye(3)[genre_T] @ np.ones((3, 1)) * genre_T[:, None], 0.3, (120, 4))
    labels_T, is_swapped_T = swap_labels(genre_T, 3, 0.05, seed=0)
    _, across_TG = fit_machine(
        features_TD.astype(np.float32),
        np.eye(3)[labels_T],
        np.arange(120) // 3,
        np.arange(120) // 3 % 5,
        {"shape": 4},
        "top",
        seed=0,
    )
    assert set(assess_labels(across_TG, labels_T).ranked()[:6]) == set(np.flatnonzero(is_swapped_T))
