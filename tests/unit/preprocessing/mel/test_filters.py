import librosa
import numpy as np
import pytest

from preprocessing.mel.filters import mel_filters
from preprocessing.mel.settings import MelSettings


@pytest.mark.parametrize(
    "settings",
    [
        MelSettings(),
        MelSettings(sample_rate_hz=8_000, window=63 * 4, bands=20, low_hz=20.0, high_hz=900.0),
        MelSettings(sample_rate_hz=48_000, window=4_095, bands=100, low_hz=1_200.0),
    ],
    ids=["usual", "below 1 kHz", "above 1 kHz"],
)
def test_the_bands_are_librosas(settings):
    theirs_MN = librosa.filters.mel(
        sr=settings.sample_rate_hz,
        n_fft=settings.window,
        n_mels=settings.bands,
        fmin=settings.low_hz,
        fmax=settings.high_hz,
        dtype=np.float64,
    )
    # A weight is a difference of two frequencies, each off by an eps or two, divided by the width of a band.
    high_hz = settings.high_hz or settings.sample_rate_hz / 2
    corners_hz = librosa.mel_frequencies(settings.bands + 2, fmin=settings.low_hz, fmax=high_hz)
    tolerance = 4 * np.finfo(np.float64).eps * high_hz / np.diff(corners_hz).min() * theirs_MN.max()
    np.testing.assert_allclose(mel_filters(settings), theirs_MN, atol=tolerance, rtol=0)
