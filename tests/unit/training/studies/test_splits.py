"""The splits of a study."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from store.errors import BadInput
from training.studies.splits import random_folds, share_of_known_artists, split_study


def catalogue(artists_of_genre, tracks_each=3, split=None):
    rows = [
        {
            "track_id": f"{genre}{artist}{track}",
            "artist": f"{genre} {artist}",
            "genre_top": genre,
            "split": split,
        }
        for genre, artists in artists_of_genre.items()
        for artist in range(artists)
        for track in range(tracks_each)
    ]
    return pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)


def split(tracks, kind, folds=3):
    return split_study(tracks, kind, folds=folds, validation_share=0.2, seed=0)


@pytest.mark.parametrize("kind", ["artist", "random"])
def test_each_track_is_tested_once_and_every_fold_has_all_splits(kind):
    tracks = catalogue({"Rock": 5, "Jazz": 4})
    folds = split(tracks, kind)
    tested = [
        it for fold in folds for it in fold.filter(pc.equal(fold["split"], "test"))["track_id"].to_pylist()
    ]
    assert sorted(tested) == sorted(tracks["track_id"].to_pylist())
    assert all(set(fold["split"].to_pylist()) == {"training", "validation", "test"} for fold in folds)


def test_only_random_folds_know_the_artists():
    tracks = catalogue({"Rock": 5, "Jazz": 4})
    assert [share_of_known_artists(fold) for fold in split(tracks, "artist")] == [0, 0, 0]
    assert min(share_of_known_artists(fold) for fold in split(tracks, "random")) > 0.5


def test_random_folds_have_the_genres_in_equal_parts():
    tracks = catalogue({"Rock": 7, "Jazz": 4}, tracks_each=1)
    fold_T, genre_T = random_folds(tracks, 3, seed=1), np.array(tracks["genre_top"].to_pylist())
    for genre in ("Rock", "Jazz"):
        counts = np.bincount(fold_T[genre_T == genre], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(fold_T)) <= 1


def test_a_genre_with_fewer_artists_than_folds_is_refused():
    with pytest.raises(BadInput, match="genre 'Jazz' has 2 artists"):
        split(catalogue({"Rock": 5, "Jazz": 2}), "artist")


def test_a_genre_of_one_artist_beside_the_test_is_validated_by_that_artist():
    """Only the epoch is chosen by these tracks; the test tracks are by others all the same."""
    folds = split(catalogue({"Rock": 2, "Jazz": 2}), "artist", folds=2)
    assert all(share_of_known_artists(fold) == 0 for fold in folds)


def test_a_store_without_all_official_splits_is_refused():
    with pytest.raises(BadInput, match="have the splits none, and not all of training, validation, test"):
        split(catalogue({"Rock": 3}), "official")
