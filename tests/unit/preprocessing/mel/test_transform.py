from itertools import count, islice, pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel, log_mel_blocks
from tests.support.rounding import level_tolerance_db

MUSIC = sorted(Path("tests/data/demo_music/fma_small/200").glob("*.mp3"))
GOLDEN = Path("tests/golden/mel.npz")
SMALL = MelSettings(window=256, hop=64, bands=16)
GAPS = MelSettings(window=256, hop=300, bands=16)  # samples that are in no frame
ODD = MelSettings(window=250, hop=64, bands=16)  # no power of two: the other way to compute it


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """Compile before hypothesis measures time."""
    for settings in (SMALL, ODD):
        log_mel(np.zeros(256, np.float32), settings)


def noise(samples, seed):
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def assert_as_librosa(ours_FM, theirs_FM, settings):
    """Compare the cells down to 60 dB below the loudest."""
    loud = theirs_FM > theirs_FM.max() - 60
    tolerance_db = level_tolerance_db(settings.window, below_peak_db=60)
    assert np.abs(ours_FM - theirs_FM)[loud].max() < tolerance_db


def librosa_mel(wave_S, settings):
    power_MF = librosa.feature.melspectrogram(
        y=wave_S,
        sr=settings.sample_rate_hz,
        n_fft=settings.window,
        hop_length=settings.hop,
        n_mels=settings.bands,
        fmin=settings.low_hz,
        fmax=settings.high_hz,
        center=False,
    )
    return librosa.power_to_db(power_MF, top_db=None).T


@pytest.mark.parametrize("name", ["200001", "200020", "200040"])
def test_real_music_gives_what_librosa_gave(name):
    with np.load(GOLDEN) as golden:
        mel_FM = log_mel(golden[f"{name}_wave"], MelSettings())
        assert_as_librosa(mel_FM, golden[f"{name}_mel"], MelSettings())


@pytest.mark.parametrize(
    "settings",
    [
        MelSettings(),
        MelSettings(sample_rate_hz=8_000, window=512, hop=80, bands=40),
        MelSettings(sample_rate_hz=16_000, window=512, hop=160, bands=64, low_hz=50, high_hz=7_000),
        MelSettings(sample_rate_hz=32_000, window=1_024, hop=441, bands=100),
        MelSettings(sample_rate_hz=44_100, window=4_096, hop=1_000, bands=96),
        MelSettings(sample_rate_hz=48_000, window=2_048, hop=2_500, bands=229, low_hz=30),
        MelSettings(sample_rate_hz=16_000, window=400, hop=160, bands=40),
        MelSettings(sample_rate_hz=48_000, window=1_999, hop=480),
    ],
    ids=lambda it: f"{it.sample_rate_hz}-{it.window}-{it.hop}-{it.bands}",
)
def test_any_settings_equal_librosa(settings):
    with np.load(GOLDEN) as golden:
        wave_S = golden["200001_wave"]
    assert_as_librosa(log_mel(wave_S, settings), librosa_mel(wave_S, settings), settings)


@pytest.mark.parametrize("settings", [SMALL, ODD], ids=["power of two", "odd"])
@given(first=st.integers(0, 200), frames=st.integers(1, 150), seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(deadline=None)
def test_a_frame_depends_only_on_its_own_samples(settings, first, frames, seed):
    """To the bit: neither its neighbours nor its place among them change it."""
    wave_S = noise(settings.hop * 400, seed)
    start, stop = first * settings.hop, (first + frames - 1) * settings.hop + settings.window
    np.testing.assert_array_equal(
        log_mel(wave_S[start:stop], settings), log_mel(wave_S, settings)[first : first + frames]
    )


@pytest.mark.parametrize("settings", [SMALL, GAPS, ODD], ids=["power of two", "gaps", "odd"])
@given(samples=st.integers(256, 6_000), cuts=st.lists(st.integers(0, 6_000), max_size=12))
@example(samples=1_000, cuts=list(range(1_000)))  # one by one
@example(samples=600, cuts=[256, 257, 300, 300])  # a block that ends in a gap, an empty one
@hypothesis_settings(deadline=None)
def test_blocks_laid_end_to_end_are_the_whole(settings, samples, cuts):
    wave_S = noise(samples, 3)
    edges = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    blocks = [*log_mel_blocks((wave_S[start:stop] for start, stop in pairwise(edges)), settings)]
    assert all(len(block_FM) for block_FM in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), log_mel(wave_S, settings))


def test_blocks_come_before_the_wave_has_ended():
    endless = (noise(1_000, seed) for seed in count())
    assert [len(block_FM) for block_FM in islice(log_mel_blocks(endless, SMALL), 3)] == [12, 16, 15]


@pytest.mark.parametrize("length", [100, 1_000])
def test_a_block_may_be_written_over_by_the_next(length):
    wave_S, buffer_S = noise(4_000, 5), np.empty(length, np.float32)

    def blocks():
        for start in range(0, 4_000, length):
            buffer_S[:] = wave_S[start : start + length]
            yield buffer_S

    np.testing.assert_array_equal(np.concatenate([*log_mel_blocks(blocks(), SMALL)]), log_mel(wave_S, SMALL))


def test_blocks_that_are_too_short_together_are_bad_audio():
    with pytest.raises(BadAudio, match=r"too-short: 250 samples; need 256 \(one window\)"):
        [*log_mel_blocks([noise(100, 0), noise(150, 1)], SMALL)]
    with pytest.raises(BadAudio, match="too-short: 0 samples"):
        [*log_mel_blocks([], SMALL)]


def test_a_later_block_with_infinity_is_bad_audio():
    blocks = [noise(1_000, 0), noise(1_000, 1)]
    blocks[1][-1] = -np.inf  # in no frame
    with pytest.raises(BadAudio, match="not-audio: the wave has NaN or infinite samples"):
        [*log_mel_blocks(blocks, SMALL)]


@given(samples=st.integers(256, 5_000))
def test_the_number_of_frames_is_as_stated(samples):
    assert log_mel(noise(samples, 0), SMALL).shape == (1 + (samples - 256) // 64, 16)


@given(factor_db=st.floats(-40, 0))
def test_a_louder_wave_is_louder_by_as_much(factor_db):
    wave_S = noise(4_000, 1)
    quieter = (wave_S * 10 ** (factor_db / 20)).astype(np.float32)
    difference_FM = log_mel(quieter, SMALL) - log_mel(wave_S, SMALL)
    tolerance_db = level_tolerance_db(SMALL.window, below_peak_db=60)  # no band of noise is so far below
    np.testing.assert_allclose(difference_FM, factor_db, atol=tolerance_db)


def test_a_sine_sounds_in_its_own_band():
    settings = MelSettings()
    time_S = np.arange(22_050) / settings.sample_rate_hz
    mel_FM = log_mel(np.sin(2 * np.pi * 1_000 * time_S).astype(np.float32), settings)
    centres_hz = librosa.mel_frequencies(n_mels=130, fmin=0, fmax=11_025)[1:-1]
    assert abs(centres_hz[mel_FM[10].argmax()] - 1_000) < 30


@pytest.mark.parametrize("settings", [MelSettings(), ODD], ids=["power of two", "odd"])
@pytest.mark.parametrize("loudness", [0.0, 1e-9, 1e-30])
def test_silence_lies_on_the_floor(settings, loudness):
    np.testing.assert_array_equal(log_mel(noise(2_048, 0) * np.float32(loudness), settings), -100)


@pytest.mark.parametrize("window", [32_767, 32_768])
def test_what_is_not_refused_as_too_loud_has_a_finite_level(window):
    settings = MelSettings(sample_rate_hz=8_000, window=window, bands=512)
    wave_S = (1e10 * np.sin(2 * np.pi * 500 / 8_000 * np.arange(32_768))).astype(np.float32)
    assert 260 < log_mel(wave_S, settings).max() < np.inf
    with pytest.raises(BadAudio, match=r"not-audio: samples up to 2e\+10; need 1e\+10 or less"):
        log_mel(wave_S * 2, settings)


def test_a_wave_shorter_than_one_window_is_bad_audio():
    with pytest.raises(BadAudio, match=r"too-short: 2047 samples; need 2048 \(one window\)"):
        log_mel(np.zeros(2_047, np.float32), MelSettings())


def test_a_wave_with_nan_is_bad_audio():
    wave_S = noise(4_000, 0)
    wave_S[77] = np.nan
    with pytest.raises(BadAudio, match="not-audio: the wave has NaN or infinite samples"):
        log_mel(wave_S, SMALL)


def test_the_fingerprint_names_the_settings():
    assert MelSettings().settings_hash == MelSettings(hop=512).settings_hash
    others = [
        {"hop": 511},
        {"window": 1_024},
        {"bands": 64},
        {"sample_rate_hz": 16_000},
        {"high_hz": 8_000.0},
    ]
    assert len({MelSettings(**other).settings_hash for other in others} | {MelSettings().settings_hash}) == 6


def test_bands_above_half_the_sample_rate_are_refused():
    with pytest.raises(ValidationError, match="at most half of --sample-rate-hz"):
        MelSettings(high_hz=12_000)


@given(seconds=st.floats(0.2, 100))
def test_frames_in_counts_what_log_mel_gives(seconds):
    samples = int(seconds * SMALL.sample_rate_hz)
    assert SMALL.count_frames(seconds) == 1 + (samples - SMALL.window) // SMALL.hop
