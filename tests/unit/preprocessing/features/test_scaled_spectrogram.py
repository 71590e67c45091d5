"""Spectrograms on other scales."""

import numpy as np
import pytest

from preprocessing.errors import BadAudio
from preprocessing.features.scaled_spectrogram import linear_filters, log_filters, scaled_spectrogram
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel

MEL = MelSettings(sample_rate_hz=8_000, window=512, hop=256, bands=40)


def tone(hz):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(8_000) / 8_000)).astype(np.float32)


def test_mel_and_decibels_are_the_product_s_own():
    wave_S = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)
    # Powers of float32 sums over a window: 512 eps, in dB.
    np.testing.assert_allclose(scaled_spectrogram(wave_S, MEL, "mel", "db"), log_mel(wave_S, MEL), atol=0.01)


@pytest.mark.parametrize(("frequency", "make"), [("linear", linear_filters), ("log", log_filters)])
def test_a_tone_is_loudest_in_the_band_that_contains_it(frequency, make):
    filters_MN = make(MEL)
    np.testing.assert_allclose(filters_MN.sum(axis=1), 1)
    band = int(scaled_spectrogram(tone(1_000), MEL, frequency, "db").mean(axis=0).argmax())
    assert filters_MN[band, 64] == filters_MN[:, 64].max(), "bin 64 of 512 samples at 8 kHz is 1 kHz"


@pytest.mark.parametrize("level", ["log1p", "pcen"])
def test_other_levels_rise_with_the_sound(level):
    loud, quiet = (scaled_spectrogram(gain * tone(1_000), MEL, "mel", level) for gain in (1.0, 0.01))
    assert np.isfinite(loud).all()
    assert loud.max() > quiet.max() or level == "pcen"


def test_less_than_a_window_is_bad_audio():
    with pytest.raises(BadAudio, match="100 samples; need 512"):
        scaled_spectrogram(np.zeros(100, np.float32), MEL, "log", "db")
