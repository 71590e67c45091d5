import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config, types

from preprocessing.mel.kernel import compile_or_load, mel_power, plan_mel


def noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def triangles(window, bands):
    """Some filters: overlapping, of many widths, the last of them deaf."""
    filters_MN = np.zeros((bands, window // 2 + 1), np.float32)
    for band, weights_N in enumerate(filters_MN[:-1]):
        first = band * len(weights_N) // bands
        weights_N[first : first + 1 + band] = 1 + band
    return filters_MN


def plainly(wave_S, taper_W, filters_MN, hop):
    """The definition, in float64."""
    frames_FW = np.lib.stride_tricks.sliding_window_view(wave_S.astype(np.float64), taper_W.size)[::hop]
    return np.abs(np.fft.rfft(frames_FW * taper_W)) ** 2 @ filters_MN.T


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile before hypothesis looks at the clock."""
    mel_power(noise(8), plan_mel(noise(8), triangles(8, 2), 1))


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
    taper_W, filters_MN = noise(window), triangles(window, bands)
    wave_S = noise(window + (frames - 1) * hop + rest % hop)
    ours_FM = mel_power(wave_S, plan_mel(taper_W, filters_MN, hop))
    theirs_FM = plainly(wave_S, taper_W, filters_MN, hop)
    assert ours_FM.shape == theirs_FM.shape == (frames, bands)
    assert ours_FM.dtype == np.float32
    np.testing.assert_allclose(ours_FM, theirs_FM, rtol=1e-4, atol=1e-6 * max(theirs_FM.max(), 1))


@pytest.mark.parametrize("window", [8_192, 16_384, 32_768])
def test_large_windows_too(window):
    taper_W, filters_MN = noise(window), triangles(window, 100)
    wave_S = noise(window + 20 * 777)
    ours_FM = mel_power(wave_S, plan_mel(taper_W, filters_MN, 777))
    theirs_FM = plainly(wave_S, taper_W, filters_MN, 777)
    np.testing.assert_allclose(ours_FM, theirs_FM, rtol=1e-4, atol=1e-6 * theirs_FM.max())


@given(bad=st.integers(0, 4_999))
@settings(max_examples=30, deadline=None)
def test_a_sample_that_is_no_number_stays_in_its_own_frames(bad):
    plan = plan_mel(noise(256), triangles(256, 20), 100)
    wave_S = noise(5_000)
    clean_FM = mel_power(wave_S, plan)
    wave_S[bad] = np.nan
    spoiled_FM = mel_power(wave_S, plan)
    starts_F = 100 * np.arange(len(clean_FM))
    hears_F = (starts_F <= bad) & (bad < starts_F + 256)
    assert np.isnan(spoiled_FM[hears_F, 0]).all()
    np.testing.assert_array_equal(spoiled_FM[~hears_F], clean_FM[~hears_F])


def test_any_array_will_do():
    """Read-only, strided, at an odd address: numba alone would refuse these."""
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


def doubled():
    """A new function each time, which knows of nothing compiled before."""

    def double(number):
        return 2 * number

    return double


SIGNATURE = types.int64(types.int64)


def test_what_is_compiled_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    first = compile_or_load(doubled(), SIGNATURE)
    assert (first(21), sum(first.stats.cache_hits.values())) == (42, 0)
    again = compile_or_load(doubled(), SIGNATURE)
    assert (again(21), sum(again.stats.cache_hits.values())) == (42, 1)


def test_without_a_folder_to_keep_it_in_it_is_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "/dev/null/nowhere")
    monkeypatch.setattr(config, "CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    assert compile_or_load(doubled(), SIGNATURE)(21) == 42


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_what_is_half_written_is_compiled_again(kind, left, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    compile_or_load(doubled(), SIGNATURE)
    (file,) = tmp_path.rglob(f"*.{kind}")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)])
    assert compile_or_load(doubled(), SIGNATURE)(21) == 42


def test_where_a_file_cannot_be_opened_it_is_compiled_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    compile_or_load(doubled(), SIGNATURE)
    (file,) = tmp_path.rglob("*.nbi")
    file.unlink()
    file.mkdir()
    assert compile_or_load(doubled(), SIGNATURE)(21) == 42
