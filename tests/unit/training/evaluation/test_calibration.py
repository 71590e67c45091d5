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
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, Calibration, propagate_to_ancestors
from training.evaluation.calibration_fitting import MIN_POSITIVES, explain_calibration, fit_calibration
from training.evaluation.settings import CalibrationSettings

GENRES = ("Folk", "Punk", "Rock")
PUNK_IS_ROCK = {"Punk": "Rock"}
FMA_GENRES = Path("../shared/data/fma_real/genres.csv")
F1, PRECISE = (
    CalibrationSettings(fit_temperature=False),
    CalibrationSettings(goal="precision", fit_temperature=False),
)


def draw_tracks(seed: int, tracks: int = 200, genres: int = 3, target: str = "multi"):
    """Make tracks whose genres are drawn with the returned probabilities: perfectly calibrated."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (tracks, genres))
    if target == "top":
        probability = softmax(logits, axis=1)
        return np.array([draw.multinomial(1, row) for row in probability]), probability
    probability = expit(logits)
    return (draw.random(probability.shape) < probability).astype(int), probability


def f1_of(has, assigned):
    return 2 * (has & assigned).sum() / (has.sum() + assigned.sum())


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
    for index, genre in enumerate(genres):
        below = [other for other, name in enumerate(genres) if genre in (name, *lineage(name, parents))]
        np.testing.assert_array_equal(out[:, index], values[:, below].max(axis=1))


@given(drawn=trees(), raised=st.floats(0, 1))
@settings(deadline=None)
def test_closure_is_idempotent_and_monotone(drawn, raised):
    genres, parents, values = drawn
    out = propagate_to_ancestors(values, genres, parents)
    np.testing.assert_array_equal(propagate_to_ancestors(out, genres, parents), out)
    assert (propagate_to_ancestors(np.maximum(values, raised), genres, parents) >= out).all()


@given(drawn=trees(), seed=st.integers(0, 99), temperature=st.sampled_from([0.3, 1.0, 4.0]))
@settings(deadline=None)
def test_assigned_genres_include_their_ancestors_whatever_the_thresholds(drawn, seed, temperature):
    genres, parents, values = drawn
    thresholds = np.random.default_rng(seed).random(len(genres))
    calibration = Calibration(temperature=temperature, thresholds=tuple(thresholds), parents=parents)
    probability = calibration.calibrate(values, genres, "multi")
    assigned = calibration.assign_genres(probability, genres, "multi")
    np.testing.assert_array_equal(propagate_to_ancestors(assigned, genres, parents), assigned)
    assert (assigned >= (probability >= thresholds)).all()
    np.testing.assert_array_equal(propagate_to_ancestors(probability, genres, parents), probability)


def test_the_real_tree_of_fma(need):
    need(FMA_GENRES.is_file(), "../shared/data/fma_real is not here")
    tree = read_genre_tree(str(FMA_GENRES))
    genres = [genre.title for genre in tree.values()]
    parents = {genre.title: tree[genre.parent_id].title for genre in tree.values() if genre.parent_id}
    assert len(set(genres)) == 163, "titles name genres"
    values = np.eye(163) * 0.9 + 0.01
    calibration = fit_calibration(np.eye(163), values, genres, "multi", F1, parents)
    assert calibration.parents == parents
    assigned = calibration.assign_genres(calibration.calibrate(values, genres, "multi"), genres, "multi")
    for row, genre in enumerate(genres):
        assert set(np.array(genres)[assigned[row]]) == {genre, *lineage(genre, parents)}
    black_metal = genres.index("Black-Metal")
    assert set(np.array(genres)[assigned[black_metal]]) == {"Black-Metal", "Metal", "Rock"}
    # The sixteen roots only, or leaves without what lies between: still whole.
    few = ["Black-Metal", "Folk", "Rock"]
    assert fit_calibration(np.eye(3), np.eye(3), few, "multi", F1, parents).parents == {"Black-Metal": "Rock"}


def test_a_tree_with_a_cycle_is_refused():
    with pytest.raises(AssertionError, match="the genre tree has a cycle at Folk"):
        propagate_to_ancestors(np.zeros((1, 3)), GENRES, {"Folk": "Rock", "Rock": "Folk"})


@pytest.mark.parametrize("target", ["top", "multi"])
def test_the_default_calibration_changes_nothing(target):
    _, probability = draw_tracks(0, target=target)
    np.testing.assert_array_equal(Calibration().calibrate(probability, GENRES, target), probability)
    assigned = Calibration().assign_genres(probability, GENRES, target)
    expected = (
        probability == probability.max(axis=1, keepdims=True) if target == "top" else probability >= 0.5
    )
    np.testing.assert_array_equal(assigned, expected)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(1).normal(0, 2, (20, 3))
    calibration = Calibration(temperature=temperature)
    np.testing.assert_allclose(
        calibration.calibrate(expit(logits), GENRES, "multi"), expit(logits / temperature)
    )
    np.testing.assert_allclose(
        calibration.calibrate(softmax(logits, axis=1), GENRES, "top"),
        softmax(logits / temperature, axis=1),
    )


@pytest.mark.parametrize("target", ["top", "multi"])
@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_distorted_the_probabilities_is_found(target, true):
    truth, probability = draw_tracks(2, tracks=20_000, target=target)
    distorted = Calibration(temperature=1 / true).calibrate(probability, GENRES, target)
    found = fit_calibration(truth, distorted, GENRES, target, CalibrationSettings(), {})
    assert found.temperature == pytest.approx(true, rel=0.05)
    np.testing.assert_allclose(found.calibrate(distorted, GENRES, target), probability, atol=0.02)


@pytest.mark.parametrize(
    ("tracks", "fit", "note"),
    [
        (29, CalibrationSettings(), "29 validation tracks fit no temperature (it takes 30)"),
        (60, CalibrationSettings(), "60 validation tracks fit no temperature (they do not determine one)"),
        (60, F1, "no temperature was to be fitted"),
    ],
)
def test_a_temperature_that_the_tracks_do_not_determine_stays_one(tracks, fit, note):
    truth = np.eye(3)[np.arange(tracks) % 3]
    calibration = fit_calibration(truth, 0.1 + 0.7 * truth, GENRES, "top", fit, {})
    assert calibration.temperature == 1.0
    assert any(note in line for line in explain_calibration(calibration, fit, truth, GENRES, "top"))


def test_a_temperature_takes_thirty_tracks():
    truth, probability = draw_tracks(3, tracks=30, target="top")
    distorted = Calibration(temperature=0.3).calibrate(probability, GENRES, "top")
    found = [
        fit_calibration(
            truth[:count], distorted[:count], GENRES, "top", CalibrationSettings(), {}
        ).temperature
        for count in (29, 30)
    ]
    assert found[0] == 1.0
    assert found[1] > 1.5


def test_an_overconfident_network_gets_a_high_temperature():
    truth = np.eye(3)[np.arange(60) % 3]
    wrong = 0.01 + 0.97 * np.roll(truth, 1, axis=1)
    assert fit_calibration(truth, wrong, GENRES, "top", CalibrationSettings(), {}).temperature > 9


@given(seed=st.integers(0, 2**32 - 1), digits=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_no_other_threshold_has_a_better_f1(seed, digits):
    truth, probability = draw_tracks(seed, tracks=60)
    probability = probability.round(digits)
    calibration = fit_calibration(truth, probability, GENRES, "multi", F1, {})
    for genre in range(3):
        if truth[:, genre].sum() < MIN_POSITIVES:
            assert calibration.thresholds[genre] == 0.5
            continue
        has, given, own = truth[:, genre], probability[:, genre], calibration.thresholds[genre]
        scores = {threshold: f1_of(has, given >= threshold) for threshold in {*given, UNREACHABLE_THRESHOLD}}
        best = max(scores.values())  # fractions of small integers: equal ones are equal floats
        assert f1_of(has, given >= own) == best
        higher = [threshold for threshold in scores if (given >= threshold).sum() < (given >= own).sum()]
        assert all(scores[threshold] < best for threshold in higher), "the highest of the best"


def test_a_threshold_lies_half_way_between_two_probabilities():
    truth = np.repeat([[0, 0], [1, 1]], 10, axis=0)
    probability = np.repeat([[0.2, 0.6], [0.4, 0.9]], 10, axis=0)
    assert fit_calibration(truth, probability, ("a", "b"), "multi", F1, {}).thresholds == (
        pytest.approx(0.3),
        pytest.approx(0.75),
    )


def test_neighbouring_numbers_leave_no_room_for_a_threshold_between():
    below = 0.5
    above = np.nextafter(below, 1)  # half-way rounds to the even one, which is `below`
    truth = np.repeat([[0, 0], [1, 1]], 10, axis=0)
    probability = np.where(truth, above, below)
    calibration = fit_calibration(truth, probability, ("a", "b"), "multi", F1, {})
    np.testing.assert_array_equal(calibration.assign_genres(probability, ("a", "b"), "multi"), truth > 0)


@given(seed=st.integers(0, 2**32 - 1), wanted=st.floats(0.3, 1.0))
@settings(max_examples=60, deadline=None)
def test_thresholds_for_a_precision_reach_it_on_the_tracks_they_were_fitted_on(seed, wanted):
    truth, probability = draw_tracks(seed, tracks=80)
    truth = closed(truth)
    fit = CalibrationSettings(goal="precision", precision=wanted)
    calibration = fit_calibration(truth, probability, GENRES, "multi", fit, PUNK_IS_ROCK)
    calibrated = calibration.calibrate(probability, GENRES, "multi")
    assigned = calibration.assign_genres(calibrated, GENRES, "multi")
    for genre in range(3):
        if calibration.thresholds[genre] == UNREACHABLE_THRESHOLD or truth[:, genre].sum() < MIN_POSITIVES:
            continue
        assert precision_score(truth[:, genre], assigned[:, genre]) >= wanted
        lower = calibrated[calibrated[:, genre] < calibration.thresholds[genre], genre]
        for threshold in lower[:10] if genre != 2 else ():
            assert precision_score(truth[:, genre], calibrated[:, genre] >= threshold) < wanted


def test_a_genre_that_cannot_reach_the_precision_is_never_assigned_and_noted():
    truth = np.tile([[1, 0, 1], [0, 1, 0]], (20, 1))
    probability = np.tile([[0.2, 0.4, 0.9], [0.8, 0.6, 0.1]], (20, 1))  # the first two are always wrong
    calibration = fit_calibration(truth, probability, GENRES, "multi", PRECISE, {})
    assert calibration.thresholds[0] == UNREACHABLE_THRESHOLD
    assert not calibration.assign_genres(np.ones((1, 3)), GENRES, "multi")[0, 0]
    json.dumps(calibration.model_dump(), allow_nan=False)
    lines = list(explain_calibration(calibration, PRECISE, truth, GENRES, "multi"))
    assert any("No threshold reaches that for Folk" in line for line in lines)


def test_a_parent_is_fitted_after_its_children():
    """Rock alone would need a low threshold for punk; with Punk assigned already, it can stay high."""
    truth = np.repeat([[0, 1, 1], [0, 0, 0], [0, 0, 1]], 20, axis=0)
    probability = np.repeat([[0.1, 0.6, 0.6], [0.1, 0.1, 0.7], [0.1, 0.1, 0.9]], 20, axis=0)
    with_tree = fit_calibration(truth, probability, GENRES, "multi", F1, PUNK_IS_ROCK)
    assert with_tree.thresholds[2] == pytest.approx(0.8)
    np.testing.assert_array_equal(with_tree.assign_genres(probability, GENRES, "multi"), truth > 0)


def test_too_few_positives_keep_a_half_and_are_noted():
    truth = np.zeros((40, 3), int)
    truth[: MIN_POSITIVES - 1, 0] = truth[:MIN_POSITIVES, 1] = 1
    probability = np.where(truth, 0.4, 0.2)
    calibration = fit_calibration(truth, probability, GENRES, "multi", F1, {})
    assert calibration.thresholds == (0.5, pytest.approx(0.3), 0.5)
    lines = list(explain_calibration(calibration, F1, truth, GENRES, "multi"))
    assert any("Fewer than 10 validation tracks have Folk, Rock" in line for line in lines)


def test_where_tracks_have_one_genre_the_likeliest_is_assigned_and_thresholds_are_kept():
    truth, probability = draw_tracks(5, target="top")
    calibration = fit_calibration(truth, probability, GENRES, "top", PRECISE, PUNK_IS_ROCK)
    assert len(calibration.thresholds) == 3
    assigned = calibration.assign_genres(probability, GENRES, "top")
    np.testing.assert_array_equal(assigned.argmax(axis=1), probability.argmax(axis=1))
    assert (assigned.sum(axis=1) == 1).all()
    np.testing.assert_allclose(calibration.calibrate(probability, GENRES, "top").sum(axis=1), 1)


def test_a_calibration_survives_json_and_can_be_a_key():
    truth, probability = draw_tracks(6)
    calibration = fit_calibration(
        closed(truth), probability, GENRES, "multi", CalibrationSettings(), PUNK_IS_ROCK
    )
    again = Calibration.model_validate_json(calibration.model_dump_json())
    assert again == calibration
    assert hash(again) == hash(calibration)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"thresholds": [-1.0]}, {"thresholds": ["nan"]}])
def test_an_invalid_calibration_is_refused(wrong):
    with pytest.raises(ValidationError, match=r"greater than|finite"):
        Calibration.model_validate(wrong)


def test_notes_explain_what_the_thresholds_of_top_models_are_for():
    truth = np.eye(3)[np.arange(60) % 3]
    calibration = fit_calibration(truth, 0.1 + 0.7 * truth, GENRES, "top", F1, {})
    notes = {
        target: " ".join(explain_calibration(calibration, F1, truth, GENRES, target))
        for target in ("top", "multi")
    }
    assert "used only with --abstain; without it the likeliest genre is assigned" in notes["top"]
    assert "(a genre is assigned from its threshold on)" in notes["multi"]
