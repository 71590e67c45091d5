import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.mel.plan import plan_mel
from preprocessing.mel.power import mel_power

EPSILON = np.finfo(np.float32).eps


def noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def triangles(window, bands):
    """Return some filters: overlapping, of many widths, the last of them all zero."""
    filters_MN = np.zeros((bands, window // 2 + 1), np.float32)
    for band, weights_N in enumerate(filters_MN[:-1]):
        first = band * len(weights_N) // bands
        weights_N[first : first + 1 + band] = 1 + band
    return filters_MN


def assert_power_is_as_defined(wave_S, taper_W, filters_MN, hop):
    """Compare with the definition in float64.

    A float32 FFT errs by some eps log2(W) of the spectrum (Higham, Accuracy and Stability of Numerical
    Algorithms, 24.1), its square by twice as much; taper, square and sum add a few eps.
    """
    power_FM = mel_power(wave_S, plan_mel(taper_W, filters_MN, hop))
    frames_FW = np.lib.stride_tricks.sliding_window_view(wave_S.astype(np.float64), taper_W.size)[::hop]
    bins_FN = np.abs(np.fft.rfft(frames_FW * taper_W)) ** 2
    bound_FM = (
        EPSILON * (2 * np.log2(taper_W.size) + 4) * np.outer(bins_FN.max(axis=1), filters_MN.sum(axis=1))
    )
    assert power_FM.dtype == np.float32
    assert power_FM.shape == (len(frames_FW), len(filters_MN))
    assert (np.abs(power_FM - bins_FN @ filters_MN.T) <= bound_FM).all()


@given(
    log_window=st.integers(3, 12),
    hop=st.integers(1, 600),
    frames=st.integers(1, 50),
    rest=st.integers(0, 599),
    bands=st.integers(1, 40),
)
@settings(deadline=None)
def test_it_is_what_the_definition_says(log_window, hop, frames, rest, bands):
    window = 2**log_window
    wave_S = noise(window + (frames - 1) * hop + rest % hop)
    assert_power_is_as_defined(wave_S, noise(window), triangles(window, bands), hop)


@pytest.mark.parametrize("window", [8_192, 16_384, 32_768])
def test_large_windows_too(window):
    assert_power_is_as_defined(noise(window + 20 * 777), noise(window), triangles(window, 100), 777)


@given(bad=st.integers(0, 4_999))
@settings(max_examples=30, deadline=None)
def test_a_sample_that_is_no_number_stays_in_its_own_frames(bad):
    plan = plan_mel(noise(256), triangles(256, 20), 100)
    wave_S = noise(5_000)
    clean_FM = mel_power(wave_S, plan)
    wave_S[bad] = np.nan
    spoiled_FM = mel_power(wave_S, plan)
    starts_F = 100 * np.arange(len(clean_FM))
    contains_F = (starts_F <= bad) & (bad < starts_F + 256)
    assert np.isnan(spoiled_FM[contains_F, 0]).all()
    np.testing.assert_array_equal(spoiled_FM[~contains_F], clean_FM[~contains_F])


def test_any_array_will_do():
    """Read-only, strided, at an odd address: the kernel itself reads neighbouring floats only."""
    plan, wave_S = plan_mel(noise(256), triangles(256, 20), 100), noise(5_000)
    read_only_S = wave_S.copy()
    read_only_S.flags.writeable = False
    strided_S = np.stack([wave_S, wave_S], axis=1)[:, 1]
    odd_S = np.frombuffer(b"." + wave_S.tobytes(), np.float32, offset=1)
    for other_S in (read_only_S, strided_S, odd_S):
        np.testing.assert_array_equal(mel_power(other_S, plan), mel_power(wave_S, plan))


@pytest.mark.parametrize("window", [4, 12, 1_000])
def test_other_windows_are_refused(window):
    with pytest.raises(ValueError, match=f"a window of {window} samples; want a power of two, 8 or more"):
        plan_mel(noise(window), triangles(window, 2), 1)
