from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, skew

from preprocessing.decode import decode
from preprocessing.features.spectral_shape import COEFFICIENTS as MFCC_COEFFICIENTS
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from training.selection.svm_baseline import compute_track_features, limit_tracks, svm_predict

MEL = MelSettings()
SONG = Path(__file__).parents[3] / "data/demo_music/fma_small/200/200001.mp3"
FEATURES = 2 * MFCC_COEFFICIENTS + 4  # of a frame
EPS32 = 2.0**-23  # features are computed in float64 and rounded to float32


@pytest.fixture(scope="module")
def song_mel():
    return log_mel(decode(str(SONG), sample_rate_hz=MEL.sample_rate_hz, duration_s=5.0), MEL)


def noise_mel(frames, bands=MEL.bands, seed=0):
    return np.random.default_rng(seed).normal(-30, 6, (frames, bands)).astype(np.float32)


def test_the_cepstrum_is_librosas(song_mel):
    mfcc_KF = librosa.feature.mfcc(S=song_mel.T.astype(np.float64), n_mfcc=MFCC_COEFFICIENTS)
    features_SK = compute_track_features(song_mel, MEL).reshape(7, FEATURES)
    np.testing.assert_allclose(features_SK[0, :MFCC_COEFFICIENTS], mfcc_KF.mean(axis=1), rtol=EPS32)
    np.testing.assert_allclose(features_SK[1, :MFCC_COEFFICIENTS], mfcc_KF.std(axis=1), rtol=EPS32)
    np.testing.assert_allclose(features_SK[6, :MFCC_COEFFICIENTS], mfcc_KF.max(axis=1), rtol=EPS32)


def test_the_shape_of_a_distribution_is_scipys(song_mel):
    mfcc_KF = librosa.feature.mfcc(S=song_mel.T.astype(np.float64), n_mfcc=MFCC_COEFFICIENTS)
    features_SK = compute_track_features(song_mel, MEL).reshape(7, FEATURES)
    np.testing.assert_allclose(
        features_SK[2, :MFCC_COEFFICIENTS], skew(mfcc_KF, axis=1), rtol=EPS32, atol=EPS32
    )
    np.testing.assert_allclose(
        features_SK[3, :MFCC_COEFFICIENTS], kurtosis(mfcc_KF, axis=1, fisher=False), rtol=EPS32
    )


def test_louder_is_the_same_timbre(song_mel):
    """Only the first coefficient of the cepstrum, which is loudness, changes."""
    quiet_SK, loud_SK = (
        compute_track_features(song_mel + gain_db, MEL).reshape(7, FEATURES) for gain_db in (0, 6)
    )
    changed = ~np.isclose(quiet_SK, loud_SK, rtol=1e-3, atol=0.05).all(axis=0)
    assert changed.tolist() == [True] + [False] * (FEATURES - 1)


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(1, 40), bands=st.sampled_from([8, 24, 128]), still=st.booleans())
def test_any_spectrogram_has_finite_features(frames, bands, still):
    mel_FM = np.full((frames, bands), -100, np.float32) if still else noise_mel(frames, bands)
    features_D = compute_track_features(mel_FM, MelSettings(bands=bands))
    assert features_D.shape == (7 * (2 * min(MFCC_COEFFICIENTS, bands) + 4),)
    assert np.isfinite(features_D).all()


def clouds(genres, tracks, seed):
    """Draw tracks around one centre a genre."""
    random = np.random.default_rng(seed)
    genre_T = np.arange(tracks) % genres
    centres_GD = 4 * np.eye(genres, 6)
    return random.normal(centres_GD[genre_T], 1.0), np.eye(genres, dtype=int)[genre_T]


@pytest.mark.parametrize("genres", [2, 3, 5])
def test_separable_genres_are_separated(genres):
    train_TD, target_TG = clouds(genres, 60, seed=1)
    test_TD, truth_TG = clouds(genres, 30, seed=2)
    probability_TG = svm_predict(train_TD, target_TG, test_TD)
    assert probability_TG.shape == truth_TG.shape
    np.testing.assert_allclose(probability_TG.sum(axis=1), 1.0)
    assert (probability_TG.argmax(axis=1) == truth_TG.argmax(axis=1)).mean() > 0.9


def test_the_scale_of_a_feature_does_not_matter():
    train_TD, target_TG = clouds(3, 60, seed=1)
    test_TD, _ = clouds(3, 30, seed=2)
    scale_D = np.array([1e-3, 1, 1e3, 5, 0.2, 70])
    np.testing.assert_allclose(
        svm_predict(train_TD, target_TG, test_TD),
        svm_predict(train_TD * scale_D, target_TG, test_TD * scale_D),
        rtol=1e-6,
    )


def test_of_many_tracks_some_of_each_genre_are_fitted_on():
    target_TG = np.eye(3, dtype=int)[[0] * 90 + [1] * 9 + [2]]
    assert limit_tracks(target_TG, most=100).tolist() == list(range(100))
    rows = limit_tracks(target_TG, most=30)
    assert target_TG[rows].sum(axis=0).tolist() == [10, 9, 1]
