"""FMA's features."""

import librosa
import numpy as np
import pytest
import scipy.stats

from preprocessing.errors import BadAudio
from preprocessing.features.librosa_statistics import FEATURES, SAMPLE_RATE_HZ, compute_statistics


@pytest.mark.soak  # numba compiles what librosa needs, 15 s, and once crashed a process of the suite there
def test_the_features_are_seven_statistics_in_the_order_of_features_csv():
    """The first are of chroma_cens, the last of the zero-crossing rate; statistics are in the order of their names."""
    time_S = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave_S = (0.3 * np.sin(2 * np.pi * 440 * time_S * (1 + time_S))).astype(np.float32)
    wave_S += np.random.default_rng(0).normal(0, 0.01, len(wave_S)).astype(np.float32)
    found_D = compute_statistics(wave_S)
    assert found_D.shape == (FEATURES,)
    zcr_F = librosa.feature.zero_crossing_rate(wave_S, frame_length=2_048, hop_length=512)[0]
    wanted = [
        scipy.stats.kurtosis(zcr_F), zcr_F.max(), zcr_F.mean(), np.median(zcr_F), zcr_F.min(),
        scipy.stats.skew(zcr_F), zcr_F.std(),
    ]  # fmt: skip
    np.testing.assert_allclose(found_D[-7:], wanted, rtol=1e-4)
    assert np.isfinite(found_D).all()


def test_less_than_a_window_is_bad_audio():
    with pytest.raises(BadAudio, match="100 samples; need 2048"):
        compute_statistics(np.zeros(100, np.float32))
