from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import write_atomic
from store.fs.parquet import to_parquet
from training.evaluation.calibration import (
    MIN_POSITIVES,
    UNREACHABLE_THRESHOLD,
    Calibration,
    propagate_to_ancestors,
)
from training.fit.settings import TrainSettings
from training.inference.genre_selection import (
    HELD_OUT_PREDICTIONS_FILE,
    SelectionRules,
    fit_selection_rules,
    select_genres,
    smooth_over_albums,
)
from training.inference.model_version import HELD_OUT_PREDICTIONS_SCHEMA, ModelIdentity
from training.inference.settings import GenreSelectionSettings

GENRES = ("Black-Metal", "Folk", "Metal", "Punk", "Rock")
TREE = {"Black-Metal": "Metal", "Metal": "Rock", "Punk": "Rock"}
KINDS = [("top", "top"), ("top", "multi"), ("multi", "top"), ("multi", "multi"), ("multi", "path")]


def identity(target="multi", genres=GENRES, **calibration) -> ModelIdentity:
    chosen = {"parents": TREE if target == "multi" else {}, **calibration}
    return ModelIdentity(
        genres=genres,
        mel=MelSettings(),
        training=TrainSettings(target=target),
        calibration=Calibration(**chosen),
    )


def version_of(truth, raw, splits=None) -> str:
    """Keep what a model heard of tracks, as a version in memory does."""
    url = f"memory://answers/{uuid4().hex}"
    rows = [
        {"track_id": str(number), "split": split, "truth": has, "probabilities": said}
        for number, (split, has, said) in enumerate(
            zip(splits or ["validation"] * len(truth), np.asarray(truth).tolist(), raw.tolist(), strict=True)
        )
    ]
    write_atomic(
        f"{url}/{HELD_OUT_PREDICTIONS_FILE}",
        to_parquet(pa.Table.from_pylist(rows, schema=HELD_OUT_PREDICTIONS_SCHEMA)),
    )
    return url


@st.composite
def heard(draw, target):
    """Draw what is true and what a model said, of some genres with skill and of others by luck."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tracks = draw(st.integers(1, 120))
    digits = draw(st.integers(1, 6))
    skill = random.random(len(GENRES)).round()
    raw = random.random((tracks, len(GENRES))).round(digits).astype(np.float32)
    if target == "top":
        truth = np.eye(len(GENRES), dtype=int)[random.integers(0, len(GENRES), tracks)]
    else:
        truth = (random.random(raw.shape) < draw(st.floats(0.05, 0.6))).astype(int)
    return truth, ((1 - skill) * raw + skill * truth * random.random(raw.shape)).astype(np.float32)


def told_matrix(answers) -> np.ndarray:
    return np.array([[genre in each.genres for genre in GENRES] for each in answers])


def told_by(raw, who, fitted) -> np.ndarray:
    return told_matrix(select_genres(raw.astype(np.float64), [None] * len(raw), who, fitted))


def wishes(kind, **fixed):
    some = st.lists(st.sampled_from(GENRES), unique=True).map(tuple)
    return st.builds(
        GenreSelectionSettings,
        kind=st.just(kind),
        min_confidence=st.sampled_from([0.0, 0.3, 0.55]),
        genres=some,
        max_genres=st.integers(0, 3),
        **fixed,
    )


@pytest.mark.parametrize(("target", "kind"), KINDS)
@given(data=st.data(), precision=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_of_each_genre_told_at_least_the_wanted_share_is_right(target, kind, data, precision):
    truth, raw = data.draw(heard(target))
    who = identity(target, temperature=data.draw(st.sampled_from([0.5, 1.0, 2.0])))
    wish = data.draw(wishes(kind, precision=st.just(precision)))
    told = told_by(raw, who, fit_selection_rules(who, version_of(truth, raw), wish))
    has = propagate_to_ancestors(truth > 0, GENRES, who.calibration.parents)
    for place, genre in enumerate(GENRES):
        if told[:, place].any():
            assert has[told[:, place], place].mean() >= precision, genre
            assert has[:, place].sum() >= MIN_POSITIVES
            assert told[:, place].sum() >= MIN_POSITIVES
            assert genre in (wish.genres or GENRES)
    if kind != "top" and not wish.genres:
        np.testing.assert_array_equal(propagate_to_ancestors(told, GENRES, who.calibration.parents), told)


@pytest.mark.parametrize(("target", "kind"), KINDS)
@given(data=st.data(), low=st.floats(0.05, 1.0), high=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_higher_precision_never_tells_more(target, kind, data, low, high):
    low, high = sorted((low, high))
    truth, raw = data.draw(heard(target))
    who, version = identity(target), version_of(truth, raw)
    wish = data.draw(wishes(kind))
    few, many = (
        told_by(raw, who, fit_selection_rules(who, version, wish.model_copy(update={"precision": precision})))
        for precision in (high, low)
    )
    assert not (few & ~many).any()


def test_as_much_is_told_as_the_precision_allows():
    truth = np.repeat([[1, 0], [0, 1], [1, 0]], [30, 10, 20], axis=0)
    raw = np.repeat([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], [30, 10, 20], axis=0)
    who = identity("top", genres=("Folk", "Rock"))
    version = version_of(truth, raw)
    wish = GenreSelectionSettings(precision=0.75)
    assert fit_selection_rules(who, version, wish).thresholds == (pytest.approx(0.6), UNREACHABLE_THRESHOLD)
    sharper = fit_selection_rules(who, version, wish.model_copy(update={"precision": 0.76}))
    assert sharper.thresholds == (pytest.approx(0.9), UNREACHABLE_THRESHOLD)
    assert "50% of them are told a genre" in sharper.notes[0]
    assert "at least 76% is right" in sharper.notes[0]
    (folk,) = select_genres(np.array([[0.95, 0.05]]), [None], who, sharper)
    assert folk.genres == ("Folk",)
    rock, vague = select_genres(np.array([[0.1, 0.9], [0.6, 0.4]]), [None] * 2, who, sharper)
    assert (rock.status, rock.reason, rock.detail) == ("unsure", "imprecise-genre", "Rock 0.90")
    assert (vague.status, vague.reason, vague.detail) == ("unsure", "low-confidence", "Folk 0.60")


def test_notes_name_what_is_never_told_with_numbers():
    truth = np.zeros((60, 5), int)
    truth[:9, 1] = truth[:20, 4] = truth[:15, 3] = 1
    raw = np.full((60, 5), 0.1)
    raw[:9, 1] = 0.9
    raw[:, 4], raw[:15, 3] = 0.8, 0.5
    fitted = fit_selection_rules(
        identity(), version_of(truth, raw), GenreSelectionSettings(kind="multi", precision=0.9)
    )
    notes = dict(note.split(" is never told: ") for note in fitted.notes[1:])
    assert notes["Folk"] == "9 validation tracks have it; it takes 10 to promise a precision"
    assert notes["Rock"] == "at best 20 of 60 validation tracks told so are right (33%; 90% is wanted)"
    assert notes["Punk"] == "Rock, which it is a kind of, is not"
    assert set(notes) == set(GENRES)


def test_only_validation_tracks_count():
    truth = np.eye(2, dtype=int)[[0] * 40 + [1] * 20]
    raw = np.tile([[0.8, 0.2]], (60, 1))
    splits = ["validation"] * 20 + ["test"] * 20 + ["validation"] * 20
    who = identity("top", genres=("Folk", "Rock"))
    fitted = fit_selection_rules(who, version_of(truth, raw, splits), GenreSelectionSettings(precision=0.6))
    assert "20 of 40 validation tracks" in fitted.notes[1]


def test_a_version_that_kept_nothing_of_use_is_bad_input():
    who, wish = identity("top"), GenreSelectionSettings(precision=0.9)
    with pytest.raises(BadInput, match=r"kept nothing to fit a precision on; leave the precision out"):
        fit_selection_rules(who, "memory://answers/none", wish)
    truth, raw = np.eye(5, dtype=int), np.eye(5)
    with pytest.raises(BadInput, match="no validation track in it"):
        fit_selection_rules(who, version_of(truth, raw, ["test"] * 5), wish)
    with pytest.raises(BadInput, match="4 probabilities a track for 5 genres"):
        fit_selection_rules(who, version_of(truth[:, :4], raw[:, :4]), wish)
    for content in (b"PAR1 cut", to_parquet(pa.table({"split": ["validation"]}))):
        write_atomic(f"memory://answers/bad/{HELD_OUT_PREDICTIONS_FILE}", content)
        with pytest.raises(BadInput, match="not what a version heard of its tracks"):
            fit_selection_rules(who, "memory://answers/bad", wish)


def test_auto_is_as_the_model_was_trained():
    assert fit_selection_rules(identity("top"), "unused", GenreSelectionSettings()).kind == "top"
    assert fit_selection_rules(identity("multi"), "unused", GenreSelectionSettings()).kind == "multi"


def test_a_path_needs_a_tree():
    for who in (identity("top"), identity(parents={})):
        with pytest.raises(BadInput, match="kind path: this model knows no genre tree"):
            fit_selection_rules(who, "unused", GenreSelectionSettings(kind="path"))


@pytest.mark.parametrize("target", ["top", "multi"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_without_wishes_answers_are_the_decision_s(target, seed):
    raw = np.random.default_rng(seed).random((7, 5))
    who = identity(target, temperature=1.7, thresholds=(0.3, 0.6, 0.9, 0.2, 0.7))
    calibration = who.calibration
    fitted = fit_selection_rules(who, "unused", GenreSelectionSettings())
    chance = calibration.calibrate(raw, GENRES, target)
    np.testing.assert_array_equal(
        told_by(raw, who, fitted), calibration.assign_genres(chance, GENRES, target)
    )
    for each, probability_G in zip(select_genres(raw, [None] * 7, who, fitted), chance, strict=True):
        np.testing.assert_array_equal(each.probability_G, probability_G)
        told = [probability_G[GENRES.index(genre)] for genre in each.genres]
        assert told == sorted(told, reverse=True)
        assert each.confidence == (told[0] if told else probability_G.max())
        assert each.status == ("selected" if told else "unsure")


@given(seed=st.integers(0, 2**32 - 1), digits=st.integers(1, 3), max_genres=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_path_is_a_chain_from_a_root_by_the_likeliest_child(seed, digits, max_genres):
    random = np.random.default_rng(seed)
    raw = random.random((9, 5)).round(digits)
    who = identity(thresholds=tuple(random.random(5)))
    fitted = fit_selection_rules(who, "unused", GenreSelectionSettings(kind="path", max_genres=max_genres))
    for each in select_genres(raw, [None] * 9, who, fitted):
        chance = dict(zip(GENRES, each.probability_G, strict=True))
        threshold = dict(zip(GENRES, fitted.thresholds, strict=True))
        above = None
        for genre in each.genres:
            assert TREE.get(genre) == above
            siblings = [other for other in GENRES if TREE.get(other) == above]
            assert chance[genre] == max(chance[other] for other in siblings)
            assert chance[genre] >= threshold[genre]
            above = genre
        rest = [other for other in GENRES if TREE.get(other) == above]
        if rest and not (max_genres and len(each.genres) == max_genres):
            best = max(rest, key=chance.__getitem__)
            assert chance[best] < threshold[best], "it ends only where nothing goes on"


def test_a_path_stops_where_a_threshold_is_missed():
    who = identity(thresholds=(0.1, 0.5, 0.6, 0.5, 0.5))
    fitted = fit_selection_rules(who, "unused", GenreSelectionSettings(kind="path"))
    raw = np.array([[0.5, 0.2, 0.55, 0.3, 0.9], [0.5, 0.2, 0.7, 0.65, 0.9], [0.4, 0.9, 0.4, 0.4, 0.4]])
    told = [each.genres for each in select_genres(raw, [None] * 3, who, fitted)]
    assert told == [("Rock",), ("Rock", "Metal", "Black-Metal"), ("Folk",)]


def test_of_equally_likely_genres_the_wider_comes_first_and_is_the_likeliest():
    raw = np.array([[0.9, 0.1, 0.2, 0.3, 0.4]])
    for kind, told in (
        ("multi", ("Rock", "Metal", "Black-Metal")),
        ("path", ("Rock", "Metal", "Black-Metal")),
        ("top", ("Rock",)),
    ):
        who = identity()
        (each,) = select_genres(
            raw, [None], who, fit_selection_rules(who, "unused", GenreSelectionSettings(kind=kind))
        )
        assert each.genres == told


def test_at_most_so_many_are_told_and_only_those_asked_for():
    raw = np.array([[0.6, 0.9, 0.7, 0.1, 0.8]])
    who = identity()
    for wish, told in (
        ({"max_genres": 2}, ("Folk", "Rock")),
        ({"genres": ("Metal", "Folk")}, ("Folk", "Metal")),
        ({"genres": ("Metal", "Rock", "Black-Metal"), "max_genres": 2}, ("Rock", "Metal")),
        ({"min_confidence": 0.75}, ("Folk", "Rock")),
        ({"genres": ("Punk",)}, ()),
    ):
        fitted = fit_selection_rules(who, "unused", GenreSelectionSettings(kind="multi", **wish))
        (each,) = select_genres(raw, [None], who, fitted)
        assert each.genres == told
    assert (each.status, each.reason, each.detail) == ("unsure", "not-requested", "Folk 0.90")


def test_another_genre_is_not_told_because_the_likeliest_is_not_asked_for():
    who = identity("top")
    fitted = fit_selection_rules(who, "unused", GenreSelectionSettings(genres=("Folk",)))
    likely, unlikely = select_genres(
        np.array([[0.1, 0.2, 0.1, 0.1, 0.5], [0.1, 0.6, 0.1, 0.1, 0.1]]), [None] * 2, who, fitted
    )
    assert (likely.genres, likely.reason) == ((), "not-requested")
    assert (unlikely.genres, unlikely.reason) == (("Folk",), None)


def test_a_genre_never_learned_is_bad_input():
    with pytest.raises(
        BadInput, match="genre 'Polka': this model never learned it; it knows Black-Metal, Folk"
    ):
        fit_selection_rules(identity(), "unused", GenreSelectionSettings(genres=("Polka",)))


def test_a_one_genre_model_abstains_on_request_only():
    who = identity("top", thresholds=(0.9,) * 5)
    raw = np.array([[0.1, 0.1, 0.1, 0.1, 0.6]])
    (forced,) = select_genres(raw, [None], who, fit_selection_rules(who, "unused", GenreSelectionSettings()))
    (abstaining,) = select_genres(
        raw, [None], who, fit_selection_rules(who, "unused", GenreSelectionSettings(abstain=True))
    )
    (cut,) = select_genres(
        raw, [None], who, fit_selection_rules(who, "unused", GenreSelectionSettings(min_confidence=0.61))
    )
    assert forced.genres == ("Rock",)
    for unsure in (abstaining, cut):
        assert (unsure.status, unsure.reason, unsure.detail) == ("unsure", "low-confidence", "Rock 0.60")


@pytest.mark.parametrize("target", ["top", "multi"])
@given(seed=st.integers(0, 2**32 - 1), tracks=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_smoothing_leaves_equal_tracks_and_those_alone_as_they_are(target, seed, tracks):
    random = np.random.default_rng(seed)
    who = identity(target)
    one = who.calibration.calibrate(random.dirichlet(np.ones(5), 1), GENRES, target)
    equal = np.repeat(one, tracks, axis=0)
    np.testing.assert_allclose(smooth_over_albums(equal, ["album"] * tracks, who), equal, atol=1e-6)
    others = who.calibration.calibrate(random.dirichlet(np.ones(5), tracks), GENRES, target)
    for albums in ([None] * tracks, [""] * tracks, [str(track) for track in range(tracks)]):
        np.testing.assert_array_equal(smooth_over_albums(others, albums, who), others)


@pytest.mark.parametrize("target", ["top", "multi"])
def test_smoothing_draws_an_album_together_and_nobody_else(target):
    who = identity(target)
    raw = np.array(
        [[0.05, 0.1, 0.05, 0.1, 0.7], [0.05, 0.45, 0.05, 0.05, 0.4], [0.05, 0.45, 0.05, 0.05, 0.4]]
    )
    plain = fit_selection_rules(who, "unused", GenreSelectionSettings(kind="top"))
    fitted = plain.model_copy(update={"smooth_albums": True})
    albums = ["one", "one", "two"]
    assert [each.genres for each in select_genres(raw, albums, who, plain)] == [
        ("Rock",),
        ("Folk",),
        ("Folk",),
    ]
    smoothed = select_genres(raw, albums, who, fitted)
    assert [each.genres for each in smoothed] == [("Rock",), ("Rock",), ("Folk",)]
    if target == "top":
        np.testing.assert_allclose(smoothed[1].probability_G.sum(), 1)
        # log-odds of Rock to Folk: half its own, half the mean of both
        own, other = np.log(0.4 / 0.45), np.log(0.7 / 0.1)
        expected = 0.75 * own + 0.25 * other
        assert np.log(smoothed[1].probability_G[4] / smoothed[1].probability_G[1]) == pytest.approx(expected)


def test_no_track_no_answer_and_settings_survive_json():
    who = identity()
    fitted = fit_selection_rules(who, "unused", GenreSelectionSettings())
    assert select_genres(np.empty((0, 5)), [], who, fitted) == []
    assert SelectionRules.model_validate_json(fitted.model_dump_json()) == fitted
    with pytest.raises(ValidationError, match="greater than 0"):
        GenreSelectionSettings(precision=0.0)
