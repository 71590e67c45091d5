import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from training.evaluation.metrics import score
from training.evaluation.ranking import (
    average_precisions,
    precision_recall,
    resampled_mean_average_precision,
    roc_aucs,
)


@st.composite
def answers(draw):
    tracks, genres = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = random.random((tracks, genres)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    return truth, random.random((tracks, genres)).round(draw(st.integers(0, 3)))  # with many equals


@given(drawn=answers())
@settings(max_examples=150, deadline=None)
def test_average_precision_and_roc_auc_are_those_of_scikit_learn(drawn):
    truth, chance = drawn
    ours = average_precisions(truth, chance), roc_aucs(truth, chance)
    for genre in range(truth.shape[1]):
        has, said = truth[:, genre], chance[:, genre]
        if has.all() or not has.any():
            assert np.isnan([each[genre] for each in ours]).all()
        else:
            assert ours[0][genre] == pytest.approx(average_precision_score(has, said))
            assert ours[1][genre] == pytest.approx(roc_auc_score(has, said))


@given(drawn=answers(), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_resample_is_ranked_like_its_tracks_laid_out(drawn, seed):
    truth, chance = drawn
    weight_TR = np.random.default_rng(seed).integers(0, 3, (len(truth), 4)).astype(np.float32)
    found = resampled_mean_average_precision(truth, chance, weight_TR)
    for place, weight_T in enumerate(weight_TR.T.astype(int)):
        rows = np.repeat(np.arange(len(truth)), weight_T)
        each = average_precisions(truth[rows], chance[rows])
        expected = np.nan if np.isnan(each).all() else np.nanmean(each)
        np.testing.assert_allclose(found[place], expected, rtol=1e-5)


@given(drawn=answers())
@settings(max_examples=50, deadline=None)
def test_the_curve_is_that_of_scikit_learn(drawn):
    truth, chance = drawn
    if not truth[:, 0].any():
        return
    recall, precision = precision_recall(truth[:, 0], chance[:, 0])
    theirs = precision_recall_curve(truth[:, 0], chance[:, 0])
    np.testing.assert_allclose(precision, theirs[0][-2::-1])
    np.testing.assert_allclose(recall, theirs[1][-2::-1])


def test_means_are_over_genres_that_have_both_kinds_of_tracks():
    truth = [[1, 1, 0], [0, 1, 0], [1, 1, 0]]
    chance = [[0.9, 0.5, 0.1], [0.8, 0.6, 0.9], [0.1, 0.7, 0.2]]
    scores = score(truth, chance, ["a", "b", "c"], "multi")
    assert scores.mean_average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert scores.roc_auc == pytest.approx(0.5)
    assert [each.roc_auc for each in scores.genres] == [pytest.approx(0.5), None, None]
    none = score([[1, 0]], [[0.6, 0.4]], ["a", "b"], "multi")
    assert (none.mean_average_precision, none.roc_auc) == (None, None)
