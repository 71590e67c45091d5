import json

import numpy as np
import pyarrow as pa
import pytest

from store.errors import BadInput
from store.fs.files import write_atomic
from store.fs.parquet import to_parquet
from training.feature_machine.feature_table import FEATURE_TABLE_SCHEMA
from training.feature_machine.track_features import BLOCK_SIZES_KEY
from training.label_audit.cross_prediction import Audit, average, choose_audited_genres, predict_across_folds
from training.label_audit.label_quality import assess_labels

GENRES = ("Folk", "Rock")


def catalogue(tracks=40, artists=10):
    names = [f"artist {row % artists}" for row in range(tracks)]
    return pa.table(
        {
            "track_id": [str(row) for row in range(tracks)],
            "artist": names,
            "album": pa.nulls(tracks, pa.string()),
            "genre_top": [GENRES[row % artists % 2] for row in range(tracks)],
        }
    )


def feature_file(path, features_TD):
    schema = FEATURE_TABLE_SCHEMA.with_metadata(
        {BLOCK_SIZES_KEY: json.dumps({"shape": features_TD.shape[1]})}
    )
    ids = [str(row) for row in range(len(features_TD))]
    table = pa.table([ids, features_TD.tolist()], names=schema.names).cast(schema)
    write_atomic(str(path), to_parquet(table))
    return str(path)


def test_swapped_labels_are_marked_and_are_the_worst_of_the_list(tmp_path):
    tracks = catalogue()
    is_rock_T = np.array(tracks["genre_top"].to_pylist()) == "Rock"
    features_TD = np.random.default_rng(0).normal(3.0 * is_rock_T[:, None], 0.5, (40, 3)).astype(np.float32)
    url = feature_file(tmp_path / "features.parquet", features_TD)
    table = predict_across_folds(Audit(tracks, GENRES, url, 4, (0, 1), swap_share=0.05, swap_seed=3))
    given_T, is_swapped_T = table["given"].to_numpy(), table["swapped"].to_numpy()
    assert is_swapped_T.sum() == 2
    np.testing.assert_array_equal(given_T != is_rock_T, is_swapped_T)
    quality = assess_labels(np.array(table["probabilities"].to_pylist()), given_T)
    assert set(quality.ranked()[:2]) == set(np.flatnonzero(is_swapped_T))


def test_a_track_is_not_judged_by_a_machine_that_was_fitted_on_its_artist(tmp_path):
    """Each artist has its own sound, which says nothing of the genre of others: nothing can be predicted."""
    tracks = catalogue()
    features_TD = np.eye(10, dtype=np.float32)[np.arange(40) % 10]
    url = feature_file(tmp_path / "features.parquet", features_TD)
    table = predict_across_folds(Audit(tracks, GENRES, url, 5, (0,)))
    given_T = table["given"].to_numpy()
    probability_TG = np.array(table["probabilities"].to_pylist())
    assert probability_TG[np.arange(40), given_T].mean() < 0.6


def test_genres_of_a_single_artist_are_left_out():
    tracks = catalogue(artists=4)  # two artists each
    assert choose_audited_genres(tracks, GENRES) == (GENRES, [])
    lonely = catalogue(artists=3)
    with pytest.raises(BadInput, match=r"1 genre has two artists or more \(Folk\)"):
        choose_audited_genres(lonely, GENRES)


def test_the_average_is_between_the_repeats():
    one_TG, other_TG = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    np.testing.assert_allclose(average([one_TG, other_TG]), [[0.5, 0.5]])
    np.testing.assert_allclose(average([one_TG]), one_TG)
