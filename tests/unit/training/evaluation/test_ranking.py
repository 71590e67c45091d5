import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.metrics import score
from training.evaluation.ranking import (
    average_precisions,
    precision_recall,
    resampled_mean_average_precision,
    roc_aucs,
)

# Ranks 1 to 5: yes, no, yes, no (two tracks of equal probability), yes.
TRUTH = np.array([True, False, True, True, False, True])[:, None]
PROBABILITY = np.array([0.9, 0.8, 0.7, 0.4, 0.4, 0.1])[:, None]


def test_average_precision_and_roc_auc_by_hand():
    # Recall rises by 1/4 at the thresholds 0.9, 0.7, 0.4 and 0.1, where 1 of 1, 2 of 3, 3 of 5 and 4 of 6 are right.
    assert average_precisions(TRUTH, PROBABILITY) == pytest.approx([(1 / 1 + 2 / 3 + 3 / 5 + 4 / 6) / 4])
    # Of 4 x 2 pairs of a track with and one without the genre, 2 + 1 + 1/2 + 0 are in order.
    assert roc_aucs(TRUTH, PROBABILITY) == pytest.approx([3.5 / 8])


def test_the_curve_by_hand():
    recall, precision = precision_recall(TRUTH[:, 0], PROBABILITY[:, 0])
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 2 / 4, 3 / 4, 1])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 3 / 5, 4 / 6])


def test_a_genre_that_no_track_or_every_track_has_is_not_ranked():
    truth = np.array([[1, 0, 1], [1, 0, 0]]) > 0
    probability = np.array([[0.5, 0.5, 0.9], [0.6, 0.4, 0.1]])
    for found in (average_precisions(truth, probability), roc_aucs(truth, probability)):
        np.testing.assert_array_equal(found, [np.nan, np.nan, 1.0])


@st.composite
def predictions(draw):
    tracks, genres = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = random.random((tracks, genres)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    return truth, random.random((tracks, genres)).round(draw(st.integers(0, 3)))  # with many equals


@given(drawn=predictions(), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_resample_is_ranked_like_its_tracks_repeated(drawn, seed):
    truth, probability = drawn
    weight_TR = np.random.default_rng(seed).integers(0, 3, (len(truth), 4)).astype(np.float32)
    found = resampled_mean_average_precision(truth, probability, weight_TR)
    for resample, weight_T in enumerate(weight_TR.T.astype(int)):
        rows = np.repeat(np.arange(len(truth)), weight_T)
        each = average_precisions(truth[rows], probability[rows])
        expected = np.nan if np.isnan(each).all() else np.nanmean(each)
        # Ratios of integers in float32, and a sum of at most as many of them as there are tracks.
        np.testing.assert_allclose(found[resample], expected, rtol=(len(rows) + 2) * np.finfo(np.float32).eps)


def test_means_are_over_genres_that_some_tracks_have_and_others_have_not():
    truth = [[1, 1, 0], [0, 1, 0], [1, 1, 0]]
    probability = [[0.9, 0.5, 0.1], [0.8, 0.6, 0.9], [0.1, 0.7, 0.2]]
    scores = score(truth, probability, ["a", "b", "c"], "multi")
    assert scores.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert scores.roc_auc == pytest.approx(0.5)
    assert [each.roc_auc for each in scores.genres] == [pytest.approx(0.5), None, None]
    none = score([[1, 0]], [[0.6, 0.4]], ["a", "b"], "multi")
    assert (none.mean_average_precision, none.roc_auc) == (None, None)


def test_scores_without_rankings_need_no_scikit_learn():
    script = """
import sys
from training.evaluation.metrics import score
scores = score([[1, 0], [0, 1]], [[0.6, 0.4], [0.4, 0.6]], ["a", "b"], "top", ranked=False)
print(scores.accuracy, scores.mean_average_precision, scores.genres[0].roc_auc, "sklearn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "None", "None", "False"]
