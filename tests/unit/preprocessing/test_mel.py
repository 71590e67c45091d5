from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from preprocessing.errors import BadAudio
from preprocessing.mel import MelSettings, log_mel

MUSIC = sorted(Path("tests/data/demo_music/fma_small/200").glob("*.mp3"))
GOLDEN = Path("tests/golden/mel.npz")
SMALL = MelSettings(window=256, hop=64, bands=16)


def noise(samples, seed):
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def worst_db(ours_FM, theirs_FM):
    """The largest difference above -60 dB of the loudest cell."""
    loud = theirs_FM > theirs_FM.max() - 60
    return np.abs(ours_FM - theirs_FM)[loud].max()


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
        assert worst_db(log_mel(golden[f"{name}_wave"], MelSettings()), golden[f"{name}_mel"]) < 0.01


@pytest.mark.parametrize(
    "settings",
    [
        MelSettings(),
        MelSettings(sample_rate_hz=16_000, window=512, hop=160, bands=64, low_hz=50, high_hz=7_000),
        MelSettings(sample_rate_hz=44_100, window=4_096, hop=1_000, bands=96),
    ],
)
def test_other_settings_equal_librosa_too(settings):
    with np.load(GOLDEN) as golden:
        wave_S = golden["200001_wave"]
    assert worst_db(log_mel(wave_S, settings), librosa_mel(wave_S, settings)) < 0.01


@given(first=st.integers(0, 200), count=st.integers(1, 150), seed=st.integers(0, 2**32 - 1))
def test_a_frame_depends_only_on_its_own_samples(first, count, seed):
    wave_S = noise(SMALL.hop * 400, seed)
    start, stop = first * SMALL.hop, (first + count - 1) * SMALL.hop + SMALL.window
    np.testing.assert_allclose(
        log_mel(wave_S[start:stop], SMALL), log_mel(wave_S, SMALL)[first : first + count], atol=1e-3
    )


@given(samples=st.integers(256, 5_000))
def test_the_number_of_frames_is_as_stated(samples):
    assert log_mel(noise(samples, 0), SMALL).shape == (1 + (samples - 256) // 64, 16)


@given(factor_db=st.floats(-40, 0))
def test_a_louder_wave_is_louder_by_as_much(factor_db):
    wave_S = noise(4_000, 1)
    quieter = (wave_S * 10 ** (factor_db / 20)).astype(np.float32)
    np.testing.assert_allclose(log_mel(quieter, SMALL) - log_mel(wave_S, SMALL), factor_db, atol=1e-3)


def test_a_sine_sounds_in_its_own_band():
    settings = MelSettings()
    time_S = np.arange(22_050) / settings.sample_rate_hz
    mel_FM = log_mel(np.sin(2 * np.pi * 1_000 * time_S).astype(np.float32), settings)
    centres_hz = librosa.mel_frequencies(n_mels=130, fmin=0, fmax=11_025)[1:-1]
    assert abs(centres_hz[mel_FM[10].argmax()] - 1_000) < 30


def test_silence_lies_on_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(2_048, np.float32), MelSettings()), -100, rtol=1e-6)


def test_a_wave_shorter_than_one_window_is_bad_audio():
    with pytest.raises(BadAudio, match=r"too-short: 2047 samples; need 2048 \(one window\)"):
        log_mel(np.zeros(2_047, np.float32), MelSettings())


def test_a_wave_with_nan_is_bad_audio():
    wave_S = noise(4_000, 0)
    wave_S[77] = np.nan
    with pytest.raises(BadAudio, match="not-audio: the wave has NaN or infinite samples"):
        log_mel(wave_S, SMALL)


def test_the_fingerprint_names_the_settings():
    assert MelSettings().fingerprint == MelSettings(hop=512).fingerprint
    others = [
        {"hop": 511},
        {"window": 1_024},
        {"bands": 64},
        {"sample_rate_hz": 16_000},
        {"high_hz": 8_000.0},
    ]
    assert len({MelSettings(**other).fingerprint for other in others} | {MelSettings().fingerprint}) == 6


def test_bands_above_half_the_sample_rate_are_refused():
    with pytest.raises(ValidationError, match="want low_hz < high_hz <= half the sample rate"):
        MelSettings(high_hz=12_000)


@given(seconds=st.floats(0.2, 100))
def test_frames_in_counts_what_log_mel_gives(seconds):
    samples = int(seconds * SMALL.sample_rate_hz)
    assert SMALL.frames_in(seconds) == 1 + (samples - SMALL.window) // SMALL.hop
