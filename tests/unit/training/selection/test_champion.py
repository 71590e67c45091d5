"""Toy models whose predictions are written by hand."""

from dataclasses import replace

import pyarrow as pa
import pytest

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from training.evaluation.calibration import Calibration
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity, members_of
from training.networks.settings import ModelSettings
from training.selection.champion import (
    Candidate,
    compare_candidates,
    count_incomparable_tracks,
    restrict_to_genres,
    shared_genres,
)
from training.selection.comparison import Comparison, Gain, GenreGain
from training.selection.promotion import decide_promotion, refuse_forgotten_genres


def candidate(genres, predictions, target="top", calibration=None, model="short-chunk-resnet"):
    """Make a model with, for each track, its true genres and probabilities in the order of `genres`."""
    settings = ModelSettings(name=model)
    identity = ModelIdentity(
        genres=genres,
        mel=MelSettings(),
        training=TrainSettings(target=target, model=settings),
        calibration=calibration or Calibration(),
        members=members_of(settings),
    )
    rows = [
        {
            "track_id": track,
            "split": "test",
            "artist": track,
            "truth": [int(genre in truth) for genre in genres],
            "probabilities": probabilities,
        }
        for track, (truth, probabilities) in predictions.items()
    ]
    return Candidate(identity, pa.Table.from_pylist(rows, schema=HELD_OUT_PREDICTIONS_SCHEMA), genres)


OLD = candidate(
    ("Jazz", "Rock"),
    {"1": (["Jazz"], [0.9, 0.1]), "2": (["Rock"], [0.8, 0.2]), "4": (["Rock"], [0.1, 0.9])},
)
NEW = candidate(
    ("Folk", "Jazz", "Rock"),
    {
        "1": (["Jazz"], [0.5, 0.3, 0.2]),
        "2": (["Rock"], [0.5, 0.1, 0.4]),
        "3": (["Folk"], [0.9, 0.1, 0.0]),
    },
)


def test_two_models_are_compared_on_shared_tracks_and_genres():
    assert shared_genres(OLD.identity, NEW.identity) == ("Jazz", "Rock")
    comparison = compare_candidates(OLD, NEW)
    assert comparison.tracks == 2, "3 is of a genre that only one model has, 4 was predicted by one only"
    assert (comparison.accuracy.champion, comparison.accuracy.challenger) == (0.5, 1.0)
    assert [it.genre for it in comparison.genres] == ["Jazz", "Rock"]


def test_with_equal_genres_nothing_is_changed():
    same = restrict_to_genres(NEW, NEW.identity.genres)
    assert same.equals(NEW.predictions)
    of_two = restrict_to_genres(NEW, ("Jazz", "Rock"))
    assert of_two["probabilities"].to_pylist()[0] == pytest.approx([0.6, 0.4])
    assert of_two["truth"].to_pylist() == [[1, 0], [0, 1]]


def test_a_challenger_that_lacks_a_genre_is_refused_and_the_genre_named():
    assert refuse_forgotten_genres(OLD.identity, NEW.identity) is None, "another genre may be added"
    decision = refuse_forgotten_genres(NEW.identity, OLD.identity)
    assert not decision.is_better
    assert decision.reason == (
        "lacks Folk, which the champion predicts; to promote it all the same, use `spectrogram-one models promote`"
    )


def test_test_tracks_of_genres_of_one_model_only_are_counted_for_both():
    rows = [("1", "test", "Jazz"), ("2", "test", "Folk"), ("3", "test", "Folk"), ("4", "test", "Polka")]
    rows += [("5", "training", "Folk"), ("6", "training", "Rock"), ("7", "validation", "Rock")]
    tracks = pa.table(
        {
            **dict(zip(("track_id", "split", "genre_top"), map(list, zip(*rows, strict=True)), strict=True)),
            "shard": ["a"] * len(rows),
            "start_frame": range(len(rows)),
            "frames": [1] * len(rows),
            "genres": [[genre] for *_, genre in rows],
        }
    )
    assert count_incomparable_tracks(tracks, OLD.identity, NEW.identity) == 2
    assert count_incomparable_tracks(tracks, NEW.identity, OLD.identity) == 2
    assert count_incomparable_tracks(tracks, NEW.identity, NEW.identity) == 0


def test_tracks_of_other_splits_do_not_count():
    predictions = NEW.predictions.set_column(1, "split", pa.array(["validation", "test", "training"]))
    assert restrict_to_genres(replace(NEW, predictions=predictions), ("Jazz", "Rock"))[
        "track_id"
    ].to_pylist() == ["2"]


def test_each_model_uses_its_own_thresholds_of_the_shared_genres():
    parents = {"Jazz": "Folk", "Rock": "Jazz"}
    predictions = {"1": (["Jazz"], [0.1, 0.3, 0.1]), "2": (["Rock"], [0.1, 0.1, 0.3])}
    strict = candidate(("Folk", "Jazz", "Rock"), predictions, "multi")
    lenient = candidate(("Jazz", "Rock"), {"1": (["Jazz"], [0.3, 0.1]), "2": (["Rock"], [0.1, 0.3])}, "multi")
    calibration = Calibration(thresholds=(0.9, 0.2, 0.2), parents=parents)
    decided = candidate(("Folk", "Jazz", "Rock"), predictions, "multi", calibration)
    assert compare_candidates(strict, lenient).accuracy.challenger == 0.0
    comparison = compare_candidates(lenient, decided)
    assert comparison.accuracy.champion == 0.0
    # Rock is a kind of Jazz here, so the second track is assigned both: one genre is wrong.
    assert comparison.accuracy.challenger == 0.5


def test_what_cannot_be_compared_is_bad_input():
    other = candidate(("Jazz", "Rock"), {"1": (["Jazz"], [0.9, 0.1])}, "multi")
    with pytest.raises(BadInput, match="champion was trained for target top, the challenger for multi"):
        compare_candidates(OLD, other)
    unlike = candidate(("Polka", "Rock"), {"1": (["Rock"], [0.9, 0.1])})
    with pytest.raises(BadInput, match=r"share 1 genres \(Jazz, Rock; Polka, Rock\); a comparison needs two"):
        compare_candidates(OLD, unlike)
    elsewhere = candidate(("Jazz", "Rock"), {"9": (["Jazz"], [0.9, 0.1])})
    with pytest.raises(BadInput, match="on the same test tracks only"):
        compare_candidates(OLD, elsewhere)


def comparison_of(gain, share, genre_gain=0.0):
    f1 = Gain(0.5, 0.5 + gain, gain, -0.1, 0.2, share)
    jazz = GenreGain("Jazz", 9, 0.8, 0.8 + genre_gain, genre_gain, None, None)
    untested = GenreGain("Polka", 0, None, None, None, None, None)
    return Comparison(20, 7, 0.01, f1, f1, f1, (jazz, untested))


@pytest.mark.parametrize(
    ("comparison", "is_better", "reason"),
    [
        (comparison_of(0.05, 0.97), True, "macro F1 0.500 -> 0.550 (+0.050) on 20 test tracks by 7 artists"),
        (
            comparison_of(0.05, 0.94),
            False,
            "better by more than 0.01 in 94.0% of the resamples, wanted 95.0%",
        ),
        (comparison_of(0.01, 0.97), False, "wanted 95.0%"),
        (comparison_of(0.05, 0.97, -0.06), False, "worse by more than 0.05 in F1 of Jazz (0.80 -> 0.74)"),
        (comparison_of(0.05, 0.97, -0.04), True, "macro F1"),
        (comparison_of(0.05, None), False, "the tracks of one artist cannot show a difference"),
    ],
)
def test_only_a_surely_better_model_that_is_much_worse_on_no_genre_is_promoted(comparison, is_better, reason):
    decision = decide_promotion(comparison, confidence=0.95, max_genre_f1_drop=0.05)
    assert decision.is_better == is_better
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("champion", "challenger"), [("features", "short-chunk-resnet"), ("short-chunk-resnet", "average")]
)
def test_models_of_different_kinds_are_compared_by_their_stored_predictions(champion, challenger):
    truth = {str(track): ("Jazz", "Rock")[track % 2] for track in range(40)}
    certain = {"Jazz": [0.9, 0.1], "Rock": [0.1, 0.9]}

    def predicts(model, right):
        """Make a model of a kind that is right on the first tracks."""
        rows = {
            track: ([genre], certain[genre] if int(track) < right else certain[genre][::-1])
            for track, genre in truth.items()
        }
        return candidate(("Jazz", "Rock"), rows, model=model)

    old, better = predicts(champion, 20), predicts(challenger, 36)
    assert old.identity.members != better.identity.members
    for pair, is_better in (((old, better), True), ((better, old), False)):
        decision = decide_promotion(
            compare_candidates(*pair, margin=0.01), confidence=0.95, max_genre_f1_drop=0.05
        )
        assert decision.is_better == is_better
