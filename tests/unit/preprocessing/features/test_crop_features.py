import librosa
import numpy as np
import pytest

from preprocessing.features.band_groups import group_bands
from preprocessing.features.crop_features import (
    CROP_S,
    compute_blocks,
    compute_patch_block,
    place_crops,
)
from preprocessing.features.harmonicity import harmonic_percussive_levels
from preprocessing.features.patches import extract_patches, fit_dictionary
from preprocessing.features.rhythm import RATES, fluctuation_pattern
from preprocessing.features.spectral_shape import cepstral_covariance, cepstrum, delta
from preprocessing.mel.filters import band_centres_hz
from preprocessing.mel.settings import MelSettings

MEL = MelSettings()
EPS32 = float(np.finfo(np.float32).eps)


def noise(frames=430, bands=128, seed=0):
    return np.random.default_rng(seed).normal(-30, 6, (frames, bands)).astype(np.float32)


def test_the_blocks_of_a_crop_have_the_sizes_of_the_recipe():
    sizes = {name: len(values) for name, values in compute_blocks(noise(), MEL).items()}
    assert sizes == {
        "scattering": 656,
        "statistics": 308,
        "covariance": 440,
        "rhythm": 768,
        "harmonicity": 96,
    }
    dictionary = fit_dictionary(extract_patches(noise(4_000)), seed=0)
    assert compute_patch_block(noise(), dictionary).shape == (800,)


@pytest.mark.parametrize(("frames", "bands"), [(1, 8), (7, 20), (33, 128)])
def test_any_crop_has_finite_features(frames, bands):
    for mel_FM in (noise(frames, bands), np.full((frames, bands), -100, np.float32)):
        blocks = compute_blocks(mel_FM, MelSettings(bands=bands))
        dictionary = fit_dictionary(extract_patches(noise(200, bands)), seed=0)
        features_D = np.concatenate([*blocks.values(), compute_patch_block(mel_FM, dictionary)])
        assert np.isfinite(features_D).all()


def test_a_clip_of_30_s_and_three_windows_of_a_longer_track_give_crops_of_one_length():
    crop_frames = MEL.count_frames(CROP_S)
    for seconds in (30.0, 240.0, 10_000.0):
        crops = place_crops(MEL.count_frames(seconds), MEL)
        assert [length for _, length in crops] == [crop_frames] * 3
        starts = [start for start, _ in crops]
        assert min(np.diff(starts)) >= crop_frames
        assert starts[-1] + crop_frames <= MEL.count_frames(seconds)
    assert place_crops(100, MEL) == [(0, 100)]


def test_the_bands_centres_are_librosas():
    for mel in (MEL, MelSettings(bands=40, low_hz=50, high_hz=8_000)):
        expected = librosa.mel_frequencies(mel.bands + 2, fmin=mel.low_hz, fmax=mel.high_hz or 11_025)[1:-1]
        np.testing.assert_allclose(band_centres_hz(mel), expected, rtol=1e-12)


def test_cepstrum_and_its_change_are_librosas():
    mel_FM = noise(60).astype(np.float64)
    mfcc_CF = librosa.feature.mfcc(S=mel_FM.T, n_mfcc=20)
    np.testing.assert_allclose(cepstrum(mel_FM), mfcc_CF.T, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(
        delta(cepstrum(mel_FM)), librosa.feature.delta(mfcc_CF, mode="nearest").T, atol=1e-11
    )


def test_the_covariance_is_numpys():
    mel_FM = noise()
    features_D = cepstral_covariance(mel_FM)
    expected = np.cov(cepstrum(mel_FM).T, bias=True)[np.triu_indices(20)]
    np.testing.assert_allclose(
        features_D[20:230], expected, atol=len(mel_FM) * EPS32 * np.abs(expected).max()
    )


def test_a_pulse_of_two_per_second_is_strongest_at_its_rate():
    frames_per_s = 43.0
    seconds = np.arange(430) / frames_per_s
    mel_FM = np.repeat(10 * np.cos(2 * np.pi * 2 * seconds)[:, None], 128, axis=1).astype(np.float32)
    pattern_BL = fluctuation_pattern(mel_FM, frames_per_s).reshape(-1, RATES)
    edges = np.geomspace(0.25, 20, RATES + 1)
    assert set(pattern_BL.argmax(axis=1)) == {int(np.searchsorted(edges, 2.0)) - 1}


def test_a_held_tone_is_harmonic_and_a_click_is_percussive():
    tone, click = (np.full((200, 128), -60, np.float32) for _ in range(2))
    tone[:, 64], click[100] = -10, -10
    tone_LB, click_LB = (harmonic_percussive_levels(each).reshape(6, 16) for each in (tone, click))
    assert tone_LB[1].argmax() == 64 // 8
    assert tone_LB[2].max() < EPS32 * 60 * 200
    assert click_LB[2].min() > 1
    assert click_LB[1, 2:-2].max() < EPS32 * 60 * 200


def test_groups_are_means_of_neighbours():
    np.testing.assert_allclose(group_bands(np.arange(12.0)[None], 4), [[1, 4, 7, 10]])
    np.testing.assert_allclose(group_bands(np.arange(5.0)[None], 2), [[0.5, 3]])
    np.testing.assert_allclose(group_bands(np.arange(3.0)[None], 8), [[0, 1, 2]])


def test_an_atom_of_the_dictionary_is_found_where_it_is():
    """Two textures, and a dictionary of both: each crop has the atoms of its own."""
    random = np.random.default_rng(0)
    textures = [np.cos(np.arange(400)[:, None] * 0.9), np.cos(np.arange(64) * 1.1)[None]]
    crops = [
        (20 * (texture + 0.02 * random.normal(size=(400, 64)))).astype(np.float32) for texture in textures
    ]
    dictionary = fit_dictionary(np.concatenate([extract_patches(crop) for crop in crops]), seed=0)
    np.testing.assert_allclose(np.linalg.norm(dictionary.atoms_AC, axis=1), 1, rtol=64 * EPS32)
    one_A, other_A = (compute_patch_block(crop, dictionary) for crop in crops)
    assert np.abs(one_A - other_A).max() > 0.1
    same_A = compute_patch_block(crops[0][50:], dictionary)
    assert np.linalg.norm(one_A - same_A) < 0.2 * np.linalg.norm(one_A - other_A)
