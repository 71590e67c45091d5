import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from preprocessing.features.patches import PatchDictionary
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import write_atomic
from tests.support.musicnn_variables import random_musicnn
from training.feature_machine import kernel_machine
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.score_calibration import fit_score_calibration
from training.feature_machine.version_file import (
    FEATURES_FILE,
    FeatureMachine,
    load_feature_machine,
    save_feature_machine,
)

MEL = MelSettings(bands=16)
BLOCKS = {"scattering": 6, "rhythm": 4}
GENRES = 3


def clouds(tracks, seed, spread=0.5):
    """Draw positive features of tracks around one centre a genre, some of them constant."""
    random = np.random.default_rng(seed)
    genre_T = np.arange(tracks) % GENRES
    centre_GD = np.random.default_rng(0).normal(size=(GENRES, 10))
    features_TD = np.exp(random.normal(centre_GD[genre_T], spread)).astype(np.float32)
    features_TD[:, 9] = 7
    return features_TD, np.eye(GENRES)[genre_T]


def fit(tracks=60, target="top", spread=0.5):
    features_TD, target_TG = clouds(tracks, seed=1, spread=spread)
    return fit_machine(features_TD, target_TG, *artists_and_folds(tracks), BLOCKS, target, seed=0)


def artists_and_folds(tracks):
    """Return artists of a track of each genre, and their folds."""
    artist_T = np.arange(tracks) // GENRES
    return artist_T, artist_T % 5


@pytest.mark.parametrize("target", ["top", "multi"])
@pytest.mark.parametrize("landmarks", [2_000, 30])
def test_separable_genres_are_separated_with_all_tracks_as_landmarks_and_with_some(
    target, landmarks, monkeypatch
):
    monkeypatch.setattr(kernel_machine, "MAX_LANDMARKS", landmarks)
    machine, across_TG = fit(target=target)
    assert len(machine.landmarks_ND) == min(60, landmarks)
    features_TD, target_TG = clouds(90, seed=2)
    probability_TG = machine.predict(features_TD, target)
    for found_TG, truth_TG in ((probability_TG, target_TG), (across_TG, clouds(60, seed=1)[1])):
        assert (found_TG.argmax(axis=1) == truth_TG.argmax(axis=1)).mean() > 0.9
    if target == "top":
        np.testing.assert_allclose(probability_TG.sum(axis=1), 1)


def test_predictions_across_folds_are_not_those_of_a_machine_that_knows_the_track():
    """Of genres that overlap, a machine remembers its own tracks, and is often wrong on others."""
    features_TD, target_TG = clouds(90, seed=1, spread=2.0)
    machine, across_TG = fit_machine(features_TD, target_TG, *artists_and_folds(90), BLOCKS, "top", seed=0)
    own, across = (
        (found_TG.argmax(axis=1) == target_TG.argmax(axis=1)).mean()
        for found_TG in (machine.predict(features_TD, "top"), across_TG)
    )
    assert across + 0.2 < own


def test_a_genre_that_a_fold_alone_has_is_predicted_without_an_error():
    features_TD, target_TG = clouds(30, seed=5)
    fold_T = target_TG[:, 2].astype(np.int64)
    machine, across_TG = fit_machine(features_TD, target_TG, np.arange(30), fold_T, BLOCKS, "top", seed=0)
    assert np.isfinite(across_TG).all()
    assert np.isfinite(machine.predict(features_TD, "top")).all()


def test_the_scale_of_a_block_without_logarithm_does_not_matter():
    features_TD, target_TG = clouds(60, seed=1)
    scale_D = np.array([1] * 6 + [1e-3, 10, 500, 1], np.float32)
    one, other = (
        fit_machine(values, target_TG, *artists_and_folds(60), BLOCKS, "top", seed=0)[1]
        for values in (features_TD, features_TD * scale_D)
    )
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_calibrated_scores_are_as_probable_as_they_are_frequent():
    random = np.random.default_rng(0)
    score_TG = random.normal(size=(4_000, GENRES))
    logit_TG = 1.7 * score_TG + np.array([0.3, 0.0, -0.3])
    gumbel_TG = random.gumbel(size=logit_TG.shape)
    target_TG = np.eye(GENRES)[(logit_TG + gumbel_TG).argmax(axis=1)]
    found = fit_score_calibration(score_TG, target_TG, "top")
    assert found.slope == pytest.approx(1.7, rel=0.1)
    assert found.offset_G[0] - found.offset_G[2] == pytest.approx(0.6, abs=0.15)


@pytest.fixture
def features():
    dictionary = PatchDictionary(
        np.zeros(64, np.float32), np.eye(64, 5, dtype=np.float32), np.eye(5, dtype=np.float32)
    )
    return FeatureMachine(dictionary, fit()[0])


def test_a_stored_machine_predicts_the_same(features, tmp_path):
    write_atomic(f"{tmp_path}/{FEATURES_FILE}", save_feature_machine(features, MEL))
    loaded = load_feature_machine(str(tmp_path), MEL, GENRES)
    values_TD = clouds(20, seed=8)[0]
    np.testing.assert_array_equal(loaded.predict(values_TD, "top"), features.predict(values_TD, "top"))
    np.testing.assert_array_equal(loaded.dictionary.atoms_AC, features.dictionary.atoms_AC)


def test_a_stored_machine_has_musicnn_with_it_and_its_licence(features, tmp_path):
    whole = replace(features, musicnn=random_musicnn())
    data = save_feature_machine(whole, MEL)
    write_atomic(f"{tmp_path}/{FEATURES_FILE}", data)
    loaded = load_feature_machine(str(tmp_path), MEL, GENRES)
    mel_FM = np.random.default_rng(0).normal(-30, 6, (200, 96)).astype(np.float32)
    np.testing.assert_array_equal(loaded.musicnn.embed(mel_FM), whole.musicnn.embed(mel_FM))
    assert b"this permission notice appear in all copies" in data
    assert b"musicnn" not in save_feature_machine(features, MEL)

    arrays = {
        name: array for name, array in safetensors.numpy.load(data).items() if name != "musicnn.dense.bias_C"
    }
    settings = json.dumps({"recipe": "1-musicnn", "mel": MEL.settings_hash, "slope": 1.0})
    write_atomic(f"{tmp_path}/less/{FEATURES_FILE}", safetensors.numpy.save(arrays, {"settings": settings}))
    with pytest.raises(BadInput, match="not a feature machine"):
        load_feature_machine(f"{tmp_path}/less", MEL, GENRES)


def test_a_file_that_cannot_be_used_is_refused_by_name(features, tmp_path):
    data = save_feature_machine(features, MEL)
    settings = {"recipe": "0", "mel": MEL.settings_hash, "slope": 1.0}
    arrays = safetensors.numpy.load(data)
    cases = {
        "missing": (None, MEL, GENRES, "the feature machine is missing; train the model again"),
        "cut": (data[:-100], MEL, GENRES, "not a feature machine"),
        "empty": (b"", MEL, GENRES, "not a feature machine"),
        "foreign": (safetensors.numpy.save({"x": np.zeros(3)}), MEL, GENRES, "not a feature machine"),
        "older": (
            safetensors.numpy.save(arrays, {"settings": json.dumps(settings)}), MEL, GENRES,
            "features of recipe 0, this program computes recipe 1; train again",
        ),
        "mel": (data, MelSettings(bands=20), GENRES, r"fitted on mel settings \w+, the model has \w+"),
        "genres": (data, MEL, GENRES + 1, "arrays of shapes .*; train the model again"),
    }  # fmt: skip
    for name, (content, mel, genres, message) in cases.items():
        if content is not None:
            write_atomic(f"{tmp_path}/{name}/{FEATURES_FILE}", content)
        with pytest.raises(BadInput, match=message):
            load_feature_machine(f"{tmp_path}/{name}", mel, genres)
