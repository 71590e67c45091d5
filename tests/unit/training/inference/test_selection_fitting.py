import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import BadInput
from store.fs.files import write_atomic
from store.fs.parquet import to_parquet
from tests.support.selection_cases import (
    GENRES,
    KINDS,
    held_out,
    model_identity,
    publish_held_out,
    selected_by,
    selection_settings,
)
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, propagate_to_ancestors
from training.evaluation.calibration_fitting import MIN_POSITIVES
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE
from training.inference.genre_selection import select_genres
from training.inference.selection_fitting import fit_selection_rules
from training.inference.settings import GenreSelectionSettings


@pytest.mark.parametrize(("target", "kind"), KINDS)
@given(data=st.data(), precision=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_each_genre_keeps_the_wanted_precision(target, kind, data, precision):
    truth, raw = data.draw(held_out(target))
    model = model_identity(target, temperature=data.draw(st.sampled_from([0.5, 1.0, 2.0])))
    wanted = data.draw(selection_settings(kind, precision=st.just(precision)))
    selected = selected_by(raw, model, fit_selection_rules(model, publish_held_out(truth, raw), wanted))
    has = propagate_to_ancestors(truth > 0, GENRES, model.calibration.parents)
    for index, genre in enumerate(GENRES):
        if selected[:, index].any():
            assert has[selected[:, index], index].mean() >= precision, genre
            assert has[:, index].sum() >= MIN_POSITIVES
            assert selected[:, index].sum() >= MIN_POSITIVES
            assert genre in (wanted.genres or GENRES)
    if kind != "top" and not wanted.genres:
        np.testing.assert_array_equal(
            propagate_to_ancestors(selected, GENRES, model.calibration.parents), selected
        )


@pytest.mark.parametrize(("target", "kind"), KINDS)
@given(data=st.data(), low=st.floats(0.05, 1.0), high=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_higher_precision_never_assigns_more(target, kind, data, low, high):
    low, high = sorted((low, high))
    truth, raw = data.draw(held_out(target))
    model, version = model_identity(target), publish_held_out(truth, raw)
    wanted = data.draw(selection_settings(kind))
    few, many = (
        selected_by(
            raw,
            model,
            fit_selection_rules(model, version, wanted.model_copy(update={"precision": precision})),
        )
        for precision in (high, low)
    )
    assert not (few & ~many).any()


def test_as_much_is_assigned_as_the_precision_allows():
    truth = np.repeat([[1, 0], [0, 1], [1, 0]], [30, 10, 20], axis=0)
    raw = np.repeat([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], [30, 10, 20], axis=0)
    model = model_identity("top", genres=("Folk", "Rock"))
    version = publish_held_out(truth, raw)
    wanted = GenreSelectionSettings(precision=0.75)
    assert fit_selection_rules(model, version, wanted).thresholds == (
        pytest.approx(0.6),
        UNREACHABLE_THRESHOLD,
    )
    sharper = fit_selection_rules(model, version, wanted.model_copy(update={"precision": 0.76}))
    assert sharper.thresholds == (pytest.approx(0.9), UNREACHABLE_THRESHOLD)
    assert "50% of the tracks get a genre" in sharper.notes[0]
    assert "at least 76% are correct" in sharper.notes[0]
    (folk,) = select_genres(np.array([[0.95, 0.05]]), [None], model, sharper)
    assert folk.genres == ("Folk",)
    rock, vague = select_genres(np.array([[0.1, 0.9], [0.6, 0.4]]), [None] * 2, model, sharper)
    assert (rock.status, rock.reason, rock.detail) == ("unsure", "imprecise-genre", "Rock 0.90")
    assert (vague.status, vague.reason, vague.detail) == ("unsure", "low-confidence", "Folk 0.60")


def test_notes_name_genres_that_are_never_assigned_with_numbers():
    truth = np.zeros((60, 5), int)
    truth[:9, 1] = truth[:20, 4] = truth[:15, 3] = 1
    raw = np.full((60, 5), 0.1)
    raw[:9, 1] = 0.9
    raw[:, 4], raw[:15, 3] = 0.8, 0.5
    fitted = fit_selection_rules(
        model_identity(), publish_held_out(truth, raw), GenreSelectionSettings(kind="multi", precision=0.9)
    )
    notes = dict(note.split(" is never assigned: ") for note in fitted.notes[1:])
    assert notes["Folk"] == "9 validation tracks have it; a precision takes 10"
    assert (
        notes["Rock"]
        == "at best 20 of 60 assignments on the validation tracks are correct (33%; 90% is wanted)"
    )
    assert notes["Punk"] == "its ancestor Rock is never assigned"
    assert set(notes) == set(GENRES)


def test_only_validation_tracks_count():
    truth = np.eye(2, dtype=int)[[0] * 40 + [1] * 20]
    raw = np.tile([[0.8, 0.2]], (60, 1))
    splits = ["validation"] * 20 + ["test"] * 20 + ["validation"] * 20
    model = model_identity("top", genres=("Folk", "Rock"))
    fitted = fit_selection_rules(
        model, publish_held_out(truth, raw, splits), GenreSelectionSettings(precision=0.6)
    )
    assert "20 of 40 assignments" in fitted.notes[1]


def test_a_version_without_usable_predictions_is_bad_input():
    model, wanted = model_identity("top"), GenreSelectionSettings(precision=0.9)
    with pytest.raises(
        BadInput, match=r"has no stored predictions .*; train it again, or leave the precision out"
    ):
        fit_selection_rules(model, "memory://versions/none", wanted)
    truth, raw = np.eye(5, dtype=int), np.eye(5)
    with pytest.raises(BadInput, match="has no validation track"):
        fit_selection_rules(model, publish_held_out(truth, raw, ["test"] * 5), wanted)
    with pytest.raises(BadInput, match="4 probabilities a track for 5 genres"):
        fit_selection_rules(model, publish_held_out(truth[:, :4], raw[:, :4]), wanted)
    other = pa.table({"split": ["validation"], "truth": ["a"], "probabilities": ["b"]})
    for content, message in (
        (b"PAR1 cut", "this Parquet file is damaged .*, or leave the precision out"),
        (
            to_parquet(other.select(["split"])),
            "has no column truth, probabilities; .*, or leave the precision out",
        ),
        (to_parquet(other), "not a version's held-out predictions"),
    ):
        write_atomic(f"memory://versions/bad/{HELD_OUT_PREDICTIONS_FILE}", content)
        with pytest.raises(BadInput, match=message):
            fit_selection_rules(model, "memory://versions/bad", wanted)


def test_auto_is_as_the_model_was_trained():
    assert fit_selection_rules(model_identity("top"), "unused", GenreSelectionSettings()).kind == "top"
    assert fit_selection_rules(model_identity("multi"), "unused", GenreSelectionSettings()).kind == "multi"


def test_a_path_needs_a_tree():
    for model in (model_identity("top"), model_identity(parents={})):
        with pytest.raises(BadInput, match="kind path: this model has no genre tree"):
            fit_selection_rules(model, "unused", GenreSelectionSettings(kind="path"))


def test_a_genre_that_the_model_lacks_is_bad_input():
    with pytest.raises(BadInput, match="genre 'Polka': not one of this model's: Black-Metal, Folk"):
        fit_selection_rules(model_identity(), "unused", GenreSelectionSettings(genres=("Polka",)))
