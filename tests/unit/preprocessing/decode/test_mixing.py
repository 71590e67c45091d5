"""Sound whose channels or scale are not what a decoder expects."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from preprocessing.decode import decode
from preprocessing.decode.seeking import spool_windows
from preprocessing.decode.settings import WindowSettings
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings

RATE_HZ = 22_050
SECONDS = 12
MEL = MelSettings(sample_rate_hz=RATE_HZ)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    random = np.random.default_rng(7)
    return (0.2 * random.standard_normal(RATE_HZ * SECONDS)).astype(np.float32)


def write(path: Path, *channels: np.ndarray, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, np.stack(channels, axis=1), RATE_HZ, subtype=subtype)
    return path


def windows_of(path: Path) -> list[np.ndarray]:
    """Decode two windows by seeking, as inference does, to waveforms."""
    with tempfile.TemporaryFile() as spool:
        windows = spool_windows(
            path,
            spool,
            mel=MEL,
            windows=WindowSettings(count=2, length_s=2.0),
            as_waves=True,
            max_duration_s=3600.0,
        )
        waves = []
        for window in windows:
            spool.seek(window.start_byte)
            waves.append(np.fromfile(spool, np.float32, (window.frames - 1) * MEL.hop + MEL.window))
        return waves


def assert_windows_are_parts(path: Path, whole_S: np.ndarray) -> None:
    found = windows_of(path)
    assert len(found) == 2
    for wave_S in found:
        starts = range(0, whole_S.size - wave_S.size, MEL.hop)
        scale = np.abs(wave_S).max()
        assert any(np.abs(whole_S[it : it + wave_S.size] - wave_S).max() < 1e-5 * scale for it in starts)


@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_a_channel_that_is_inverted_is_turned_around(gain, noise, tmp_path):
    wave_S = noise
    path = write(tmp_path / "it.wav", wave_S, -gain * wave_S)
    mono_S = decode(str(path), sample_rate_hz=RATE_HZ)
    np.testing.assert_allclose(mono_S, wave_S * (1 + gain) / 2, atol=1e-6)
    assert_windows_are_parts(path, mono_S)


def test_of_many_channels_those_are_inverted_that_oppose_the_loudest(noise, tmp_path):
    wave_S = noise
    path = write(tmp_path / "it.wav", -0.9 * wave_S, wave_S, -0.1 * wave_S, 0.0 * wave_S)
    mono_S = decode(str(path), sample_rate_hz=RATE_HZ)
    np.testing.assert_allclose(mono_S, wave_S * 2 / 4, atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.8])
def test_other_channels_are_averaged(share, noise, tmp_path):
    """`share`: the correlation of the channels; even wide stereo stays far above the threshold."""
    wave_S = noise
    other_S = share * wave_S + np.sqrt(1 - share**2) * np.roll(wave_S, RATE_HZ)
    wave_S = noise
    path = write(tmp_path / "it.wav", wave_S, other_S)
    np.testing.assert_allclose(
        decode(str(path), sample_rate_hz=RATE_HZ), (wave_S + other_S) / 2, rtol=0, atol=1e-6
    )


def test_silence_in_both_channels_is_still_silent(noise, tmp_path):
    wave_S = noise
    path = write(tmp_path / "it.wav", 0 * wave_S, 0 * wave_S)
    with pytest.raises(BadAudio, match="silent"):
        decode(str(path), sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("bits", [15, 23, 31])
def test_floats_at_the_scale_of_integers_are_scaled_back(bits, subtype, noise, tmp_path):
    wave_S = noise
    path = write(tmp_path / "it.wav", wave_S * 2.0**bits, subtype=subtype)
    mono_S = decode(str(path), sample_rate_hz=RATE_HZ)
    np.testing.assert_allclose(mono_S, wave_S, rtol=0, atol=1e-6)
    assert_windows_are_parts(path, mono_S)


def test_loud_floats_and_single_damaged_samples_change_no_scale(noise, tmp_path):
    wave_S = noise
    loud_S = wave_S * 20  # peaks of about 20
    damaged_S = wave_S.copy()
    damaged_S[::1_000] = 1e30
    for samples_S in (loud_S, damaged_S):
        path = write(tmp_path / "it.wav", samples_S)
        np.testing.assert_allclose(
            decode(str(path), sample_rate_hz=RATE_HZ), np.clip(samples_S, -2, 2), rtol=0, atol=1e-6
        )


def test_floats_at_no_known_scale_are_rejected(noise, tmp_path):
    wave_S = noise
    path = write(tmp_path / "it.wav", wave_S * 1e20)
    with pytest.raises(BadAudio, match="at no known scale"):
        decode(str(path), sample_rate_hz=RATE_HZ)
