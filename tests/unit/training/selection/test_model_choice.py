import numpy as np
import pytest

from training.inference.members import combine_members
from training.selection.model_choice import choose, fit_network_share, track_losses

TRACKS, GENRES = 200, 4
ARTISTS = np.arange(TRACKS) // 4
TRUTH = np.eye(GENRES)[np.random.default_rng(0).integers(0, GENRES, TRACKS)]


def predict(accuracy, seed):
    """Return probabilities whose likeliest genre is the true one for about a share of the tracks."""
    random = np.random.default_rng(seed)
    is_right_T = random.random(TRACKS) < accuracy
    chosen_T = np.where(is_right_T, TRUTH.argmax(axis=1), (TRUTH.argmax(axis=1) + 1) % GENRES)
    return np.eye(GENRES)[chosen_T] * 0.6 + 0.1


def choose_top(baseline=None, **candidates):
    return choose(candidates, baseline, TRUTH, ARTISTS, "top", folds=3, network_share=0.4)


def test_the_clearly_best_is_chosen_and_the_cheapest_of_equals():
    good, same, bad = predict(0.9, 1), predict(0.9, 2), predict(0.4, 3)
    assert choose_top(features=bad, network=good).name == "network"
    assert choose_top(features=good, network=bad).name == "features"
    assert choose_top(features=same, network=good).name == "features"
    assert choose_top(features=good, network=same).name == "features"


def test_the_table_has_every_candidate_and_the_baseline_which_is_not_one():
    choice = choose_top(predict(0.99, 4), features=predict(0.7, 1), network=predict(0.6, 2))
    assert choice.name == "features"
    assert [(each.name, each.is_candidate) for each in choice.scores] == [
        ("features", True), ("network", True), ("svm", False),
    ]  # fmt: skip
    features, network, svm = choice.scores
    assert features.behind == 0
    assert network.behind == pytest.approx(features.accuracy - network.accuracy)
    assert svm.behind < 0, "a baseline that is better shows"
    assert choice.tracks == TRACKS


def test_the_tracks_of_an_artist_count_as_one_observation():
    """Where all tracks of an artist are right or wrong together, four of them say no more than one."""
    good, bad = predict(0.9, 1), np.repeat(predict(0.7, 2)[::4], 4, axis=0)
    together_TG = np.repeat(TRUTH[::4], 4, axis=0)
    errors = {}
    for name, artist_T in (("by artist", ARTISTS), ("by track", np.arange(TRACKS))):
        candidates = {"features": bad, "network": together_TG * 0.6 + 0.1}
        choice = choose(candidates, None, together_TG, artist_T, "top", folds=3, network_share=0.5)
        errors[name] = choice.scores[0].standard_error
    assert errors["by artist"] == pytest.approx(2 * errors["by track"], rel=0.05)
    assert good.shape == bad.shape


def test_losses_are_errors_for_one_genre_and_nats_for_several():
    probability_TG = np.array([[0.8, 0.2], [0.3, 0.7]])
    truth_TG = np.array([[1.0, 0], [1, 0]])
    np.testing.assert_array_equal(track_losses(probability_TG, truth_TG, "top"), [0, 1])
    np.testing.assert_allclose(
        track_losses(probability_TG, truth_TG, "multi"), [-2 * np.log(0.8), -2 * np.log(0.3)]
    )


@pytest.mark.parametrize("target", ["top", "multi"])
def test_the_better_member_gets_the_larger_share(target):
    assert fit_network_share(predict(0.9, 1), predict(0.4, 2), TRUTH, target) > 0.6
    assert fit_network_share(predict(0.4, 1), predict(0.9, 2), TRUTH, target) < 0.4


@pytest.mark.parametrize("target", ["top", "multi"])
def test_equal_members_decide_what_each_of_them_does(target):
    probability_TG = predict(0.8, 1)
    np.testing.assert_allclose(combine_members([probability_TG] * 2, [0.3, 0.7], target), probability_TG)
    assert combine_members([probability_TG], [1.0], target) is probability_TG
