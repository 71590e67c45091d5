"""Closed forms: a sinusoid in time and along the bands excites the filter of its two frequencies."""

import numpy as np
import pytest

from preprocessing.features.scattering import (
    BAND_CENTRES,
    CUTOFF,
    RELATIVE_SIGMA,
    TIME_CENTRES_HZ,
    ZONES,
    filter_centres,
    scatter,
)

FRAMES_PER_S = 43.0
FRAMES, BANDS = 430, 128


def ripple(time_hz, band, frames=FRAMES, bands=BANDS):
    """Return a wave that moves along the bands: of positive product it moves up, of negative down."""
    seconds, position = np.arange(frames)[:, None] / FRAMES_PER_S, np.arange(bands)
    return (6 * np.cos(2 * np.pi * (time_hz * seconds + band * position))).astype(np.float32)


def by_filter(mel_FM):
    return scatter(mel_FM, FRAMES_PER_S).reshape(-1, ZONES)


@pytest.mark.parametrize("time_hz", [1.0, 4.0, 16.0])
@pytest.mark.parametrize("band", [1 / 16, -1 / 16, 1 / 4, -1 / 4])
def test_a_sinusoid_excites_the_filter_of_its_frequencies(time_hz, band):
    features_KZ = by_filter(ripple(time_hz, band))
    assert filter_centres()[features_KZ.mean(axis=1).argmax()] == (time_hz, band)
    middle_Z = features_KZ[features_KZ.mean(axis=1).argmax(), 2:-2]
    # A cosine of amplitude 6 is two exponentials of 3, of which the filter keeps one, with gain 1 at its centre.
    np.testing.assert_allclose(middle_Z, 3.0, rtol=0.05)


def test_a_spectrum_that_only_rises_and_falls_excites_filters_of_no_band_frequency():
    features_KZ = by_filter(ripple(2.0, 0.0))
    strongest = np.argsort(-features_KZ.mean(axis=1))[0]
    assert filter_centres()[strongest] == (2.0, 0.0)


def test_a_constant_has_no_modulation():
    assert by_filter(np.full((FRAMES, BANDS), -20, np.float32)).max() < 20 * FRAMES * np.finfo(np.float32).eps


def test_level_in_db_does_not_matter_and_contrast_is_linear():
    mel_FM = np.random.default_rng(0).normal(-30, 6, (FRAMES, BANDS)).astype(np.float32)
    expected = by_filter(mel_FM)
    scale = expected.max() * np.sqrt(mel_FM.size) * np.finfo(np.float32).eps
    np.testing.assert_allclose(by_filter(mel_FM + np.float32(12)), expected, atol=8 * scale)
    np.testing.assert_allclose(by_filter(2 * mel_FM), 2 * expected, atol=8 * scale)


def test_a_shift_in_time_changes_nothing_but_at_the_edges():
    """The transform is circular in time: a crop turned round by some frames has the same mean moduli."""
    mel_FM = np.random.default_rng(1).normal(-30, 6, (FRAMES, BANDS)).astype(np.float32)
    one_KZ, other_KZ = by_filter(mel_FM), by_filter(np.roll(mel_FM, 57, axis=0))
    assert np.abs(one_KZ - other_KZ).max() < 0.1 * one_KZ.max()
    assert np.linalg.norm(one_KZ - other_KZ) < 0.05 * np.linalg.norm(one_KZ)


def test_a_shift_along_the_bands_moves_the_features_little():
    """One band is a sixteenth of a zone: no more than two sixteenths of the energy near an edge change zones."""
    random = np.random.default_rng(2)
    wide_FM = random.normal(-30, 6, (FRAMES, BANDS + 1)).astype(np.float32)
    one_KZ, other_KZ = by_filter(wide_FM[:, 1:]), by_filter(wide_FM[:, :-1])
    assert np.linalg.norm(one_KZ - other_KZ) < 2 / 16 * np.linalg.norm(one_KZ)


def test_filters_cover_the_modulations_of_music():
    edges = [
        (hz * (1 - CUTOFF * RELATIVE_SIGMA), hz * (1 + CUTOFF * RELATIVE_SIGMA)) for hz in TIME_CENTRES_HZ[1:]
    ]
    assert all(low < before for (low, _), before in zip(edges[1:], TIME_CENTRES_HZ[1:-1], strict=True))
    assert len(filter_centres()) == 82
    assert max(BAND_CENTRES) == 1 / 4


@pytest.mark.parametrize(("frames", "bands"), [(1, 8), (3, 16), (40, 24), (431, 128)])
def test_any_crop_has_finite_features(frames, bands):
    features_KZ = by_filter(np.random.default_rng(3).normal(-30, 6, (frames, bands)).astype(np.float32))
    assert features_KZ.shape == (82, ZONES)
    assert np.isfinite(features_KZ).all()
