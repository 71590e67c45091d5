import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import sem
from sklearn.metrics import f1_score, top_k_accuracy_score

from training.evaluation.calibration import Calibration
from training.evaluation.metrics import assigned_probability, calibration_error, reliability, score

GENRES = ["Folk", "Jazz", "Rock"]
FOLK, JAZZ, ROCK = np.eye(3, dtype=np.int8)


def test_a_worked_example_of_one_genre_a_track():
    truth = [FOLK, FOLK, JAZZ, ROCK]
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.5, 0.25, 0.25]]
    scores = score(truth, probabilities, GENRES, "top")
    assert (scores.tracks, scores.correct, scores.accuracy, scores.chance) == (4, 2, 0.5, 0.5)
    assert scores.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 0))
    folk, jazz, rock = scores.genres
    assert (folk.support, folk.predicted, folk.precision, folk.recall, folk.f1) == (2, 2, 0.5, 0.5, 0.5)
    assert (jazz.precision, jazz.recall, jazz.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (rock.predicted, rock.precision, rock.recall, rock.f1) == (0, None, 0.0, 0.0)
    assert scores.macro_f1 == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert scores.log_loss == pytest.approx(-np.log([0.7, 0.1, 0.5, 0.25]).mean())
    assert scores.log_loss_standard_error == pytest.approx(sem(np.log([0.7, 0.1, 0.5, 0.25])))


def test_a_worked_example_of_several_genres_a_track():
    truth = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
    probabilities = [[0.9, 0.5, 0.1], [0.9, 0.6, 0.1], [0.4, 0.2, 0.1], [0.9, 0.9, 0.1]]
    scores = score(truth, probabilities, GENRES, "multi")
    assert (scores.correct, scores.accuracy, scores.chance) == (3, 0.75, 0.5)
    assert scores.confusion is None
    assert scores.genres[1].precision == pytest.approx(2 / 3)
    per_track = assigned_probability(truth, probabilities, "multi")
    assert scores.log_loss == pytest.approx(-np.log(per_track).mean())
    assert scores.log_loss_standard_error == pytest.approx(sem(np.log(per_track)))


def test_a_genre_without_tracks_has_null_scores_and_no_part_in_the_mean():
    scores = score([FOLK, JAZZ], [[0.1, 0.2, 0.7], [0.2, 0.7, 0.1]], GENRES, "top")
    rock = scores.genres[2]
    assert (rock.support, rock.predicted, rock.precision, rock.recall, rock.f1) == (0, 1, None, None, None)
    assert scores.untested == ("Rock",)
    assert scores.macro_f1 == 0.5


@given(data=st.data(), target=st.sampled_from(["top", "multi"]))
@settings(max_examples=50, deadline=None)
def test_scores_fit_together_and_are_json(data, target):
    tracks, genres = data.draw(st.integers(1, 20)), data.draw(st.integers(2, 6))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    if target == "top":
        truth = np.eye(genres)[draw.integers(genres, size=tracks)]
        probabilities = draw.dirichlet(np.full(genres, 0.3), tracks).astype(np.float32)
    else:
        truth = draw.integers(2, size=(tracks, genres))
        probabilities = draw.random((tracks, genres)).round(1)
    names = [f"genre {number}" for number in range(genres)]
    scores = score(truth, probabilities, names, target)
    predicted = Calibration().assign_genres(probabilities, names, target)
    assert scores.correct == sum(tuple(a) == tuple(b) for a, b in zip(truth > 0, predicted, strict=True))
    for number, each in enumerate(scores.genres):
        hits = sum(truth[row, number] > 0 and predicted[row, number] for row in range(tracks))
        assert each.support == truth[:, number].sum()
        assert each.recall == (pytest.approx(hits / each.support) if each.support else None)
        if each.support and each.predicted:
            assert each.precision == pytest.approx(hits / each.predicted)
    if scores.confusion is not None:
        assert np.trace(scores.confusion) == scores.correct
        assert np.sum(scores.confusion) == tracks
    assert math.isfinite(scores.log_loss)
    assert scores.micro_f1 == pytest.approx(f1_score(truth > 0, predicted, average="micro", zero_division=0))
    assert 0 <= scores.calibration_error <= 1
    if target == "top" and genres > 2:
        likeliest = top_k_accuracy_score(
            truth.argmax(axis=1), probabilities, k=scores.k, labels=range(genres)
        )
        assert scores.top_k == pytest.approx(likeliest)
    json.dumps(asdict(scores), allow_nan=False)


def test_certain_and_wrong_is_a_finite_log_loss():
    assert 10 < score([FOLK], [[0.0, 1.0, 0.0]], GENRES, "top").log_loss < 20
    assert 1 < score([FOLK], [[0.0, 0.0, 0.0]], GENRES, "multi").log_loss < 20


def test_the_standard_error_of_a_single_track_is_zero():
    assert score([FOLK], [[0.6, 0.4, 0.0]], GENRES, "top").log_loss_standard_error == 0


def test_the_assigned_probability_is_that_of_the_genres():
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]
    assert assigned_probability([FOLK, FOLK], probabilities, "top") == pytest.approx([0.7, 0.1])
    assert assigned_probability([[1, 0, 0]], [[0.5, 0.5, 0.5]], "multi") == pytest.approx([0.5])


def test_a_worked_example_of_a_calibration_error():
    truth = [[1, 0]] * 3 + [[0, 1]]  # with 0.7 correct in three of four, with 0.9 wrong
    probabilities = [[0.7, 0.3]] * 4 + [[0.1, 0.9]]
    found = reliability([*truth, [1, 0]], probabilities, "top")
    np.testing.assert_allclose(found.predicted, [0.7, 0.9])
    np.testing.assert_allclose(found.observed, [0.75, 0.0])
    np.testing.assert_allclose(found.share, [0.8, 0.2])
    assert calibration_error(found) == pytest.approx(0.8 * 0.05 + 0.2 * 0.9)


def test_with_several_genres_each_pair_is_a_prediction():
    found = reliability([[1, 0], [0, 0]], [[1.0, 0.0], [1.0, 0.0]], "multi")
    np.testing.assert_allclose((found.predicted, found.observed, found.share), ([0, 1], [0, 0.5], [0.5, 0.5]))


def test_top_k_counts_tracks_whose_genre_is_among_the_likeliest():
    names = ["a", "b", "c", "d", "e"]
    truth, probabilities = np.eye(5)[[0, 0, 0]], [[5, 4, 3, 2, 1], [3, 5, 4, 2, 1], [1, 5, 4, 3, 2]]
    scores = score(truth, np.array(probabilities) / 15, names, "top")
    assert (scores.top_k, scores.k) == (pytest.approx(2 / 3), 3)
    assert score([[1, 0]], [[0.6, 0.4]], ["a", "b"], "top").k == 1
    multi = score([[1, 0]], [[0.6, 0.4]], ["a", "b"], "multi")
    assert (multi.top_k, multi.k) == (None, None)


def test_scores_are_those_of_the_calibration():
    calibration = Calibration(temperature=2.0, thresholds=(0.9, 0.45, 0.9), parents={"Jazz": "Folk"})
    scores = score([[1, 1, 0]], [[0.1, 0.6, 0.9]], GENRES, "multi", calibration)
    folk, jazz, rock = scores.genres
    assert (folk.predicted, jazz.predicted, rock.predicted, scores.correct) == (1, 1, 0, 1)
    assert (folk.threshold, jazz.threshold) == (0.9, 0.45)
    calibrated = 1 / (1 + (0.4 / 0.6) ** 0.5)
    calibrated_rock = 1 / (1 + (0.1 / 0.9) ** 0.5)
    expected = -np.log([calibrated, calibrated, 1 - calibrated_rock]).mean()
    assert scores.log_loss == pytest.approx(expected)


def test_a_threshold_that_was_not_fitted():
    assert score([FOLK], [[0.6, 0.2, 0.2]], GENRES, "top").genres[0].threshold is None
    assert score([FOLK], [[0.6, 0.2, 0.2]], GENRES, "multi").genres[0].threshold == 0.5
