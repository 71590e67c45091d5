import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.selection_cases import GENRES, TREE, model_identity, selected_by
from training.evaluation.probabilities import PROBABILITY_EPSILON
from training.inference.genre_selection import SelectionRules, select_genres, smooth_over_albums
from training.inference.selection_fitting import fit_selection_rules
from training.inference.settings import GenreSelectionSettings


@pytest.mark.parametrize("target", ["top", "multi"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_by_default_the_selection_is_that_of_the_calibration(target, seed):
    raw = np.random.default_rng(seed).random((7, 5))
    model = model_identity(target, temperature=1.7, thresholds=(0.3, 0.6, 0.9, 0.2, 0.7))
    calibration = model.calibration
    fitted = fit_selection_rules(model, "unused", GenreSelectionSettings())
    probability = calibration.calibrate(raw, GENRES, target)
    np.testing.assert_array_equal(
        selected_by(raw, model, fitted), calibration.assign_genres(probability, GENRES, target)
    )
    for each, probability_G in zip(select_genres(raw, [None] * 7, model, fitted), probability, strict=True):
        np.testing.assert_array_equal(each.probability_G, probability_G)
        selected = [probability_G[GENRES.index(genre)] for genre in each.genres]
        assert selected == sorted(selected, reverse=True)
        assert each.confidence == (selected[0] if selected else probability_G.max())
        assert each.status == ("selected" if selected else "unsure")


@given(seed=st.integers(0, 2**32 - 1), digits=st.integers(1, 3), max_genres=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_path_is_a_chain_from_a_root_by_the_likeliest_child(seed, digits, max_genres):
    random = np.random.default_rng(seed)
    raw = random.random((9, 5)).round(digits)
    model = model_identity(thresholds=tuple(random.random(5)))
    fitted = fit_selection_rules(model, "unused", GenreSelectionSettings(kind="path", max_genres=max_genres))
    for each in select_genres(raw, [None] * 9, model, fitted):
        probability = dict(zip(GENRES, each.probability_G, strict=True))
        threshold = dict(zip(GENRES, fitted.thresholds, strict=True))
        above = None
        for genre in each.genres:
            assert TREE.get(genre) == above
            siblings = [other for other in GENRES if TREE.get(other) == above]
            assert probability[genre] == max(probability[other] for other in siblings)
            assert probability[genre] >= threshold[genre]
            above = genre
        rest = [other for other in GENRES if TREE.get(other) == above]
        if rest and not (max_genres and len(each.genres) == max_genres):
            best = max(rest, key=probability.__getitem__)
            assert probability[best] < threshold[best], "it ends only where no child reaches its threshold"


def test_a_path_stops_where_a_threshold_is_missed():
    model = model_identity(thresholds=(0.1, 0.5, 0.6, 0.5, 0.5))
    fitted = fit_selection_rules(model, "unused", GenreSelectionSettings(kind="path"))
    raw = np.array([[0.5, 0.2, 0.55, 0.3, 0.9], [0.5, 0.2, 0.7, 0.65, 0.9], [0.4, 0.9, 0.4, 0.4, 0.4]])
    selected = [each.genres for each in select_genres(raw, [None] * 3, model, fitted)]
    assert selected == [("Rock",), ("Rock", "Metal", "Black-Metal"), ("Folk",)]


def test_of_equally_likely_genres_an_ancestor_comes_first():
    raw = np.array([[0.9, 0.1, 0.2, 0.3, 0.4]])
    for kind, selected in (
        ("multi", ("Rock", "Metal", "Black-Metal")),
        ("path", ("Rock", "Metal", "Black-Metal")),
        ("top", ("Rock",)),
    ):
        model = model_identity()
        (each,) = select_genres(
            raw, [None], model, fit_selection_rules(model, "unused", GenreSelectionSettings(kind=kind))
        )
        assert each.genres == selected


def test_at_most_max_genres_are_selected_and_only_requested_ones():
    raw = np.array([[0.6, 0.9, 0.7, 0.1, 0.8]])
    model = model_identity()
    for wanted, selected in (
        ({"max_genres": 2}, ("Folk", "Rock")),
        ({"genres": ("Metal", "Folk")}, ("Folk", "Metal")),
        ({"genres": ("Metal", "Rock", "Black-Metal"), "max_genres": 2}, ("Rock", "Metal")),
        ({"min_confidence": 0.75}, ("Folk", "Rock")),
        ({"genres": ("Punk",)}, ()),
    ):
        fitted = fit_selection_rules(model, "unused", GenreSelectionSettings(kind="multi", **wanted))
        (each,) = select_genres(raw, [None], model, fitted)
        assert each.genres == selected
    assert (each.status, each.reason, each.detail) == ("unsure", "not-requested", "Folk 0.90")


def test_no_other_genre_is_selected_when_the_likeliest_was_not_requested():
    model = model_identity("top")
    fitted = fit_selection_rules(model, "unused", GenreSelectionSettings(genres=("Folk",)))
    likely, unlikely = select_genres(
        np.array([[0.1, 0.2, 0.1, 0.1, 0.5], [0.1, 0.6, 0.1, 0.1, 0.1]]), [None] * 2, model, fitted
    )
    assert (likely.genres, likely.reason) == ((), "not-requested")
    assert (unlikely.genres, unlikely.reason) == (("Folk",), None)


def test_a_top_model_abstains_on_request_only():
    model = model_identity("top", thresholds=(0.9,) * 5)
    raw = np.array([[0.1, 0.1, 0.1, 0.1, 0.6]])
    (forced,) = select_genres(
        raw, [None], model, fit_selection_rules(model, "unused", GenreSelectionSettings())
    )
    (abstaining,) = select_genres(
        raw, [None], model, fit_selection_rules(model, "unused", GenreSelectionSettings(abstain=True))
    )
    (below,) = select_genres(
        raw, [None], model, fit_selection_rules(model, "unused", GenreSelectionSettings(min_confidence=0.61))
    )
    assert forced.genres == ("Rock",)
    for unsure in (abstaining, below):
        assert (unsure.status, unsure.reason, unsure.detail) == ("unsure", "low-confidence", "Rock 0.60")


@pytest.mark.parametrize("target", ["top", "multi"])
@given(seed=st.integers(0, 2**32 - 1), tracks=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_smoothing_changes_neither_equal_tracks_nor_single_ones(target, seed, tracks):
    random = np.random.default_rng(seed)
    model = model_identity(target)
    one = model.calibration.calibrate(random.dirichlet(np.ones(5), 1), GENRES, target)
    equal = np.repeat(one, tracks, axis=0)
    # Clipping moves a probability by at most PROBABILITY_EPSILON, and the normalisation by one more for each genre.
    np.testing.assert_allclose(
        smooth_over_albums(equal, ["album"] * tracks, model), equal, atol=6 * PROBABILITY_EPSILON
    )
    others = model.calibration.calibrate(random.dirichlet(np.ones(5), tracks), GENRES, target)
    for albums in ([None] * tracks, [""] * tracks, [str(track) for track in range(tracks)]):
        np.testing.assert_array_equal(smooth_over_albums(others, albums, model), others)


@pytest.mark.parametrize("target", ["top", "multi"])
def test_smoothing_averages_within_albums_only(target):
    model = model_identity(target)
    raw = np.array(
        [[0.05, 0.1, 0.05, 0.1, 0.7], [0.05, 0.45, 0.05, 0.05, 0.4], [0.05, 0.45, 0.05, 0.05, 0.4]]
    )
    plain = fit_selection_rules(model, "unused", GenreSelectionSettings(kind="top"))
    fitted = plain.model_copy(update={"smooth_albums": True})
    albums = ["one", "one", "two"]
    assert [each.genres for each in select_genres(raw, albums, model, plain)] == [
        ("Rock",),
        ("Folk",),
        ("Folk",),
    ]
    smoothed = select_genres(raw, albums, model, fitted)
    assert [each.genres for each in smoothed] == [("Rock",), ("Rock",), ("Folk",)]
    if target == "top":
        np.testing.assert_allclose(smoothed[1].probability_G.sum(), 1)
        # log-odds of Rock to Folk: half the own ones, half the mean of both
        own, other = np.log(0.4 / 0.45), np.log(0.7 / 0.1)
        expected = 0.75 * own + 0.25 * other
        assert np.log(smoothed[1].probability_G[4] / smoothed[1].probability_G[1]) == pytest.approx(expected)


def test_no_track_has_no_selection_and_rules_survive_json():
    model = model_identity()
    fitted = fit_selection_rules(model, "unused", GenreSelectionSettings())
    assert select_genres(np.empty((0, 5)), [], model, fitted) == []
    assert SelectionRules.model_validate_json(fitted.model_dump_json()) == fitted
    with pytest.raises(ValidationError, match="greater than 0"):
        GenreSelectionSettings(precision=0.0)


@pytest.mark.parametrize("target", ["top", "multi"])
def test_an_album_gets_one_decision_and_a_track_that_disagrees_is_named(target):
    model = model_identity(target)
    rock, folk = [0.05, 0.05, 0.05, 0.05, 0.8], [0.05, 0.8, 0.05, 0.05, 0.05]
    raw = np.array([rock, rock, rock, folk, folk])
    fitted = fit_selection_rules(model, "unused", GenreSelectionSettings(kind="top", per_album=True))
    selections = select_genres(raw, ["one"] * 4 + ["two"], model, fitted)
    assert [each.genres for each in selections] == [("Rock",)] * 4 + [("Folk",)]
    assert len({each.confidence for each in selections[:4]}) == 1
    assert [each.reason for each in selections] == [None] * 3 + ["album-disagrees", None]
    assert (selections[3].detail or "").startswith("alone Folk 0.")
