import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from training.evaluation.bootstrap import (
    bootstrap_intervals,
    draw_artists,
    index_artists,
    score_resamples,
    sum_by_artist,
)
from training.evaluation.calibration import Calibration
from training.evaluation.metrics import score, track_outcomes

NAMES = ("accuracy", "macro_f1", "log_loss", "mean_average_precision")


def intervals(correct, artists, seed=0):
    """Compute the intervals of two genres, where these tracks are predicted correctly."""
    truth = np.eye(2)[np.arange(len(correct)) % 2]
    probability = np.where(np.asarray(correct)[:, None], 0.2 + 0.6 * truth, 0.8 - 0.6 * truth)
    return intervals_of(truth, probability, artists, "top", seed)


def intervals_of(truth, probability, artists, target, seed=0):
    genres = [f"g{number}" for number in range(np.shape(truth)[1])]
    scores = score(truth, probability, genres, target)
    return bootstrap_intervals(
        track_outcomes(truth, probability, genres, target, Calibration()), artists, vars(scores), seed=seed
    )


def test_the_interval_contains_the_accuracy():
    correct = [True] * 30 + [False] * 10
    interval = intervals(correct, [f"artist {number % 20}" for number in range(40)])["accuracy"]
    assert 0.55 < interval.low < 0.75 < interval.high < 0.95
    assert interval.artists == 20


def test_the_interval_of_a_mean_is_as_wide_as_theory_says():
    correct = np.random.default_rng(0).random(2_000) < 0.7
    found = intervals(correct, [None] * 2_000)["accuracy"]
    error = np.sqrt(correct.mean() * (1 - correct.mean()) / 2_000)
    assert (found.low, found.high) == pytest.approx(
        correct.mean() + 1.96 * error * np.array([-1, 1]), abs=0.003
    )


def test_the_seed_decides_the_interval():
    correct = [number % 3 != 0 for number in range(150)]
    artists = [f"artist {int(number**0.5)}" for number in range(150)]  # of 1, 3, 5, ... tracks
    assert intervals(correct, artists) == intervals(correct, artists)
    assert intervals(correct, artists) != intervals(correct, artists, seed=1)


def test_tracks_of_one_artist_are_drawn_together():
    correct = ([True] * 10 + [False] * 10) * 5
    alone = intervals(correct, [None] * 100)
    together = intervals(correct, [f"artist {number // 10}" for number in range(100)])
    assert (alone["accuracy"].artists, together["accuracy"].artists) == (100, 10)
    for name in NAMES:
        wide, narrow = together[name], alone[name]
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low), name


@pytest.mark.parametrize("correct", [True, False])
def test_equal_results_are_not_taken_for_certainty(correct):
    found = intervals([correct] * 12, ["a", "b", "c"] * 4)
    assert found.keys() == {"accuracy"}, "a score that never varies has no interval"
    interval = found["accuracy"]
    assert interval.method == "exact by artist"
    bound = beta.ppf(0.025, 3, 1)  # Clopper-Pearson's lower bound for 3 of 3
    expected = (bound, 1.0) if correct else (0.0, 1 - bound)
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_one_artist_has_no_interval():
    assert intervals([True, False], ["a", "a"]) == {}


@given(seed=st.integers(0, 2**32 - 1), target=st.sampled_from(["top", "multi"]))
@settings(max_examples=20, deadline=None)
def test_an_interval_contains_its_score(seed, target):
    draw = np.random.default_rng(seed)
    tracks, genres = int(draw.integers(2, 40)), int(draw.integers(2, 9))
    truth = np.eye(genres)[draw.integers(genres, size=tracks)]  # some genres are rare
    probability = draw.dirichlet(np.ones(genres), tracks)
    scores = vars(score(truth, probability, [f"g{number}" for number in range(genres)], target))
    for name, interval in intervals_of(
        truth, probability, draw.integers(6, size=tracks).astype(str), target
    ).items():
        assert interval.low <= scores[name] <= interval.high, name


def test_a_resample_scores_like_its_tracks_repeated():
    draw = np.random.default_rng(4)
    truth = draw.random((30, 5)) < [0.3, 0.3, 0.3, 0.3, 0.04]  # some resamples lack the last genre
    probability = draw.random((30, 5))
    artist_T = index_artists([*(f"artist {number % 7}" for number in range(25)), *[None] * 5])
    genres = list("abcde")
    found = track_outcomes(truth, probability, genres, "multi", Calibration())
    (drawn_RA,) = draw_artists(12, seed=3, resamples=20)
    assert (drawn_RA.sum(axis=1) == 12).all()
    resample = score_resamples(sum_by_artist(found, artist_T), drawn_RA)
    for row, drawn_A in enumerate(drawn_RA.astype(int)):
        rows = np.repeat(np.arange(30), drawn_A[artist_T])
        scores = score(truth[rows], probability[rows], genres, "multi")
        assert resample.accuracy_R[row] == pytest.approx(scores.accuracy)
        assert resample.macro_f1()[row] == pytest.approx(scores.macro_f1)
        assert resample.log_loss_R[row] == pytest.approx(scores.log_loss)
