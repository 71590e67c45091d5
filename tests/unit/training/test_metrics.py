import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, sem

from training.metrics import accuracy_interval, belief, guess, score

GENRES = ["Folk", "Jazz", "Rock"]
FOLK, JAZZ, ROCK = np.eye(3, dtype=np.int8)


def test_a_worked_example_of_one_genre_a_track():
    truth = [FOLK, FOLK, JAZZ, ROCK]
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.5, 0.25, 0.25]]
    scores = score(truth, probabilities, GENRES, "top")
    assert (scores.tracks, scores.right, scores.accuracy, scores.chance) == (4, 2, 0.5, 0.5)
    assert scores.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 0))
    folk, jazz, rock = scores.genres
    assert (folk.support, folk.guessed, folk.precision, folk.recall, folk.f1) == (2, 2, 0.5, 0.5, 0.5)
    assert (jazz.precision, jazz.recall, jazz.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (rock.guessed, rock.precision, rock.recall, rock.f1) == (0, None, 0.0, 0.0)
    assert scores.macro_f1 == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert scores.log_loss == pytest.approx(-np.log([0.7, 0.1, 0.5, 0.25]).mean(), abs=1e-6)
    assert scores.log_loss_error == pytest.approx(sem(np.log([0.7, 0.1, 0.5, 0.25])), abs=1e-6)


def test_a_worked_example_of_several_genres_a_track():
    truth = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
    probabilities = [[0.9, 0.5, 0.1], [0.9, 0.6, 0.1], [0.4, 0.2, 0.1], [0.9, 0.9, 0.1]]
    scores = score(truth, probabilities, GENRES, "multi")
    assert (scores.right, scores.accuracy, scores.chance) == (3, 0.75, 0.5)
    assert scores.confusion is None
    assert scores.genres[1].precision == pytest.approx(2 / 3)
    per_track = belief(truth, probabilities, "multi")
    assert scores.log_loss == pytest.approx(-np.log(per_track).mean(), abs=1e-6)
    assert scores.log_loss_error == pytest.approx(sem(np.log(per_track)), abs=1e-6)


def test_a_genre_without_tracks_has_null_scores_and_no_part_in_the_mean():
    scores = score([FOLK, JAZZ], [[0.1, 0.2, 0.7], [0.2, 0.7, 0.1]], GENRES, "top")
    rock = scores.genres[2]
    assert (rock.support, rock.guessed, rock.precision, rock.recall, rock.f1) == (0, 1, None, None, None)
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
    told = guess(probabilities, target)
    assert scores.right == sum(tuple(a) == tuple(b) for a, b in zip(truth > 0, told, strict=True))
    for number, each in enumerate(scores.genres):
        hits = sum(truth[row, number] > 0 and told[row, number] for row in range(tracks))
        assert each.support == truth[:, number].sum()
        assert each.recall == (pytest.approx(hits / each.support) if each.support else None)
        if each.support and each.guessed:
            assert each.precision == pytest.approx(hits / each.guessed)
    if scores.confusion is not None:
        assert np.trace(scores.confusion) == scores.right
        assert np.sum(scores.confusion) == tracks
    assert math.isfinite(scores.log_loss)
    json.dumps(asdict(scores), allow_nan=False)


def test_certain_and_wrong_is_a_finite_log_loss():
    assert 10 < score([FOLK], [[0.0, 1.0, 0.0]], GENRES, "top").log_loss < 20
    assert 1 < score([FOLK], [[0.0, 0.0, 0.0]], GENRES, "multi").log_loss < 20


def test_the_error_of_a_single_track_is_no_number_but_zero():
    assert score([FOLK], [[0.6, 0.4, 0.0]], GENRES, "top").log_loss_error == 0


def test_belief_is_the_probability_of_the_answer():
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]
    assert belief([FOLK, FOLK], probabilities, "top") == pytest.approx([0.7, 0.1])
    assert belief([[1, 0, 0]], [[0.5, 0.5, 0.5]], "multi") == pytest.approx([0.5])


def test_the_interval_holds_the_accuracy():
    right = [True] * 30 + [False] * 10
    artists = [f"artist {number % 20}" for number in range(40)]
    interval = accuracy_interval(right, artists)
    assert interval is not None
    assert 0.55 < interval.low < 0.75 < interval.high < 0.95
    assert interval.artists == 20


def test_the_seed_decides_the_interval():
    right = [number % 3 != 0 for number in range(150)]
    artists = [f"artist {int(number**0.5)}" for number in range(150)]  # of 1, 3, 5, ... tracks
    assert accuracy_interval(right, artists) == accuracy_interval(right, artists)
    assert accuracy_interval(right, artists) != accuracy_interval(right, artists, seed=1)


def test_tracks_of_one_artist_are_drawn_together():
    right = ([True] * 10 + [False] * 10) * 5
    alone = accuracy_interval(right, [None] * 100)
    together = accuracy_interval(right, [f"artist {number // 10}" for number in range(100)])
    assert alone is not None
    assert together is not None
    assert (alone.artists, together.artists) == (100, 10)
    assert together.high - together.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("right", [True, False])
def test_all_alike_is_not_taken_for_certain(right):
    interval = accuracy_interval([right] * 12, ["a", "b", "c"] * 4)
    assert interval is not None
    assert interval.method == "exact by artist"
    bound = beta.ppf(0.025, 3, 1)  # Clopper-Pearson's lower bound for 3 of 3
    expected = (bound, 1.0) if right else (0.0, 1 - bound)
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_one_artist_gives_no_interval():
    assert accuracy_interval([True, False], ["a", "a"]) is None
