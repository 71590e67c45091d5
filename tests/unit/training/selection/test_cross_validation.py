import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import BadInput
from training.selection.cross_validation import (
    confusion_csv,
    fold_predictions,
    folds_csv,
    score_folds,
    score_pooled,
    score_spread,
    select_cross_validation_tracks,
    split_folds,
)

GENRES = ("high", "low")


def catalogue(artists_per_genre=4, tracks_per_artist=2):
    """List tracks of two genres; all were in the split that tests."""
    rows = [
        {
            "track_id": f"{genre}-{artist}-{number}",
            "artist": f"{genre} {artist}",
            "album": None,
            "genre_top": genre,
            "genres": [genre, "all"],
            "split": "test",
            "shard": "a",
            "start_frame": 0,
            "frames": 100,
        }
        for genre in GENRES
        for artist in range(artists_per_genre)
        for number in range(tracks_per_artist)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table(columns | {"album": pa.array(columns["album"], pa.string())})


def artist_of(track_id):
    return track_id.rsplit("-", 1)[0]


@settings(max_examples=30, deadline=None)
@given(folds=st.integers(2, 4), artists=st.integers(4, 9), seed=st.integers(0, 99))
def test_each_track_is_tested_once_by_a_model_trained_without_its_artist(folds, artists, seed):
    tracks = catalogue(artists)
    made = split_folds(tracks, "top", GENRES, folds=folds, validation_share=0.3, seed=seed)
    tested = []
    for fold in made:
        parts = {
            split: {row["track_id"] for row in fold.to_pylist() if row["split"] == split}
            for split in ("training", "validation", "test")
        }
        assert sum(map(len, parts.values())) == len(tracks)
        artists_of = [{artist_of(track_id) for track_id in part} for part in parts.values()]
        assert sum(map(len, artists_of)) == len(set.union(*artists_of)), "an artist is in two parts"
        assert all(
            {row["target"][0] for row in fold.to_pylist() if row["split"] == part} == {0, 1} for part in parts
        )
        tested += parts["test"]
    assert sorted(tested) == sorted(tracks["track_id"].to_pylist())


def test_folds_ignore_the_splits_of_the_catalogue():
    one, other = (
        split_folds(tracks, "top", GENRES, folds=2, validation_share=0.3, seed=0)
        for tracks in (
            catalogue(),
            catalogue().drop_columns("split").append_column("split", pa.array(["training"] * 16)),
        )
    )
    assert all(mine.equals(its) for mine, its in zip(one, other, strict=True))


def test_too_few_artists_are_refused():
    with pytest.raises(BadInput, match=r"'high' has 4 artists .* 5 folds that shares no artist needs 5"):
        split_folds(catalogue(), "top", GENRES, folds=5, validation_share=0.3, seed=0)


def test_labelled_tracks_have_a_spectrogram_and_one_of_the_genres():
    tracks = catalogue()
    shard = tracks["shard"].to_pylist()
    shard[0] = None
    genre = tracks["genre_top"].to_pylist()
    genre[1], genre[2] = None, "other"
    index_of = tracks.schema.get_field_index
    tracks = tracks.set_column(index_of("shard"), "shard", pa.array(shard))
    tracks = tracks.set_column(index_of("genre_top"), "genre_top", pa.array(genre))
    genres, labelled = select_cross_validation_tracks(tracks, "top", ("low", "high"))
    assert genres == GENRES
    assert labelled["track_id"].to_pylist() == tracks["track_id"].to_pylist()[3:]


def test_several_genres_a_track_can_be_chosen_by_any_of_them():
    genres, labelled = select_cross_validation_tracks(catalogue(), "multi", ("all", "low"))
    assert genres == ("all", "low")
    assert len(labelled) == 16


def predict(correct, truth=(0, 1)):
    """Make predictions for tracks of the genres `truth`, correct or wrong."""
    genres = [genre if ok else 1 - genre for genre, ok in zip(truth, correct, strict=True)]
    return pa.table(
        {
            "track_id": [str(number) for number in range(len(truth))],
            "truth": np.eye(2, dtype=int)[list(truth)].tolist(),
            "probabilities": (0.2 + 0.6 * np.eye(2)[genres]).tolist(),
            "title": [None] * len(truth),
        }
    )


@pytest.fixture
def predictions():
    """Two seeds on two folds: 2 and 1 of 2 correct in the first fold, none in the second."""
    return pa.concat_tables(
        [
            fold_predictions(
                predict([True, True]), model="network", seed=0, fold=0, best_epoch=3, train_s=1.5
            ),
            fold_predictions(
                predict([True, False]), model="network", seed=1, fold=0, best_epoch=4, train_s=1.5
            ),
            fold_predictions(
                predict([False, False]), model="network", seed=0, fold=1, best_epoch=1, train_s=1.5
            ),
            fold_predictions(
                predict([False, False]), model="network", seed=1, fold=1, best_epoch=2, train_s=1.5
            ),
            fold_predictions(predict([True, True]), model="svm", fold=0),
            fold_predictions(predict([True, True]), model="svm", fold=1),
        ]
    )


def test_the_spread_is_over_folds_of_the_mean_over_seeds(predictions):
    results = score_folds(predictions, GENRES, "top")
    accuracy = score_spread(results, "network", name="accuracy")
    assert accuracy.mean == pytest.approx(0.375)
    assert accuracy.std == pytest.approx(np.std([0.75, 0.0], ddof=1))
    assert score_spread(results, "svm", name="macro_f1").mean == 1.0


def test_the_tables_contain_every_fold_and_every_track(predictions):
    rows = list(csv.DictReader(io.StringIO(folds_csv(score_folds(predictions, GENRES, "top")).decode())))
    assert [(row["model"], row["seed"], row["fold"], row["correct"], row["best_epoch"]) for row in rows] == [
        ("network", "0", "0", "2", "3"),
        ("network", "1", "0", "1", "4"),
        ("network", "0", "1", "0", "1"),
        ("network", "1", "1", "0", "2"),
        ("svm", "", "0", "2", ""),
        ("svm", "", "1", "2", ""),
    ]
    scores = {model: score_pooled(predictions, model, GENRES, "top") for model in ("network", "svm")}
    counts = {
        (row["model"], row["truth"], row["predicted"]): int(row["tracks"])
        for row in csv.DictReader(io.StringIO(confusion_csv(scores).decode()))
    }
    assert counts[("network", "high", "high")] == 2
    assert counts[("network", "low", "high")] == 3
    assert counts[("svm", "low", "low")] == 2
    assert sum(counts.values()) == 12
