import numpy as np
import pytest

from training.label_audit.label_quality import assess_labels, mean_self_confidence


def test_a_label_against_a_confident_prediction_is_first():
    probability_TG = np.array([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.6, 0.4]])
    quality = assess_labels(probability_TG, np.array([0, 1, 0, 0]))
    assert quality.ranked().tolist() == [2, 1, 3, 0]
    assert quality.suggested_T[2] == 1
    assert quality.given_probability_T[2] == pytest.approx(0.05)
    assert quality.suggested_probability_T[2] == pytest.approx(0.95)
    assert quality.conflicts().tolist() == [False, False, True, False]
    assert quality.is_confident_T.tolist() == [False, False, True, False]


def test_a_genre_of_which_the_model_is_never_sure_does_not_fill_the_top():
    """A probability of 0.4 is usual for genre 1 and low for genre 0."""
    sure, unsure = [0.9, 0.05, 0.05], [0.5, 0.4, 0.1]
    probability_TG = np.array([sure] * 8 + [unsure] * 8 + [[0.45, 0.05, 0.5]])
    quality = assess_labels(probability_TG, np.array([0] * 8 + [1] * 8 + [0]))
    assert quality.ranked()[0] == 16
    np.testing.assert_allclose(quality.quality_T[8:16], 1)
    assert quality.conflicts()[8:16].all()
    assert not quality.is_confident_T[8:16].any()


def test_the_threshold_of_a_genre_is_its_mean_self_confidence():
    probability_TG = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.3, 0.6, 0.1]])
    np.testing.assert_allclose(mean_self_confidence(probability_TG, np.array([0, 0, 1])), [0.7, 0.6, 0.1 / 3])
