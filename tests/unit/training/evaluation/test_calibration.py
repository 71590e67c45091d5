import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import expit, softmax
from sklearn.metrics import precision_score

from preprocessing.catalogue.fma_genres import read_genre_tree
from training.evaluation.calibration import (
    MIN_POSITIVES,
    UNREACHABLE_THRESHOLD,
    Calibration,
    explain_calibration,
    fit_calibration,
    propagate_to_ancestors,
)
from training.evaluation.settings import CalibrationSettings

GENRES = ("Folk", "Punk", "Rock")
PUNK_IS_ROCK = {"Punk": "Rock"}
FMA_GENRES = Path("../shared/data/fma_real/genres.csv")
F1, PRECISE = (
    CalibrationSettings(fit_temperature=False),
    CalibrationSettings(goal="precision", fit_temperature=False),
)


def chances(seed: int, tracks: int = 200, genres: int = 3, target: str = "multi"):
    """Make tracks whose genres are drawn by the very probabilities given: perfectly calibrated."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (tracks, genres))
    if target == "top":
        chance = softmax(logits, axis=1)
        return np.array([draw.multinomial(1, row) for row in chance]), chance
    chance = expit(logits)
    return (draw.random(chance.shape) < chance).astype(int), chance


def f1_of_told(has, told):
    return 2 * (has & told).sum() / (has.sum() + told.sum())


def closed(truth):
    return propagate_to_ancestors(truth, GENRES, PUNK_IS_ROCK)


@st.composite
def trees(draw):
    """Draw genres, a tree over them whose nodes may be others, and values of some tracks."""
    size = draw(st.integers(1, 9))
    names = [f"g{number}" for number in range(size)]
    parents = {}
    for number in range(1, size):
        above = draw(st.none() | st.integers(0, number - 1))
        if above is not None:
            parents[names[number]] = names[above]
    genres = draw(st.permutations(names))[: draw(st.integers(1, size))]
    values = st.lists(st.floats(0, 1), min_size=len(genres), max_size=len(genres))
    return genres, parents, np.array(draw(st.lists(values, min_size=1, max_size=4)))


def lineage(genre, parents):
    while genre in parents:
        genre = parents[genre]
        yield genre


@given(drawn=trees())
@settings(deadline=None)
def test_closure_raises_each_genre_to_its_likeliest_descendant_and_no_higher(drawn):
    genres, parents, values = drawn
    before = values.copy()
    out = propagate_to_ancestors(values, genres, parents)
    np.testing.assert_array_equal(values, before)
    for place, genre in enumerate(genres):
        below = [other for other, name in enumerate(genres) if genre in (name, *lineage(name, parents))]
        np.testing.assert_array_equal(out[:, place], values[:, below].max(axis=1))


@given(drawn=trees(), raised=st.floats(0, 1))
@settings(deadline=None)
def test_closure_is_idempotent_and_monotone(drawn, raised):
    genres, parents, values = drawn
    out = propagate_to_ancestors(values, genres, parents)
    np.testing.assert_array_equal(propagate_to_ancestors(out, genres, parents), out)
    assert (propagate_to_ancestors(np.maximum(values, raised), genres, parents) >= out).all()


@given(drawn=trees(), seed=st.integers(0, 99), temperature=st.sampled_from([0.3, 1.0, 4.0]))
@settings(deadline=None)
def test_what_is_told_is_closed_upward_whatever_the_thresholds(drawn, seed, temperature):
    genres, parents, values = drawn
    thresholds = np.random.default_rng(seed).random(len(genres))
    calibration = Calibration(temperature=temperature, thresholds=tuple(thresholds), parents=parents)
    chance = calibration.calibrate(values, genres, "multi")
    told = calibration.assign_genres(chance, genres, "multi")
    np.testing.assert_array_equal(propagate_to_ancestors(told, genres, parents), told)
    assert (told >= (chance >= thresholds)).all()
    np.testing.assert_array_equal(propagate_to_ancestors(chance, genres, parents), chance)


def test_the_real_tree_of_fma(need):
    need(FMA_GENRES.is_file(), "../shared/data/fma_real is not here")
    tree = read_genre_tree(str(FMA_GENRES))
    genres = [genre.title for genre in tree.values()]
    parents = {genre.title: tree[genre.parent_id].title for genre in tree.values() if genre.parent_id}
    assert len(set(genres)) == 163, "titles name genres"
    values = np.eye(163) * 0.9 + 0.01
    calibration = fit_calibration(np.eye(163), values, genres, "multi", F1, parents)
    assert calibration.parents == parents
    told = calibration.assign_genres(calibration.calibrate(values, genres, "multi"), genres, "multi")
    for row, genre in enumerate(genres):
        assert set(np.array(genres)[told[row]]) == {genre, *lineage(genre, parents)}
    black_metal = genres.index("Black-Metal")
    assert set(np.array(genres)[told[black_metal]]) == {"Black-Metal", "Metal", "Rock"}
    # The sixteen roots only, or leaves without what lies between: still whole.
    few = ["Black-Metal", "Folk", "Rock"]
    assert fit_calibration(np.eye(3), np.eye(3), few, "multi", F1, parents).parents == {"Black-Metal": "Rock"}


def test_a_tree_that_goes_round_is_refused():
    with pytest.raises(AssertionError, match="the genre tree goes round at Folk"):
        propagate_to_ancestors(np.zeros((1, 3)), GENRES, {"Folk": "Rock", "Rock": "Folk"})


@pytest.mark.parametrize("target", ["top", "multi"])
def test_no_decision_changes_nothing(target):
    _, chance = chances(0, target=target)
    np.testing.assert_array_equal(Calibration().calibrate(chance, GENRES, target), chance)
    told = Calibration().assign_genres(chance, GENRES, target)
    expected = chance == chance.max(axis=1, keepdims=True) if target == "top" else chance >= 0.5
    np.testing.assert_array_equal(told, expected)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(1).normal(0, 2, (20, 3))
    calibration = Calibration(temperature=temperature)
    np.testing.assert_allclose(
        calibration.calibrate(expit(logits), GENRES, "multi"), expit(logits / temperature), atol=1e-6
    )
    np.testing.assert_allclose(
        calibration.calibrate(softmax(logits, axis=1), GENRES, "top"),
        softmax(logits / temperature, axis=1),
        atol=1e-6,
    )


@pytest.mark.parametrize("target", ["top", "multi"])
@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoiled_the_probabilities_is_found(target, true):
    truth, chance = chances(2, tracks=20_000, target=target)
    spoiled = Calibration(temperature=1 / true).calibrate(chance, GENRES, target)
    found = fit_calibration(truth, spoiled, GENRES, target, CalibrationSettings(), {})
    assert found.temperature == pytest.approx(true, rel=0.05)
    np.testing.assert_allclose(found.calibrate(spoiled, GENRES, target), chance, atol=0.02)


@pytest.mark.parametrize(
    ("tracks", "wish", "said"),
    [
        (29, CalibrationSettings(), "29 validation tracks fit no temperature (it takes 30)"),
        (60, CalibrationSettings(), "60 validation tracks fit no temperature (they do not say"),
        (60, F1, "no calibration was wanted"),
    ],
)
def test_a_temperature_that_the_tracks_do_not_tell_stays_one(tracks, wish, said):
    truth = np.eye(3)[np.arange(tracks) % 3]
    calibration = fit_calibration(truth, 0.1 + 0.7 * truth, GENRES, "top", wish, {})
    assert calibration.temperature == 1.0
    assert any(said in line for line in explain_calibration(calibration, wish, truth, GENRES, "top"))


def test_a_temperature_takes_thirty_tracks():
    truth, chance = chances(3, tracks=30, target="top")
    spoiled = Calibration(temperature=0.3).calibrate(chance, GENRES, "top")
    found = [
        fit_calibration(truth[:count], spoiled[:count], GENRES, "top", CalibrationSettings(), {}).temperature
        for count in (29, 30)
    ]
    assert found[0] == 1.0
    assert found[1] > 1.5


def test_a_network_that_is_sure_and_wrong_is_made_unsure():
    truth = np.eye(3)[np.arange(60) % 3]
    wrong = 0.01 + 0.97 * np.roll(truth, 1, axis=1)
    assert fit_calibration(truth, wrong, GENRES, "top", CalibrationSettings(), {}).temperature > 9


@given(seed=st.integers(0, 2**32 - 1), digits=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_no_other_threshold_has_a_better_f1(seed, digits):
    truth, chance = chances(seed, tracks=60)
    chance = chance.round(digits)
    calibration = fit_calibration(truth, chance, GENRES, "multi", F1, {})
    for genre in range(3):
        if truth[:, genre].sum() < MIN_POSITIVES:
            assert calibration.thresholds[genre] == 0.5
            continue
        has, said, own = truth[:, genre], chance[:, genre], calibration.thresholds[genre]
        f1_of = {cut: f1_of_told(has, said >= cut) for cut in {*said, UNREACHABLE_THRESHOLD}}
        assert f1_of_told(has, said >= own) == pytest.approx(max(f1_of.values()))
        fewer = [cut for cut in f1_of if (said >= cut).sum() < (said >= own).sum()]
        assert all(f1_of[cut] < max(f1_of.values()) - 1e-12 for cut in fewer), "the highest of the best"


def test_a_threshold_lies_half_way_between_two_probabilities():
    truth = np.repeat([[0, 0], [1, 1]], 10, axis=0)
    chance = np.repeat([[0.2, 0.6], [0.4, 0.9]], 10, axis=0)
    assert fit_calibration(truth, chance, ("a", "b"), "multi", F1, {}).thresholds == (
        pytest.approx(0.3),
        pytest.approx(0.75),
    )


def test_neighbouring_numbers_leave_no_room_for_a_threshold_between():
    below = 0.5
    above = np.nextafter(below, 1)  # half-way rounds to the even one, which is `below`
    truth = np.repeat([[0, 0], [1, 1]], 10, axis=0)
    chance = np.where(truth, above, below)
    calibration = fit_calibration(truth, chance, ("a", "b"), "multi", F1, {})
    np.testing.assert_array_equal(calibration.assign_genres(chance, ("a", "b"), "multi"), truth > 0)


@given(seed=st.integers(0, 2**32 - 1), wanted=st.floats(0.3, 1.0))
@settings(max_examples=60, deadline=None)
def test_thresholds_for_a_precision_reach_it_on_the_tracks_they_were_fitted_on(seed, wanted):
    truth, chance = chances(seed, tracks=80)
    truth = closed(truth)
    wish = CalibrationSettings(goal="precision", precision=wanted)
    calibration = fit_calibration(truth, chance, GENRES, "multi", wish, PUNK_IS_ROCK)
    calibrated = calibration.calibrate(chance, GENRES, "multi")
    told = calibration.assign_genres(calibrated, GENRES, "multi")
    for genre in range(3):
        if calibration.thresholds[genre] == UNREACHABLE_THRESHOLD or truth[:, genre].sum() < MIN_POSITIVES:
            continue
        assert precision_score(truth[:, genre], told[:, genre]) >= wanted
        lower = calibrated[calibrated[:, genre] < calibration.thresholds[genre], genre]
        for cut in lower[:10] if genre != 2 else ():
            assert precision_score(truth[:, genre], calibrated[:, genre] >= cut) < wanted


def test_a_precision_out_of_reach_is_never_told_and_said_so():
    truth = np.tile([[1, 0, 1], [0, 1, 0]], (20, 1))
    chance = np.tile([[0.2, 0.4, 0.9], [0.8, 0.6, 0.1]], (20, 1))  # the first two are always wrong
    calibration = fit_calibration(truth, chance, GENRES, "multi", PRECISE, {})
    assert calibration.thresholds[0] == UNREACHABLE_THRESHOLD
    assert not calibration.assign_genres(np.ones((1, 3)), GENRES, "multi")[0, 0]
    json.dumps(calibration.model_dump(), allow_nan=False)
    lines = list(explain_calibration(calibration, PRECISE, truth, GENRES, "multi"))
    assert any("No threshold does it for Folk" in line for line in lines)


def test_a_parent_is_fitted_knowing_what_its_children_bring():
    """Rock alone would want a low threshold for punk; told through Punk already, it can stay high."""
    truth = np.repeat([[0, 1, 1], [0, 0, 0], [0, 0, 1]], 20, axis=0)
    chance = np.repeat([[0.1, 0.6, 0.6], [0.1, 0.1, 0.7], [0.1, 0.1, 0.9]], 20, axis=0)
    with_tree = fit_calibration(truth, chance, GENRES, "multi", F1, PUNK_IS_ROCK)
    assert with_tree.thresholds[2] == pytest.approx(0.8)
    np.testing.assert_array_equal(with_tree.assign_genres(chance, GENRES, "multi"), truth > 0)


def test_too_few_positives_keep_a_half_and_it_is_said():
    truth = np.zeros((40, 3), int)
    truth[: MIN_POSITIVES - 1, 0] = truth[:MIN_POSITIVES, 1] = 1
    chance = np.where(truth, 0.4, 0.2)
    calibration = fit_calibration(truth, chance, GENRES, "multi", F1, {})
    assert calibration.thresholds == (0.5, pytest.approx(0.3), 0.5)
    lines = list(explain_calibration(calibration, F1, truth, GENRES, "multi"))
    assert any("Fewer than 10 validation tracks have Folk, Rock" in line for line in lines)


def test_where_tracks_have_one_genre_the_likeliest_is_told_and_thresholds_are_kept():
    truth, chance = chances(5, target="top")
    calibration = fit_calibration(truth, chance, GENRES, "top", PRECISE, PUNK_IS_ROCK)
    assert len(calibration.thresholds) == 3
    told = calibration.assign_genres(chance, GENRES, "top")
    np.testing.assert_array_equal(told.argmax(axis=1), chance.argmax(axis=1))
    assert (told.sum(axis=1) == 1).all()
    np.testing.assert_allclose(calibration.calibrate(chance, GENRES, "top").sum(axis=1), 1)


def test_a_decision_goes_through_json_and_can_be_a_key():
    truth, chance = chances(6)
    calibration = fit_calibration(closed(truth), chance, GENRES, "multi", CalibrationSettings(), PUNK_IS_ROCK)
    again = Calibration.model_validate_json(calibration.model_dump_json())
    assert again == calibration
    assert hash(again) == hash(calibration)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"thresholds": [-1.0]}, {"thresholds": ["nan"]}])
def test_a_decision_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError, match=r"greater than|finite"):
        Calibration.model_validate(wrong)


def test_it_is_said_what_the_thresholds_of_top_models_are_for():
    truth = np.eye(3)[np.arange(60) % 3]
    calibration = fit_calibration(truth, 0.1 + 0.7 * truth, GENRES, "top", F1, {})
    told = {
        target: " ".join(explain_calibration(calibration, F1, truth, GENRES, target))
        for target in ("top", "multi")
    }
    assert "for a tagger that is told to abstain; else the likeliest genre is told" in told["top"]
    assert "(used to tell)" in told["multi"]
