"""Spectrograms on other scales than the product's: linear or logarithmic frequency, log(1 + x) or PCEN.

Axes: S samples, F frames, W window, N spectrum bins, M bands.
"""

from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from preprocessing.errors import BadAudio
from preprocessing.mel.filters import mel_filters
from preprocessing.mel.settings import MelSettings

Frequency = Literal["mel", "linear", "log"]
Level = Literal["db", "log1p", "pcen"]
LOWEST_HZ = 32.7  # C1, the lowest band of the logarithmic scale
COMPRESSION = 10_000.0  # log(1 + 10,000 x), Choi et al. (2018)
PCEN_SCALE = 2.0**31  # of audio in [-1, 1], as librosa.pcen wants it
FLOOR_POWER = 1e-10
BLOCK_FRAMES = 256


def scaled_spectrogram(
    wave_S: NDArray[np.float32], settings: MelSettings, frequency: Frequency, level: Level
) -> NDArray[np.float32]:
    """Turn a mono waveform into a spectrogram on the given scales.

    Shapes: (S,) -> (F, M) with F = 1 + (S - window) // hop.
    Units:  dB above full scale for "db"; for "log1p" and "pcen" numbers whose range is about that of dB.
    Raises: BadAudio if the wave is shorter than one window.
    Source: PCEN of Wang et al. (2017) with librosa's parameters.
    """
    if wave_S.size < settings.window:
        raise BadAudio("too-short", f"{wave_S.size} samples; need {settings.window} (one window)")
    filters_MN = {"mel": mel_filters, "linear": linear_filters, "log": log_filters}[frequency](settings)
    frames_FW = np.lib.stride_tricks.sliding_window_view(wave_S, settings.window)[:: settings.hop]
    taper_W = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(settings.window) / settings.window)
    bands_FM = np.empty((len(frames_FW), settings.bands))
    for first in range(0, len(frames_FW), BLOCK_FRAMES):
        spectrum_FN = scipy.fft.rfft(frames_FW[first : first + BLOCK_FRAMES] * taper_W)
        bands_FM[first : first + BLOCK_FRAMES] = (spectrum_FN.real**2 + spectrum_FN.imag**2) @ filters_MN.T
    return _level(bands_FM, settings, level).astype(np.float32)


def linear_filters(settings: MelSettings) -> NDArray[np.float64]:
    """Return triangles at equal distances in Hz, each of sum 1. Shapes: (M, N)."""
    return _triangles(np.linspace(settings.low_hz, settings.top_hz, settings.bands + 2), settings)


def log_filters(settings: MelSettings) -> NDArray[np.float64]:
    """Return triangles at equal ratios of frequency, each of sum 1. Shapes: (M, N)."""
    lowest = max(settings.low_hz, LOWEST_HZ)
    return _triangles(np.geomspace(lowest, settings.top_hz, settings.bands + 2), settings)


def _triangles(corners_hz: NDArray[np.float64], settings: MelSettings) -> NDArray[np.float64]:
    """Return triangular filters; one that is narrower than a bin of the spectrum is the bin nearest to it."""
    bins_hz = np.fft.rfftfreq(settings.window, 1 / settings.sample_rate_hz)
    left_M, middle_M, right_M = (corners_hz[i : i + settings.bands, None] for i in range(3))
    rising_MN, falling_MN = (
        (bins_hz - left_M) / (middle_M - left_M),
        (right_M - bins_hz) / (right_M - middle_M),
    )
    filters_MN = np.maximum(0, np.minimum(rising_MN, falling_MN))
    empty_M = np.flatnonzero(filters_MN.sum(axis=1) == 0)
    nearest_M = np.abs(bins_hz - corners_hz[1:-1, None]).argmin(axis=1)
    filters_MN[empty_M, nearest_M[empty_M]] = 1
    return np.asarray(filters_MN / filters_MN.sum(axis=1, keepdims=True))


def _level(power_FM: NDArray[np.float64], settings: MelSettings, level: Level) -> NDArray[np.float64]:
    match level:
        case "db":
            return np.asarray(10 * np.log10(np.maximum(power_FM, FLOOR_POWER)))
        case "log1p":
            return np.asarray(10 / np.log(10) * np.log1p(COMPRESSION * power_FM) - 40)
        case "pcen":
            import librosa  # a second

            values_MF = librosa.pcen(
                power_FM.T * PCEN_SCALE, sr=settings.sample_rate_hz, hop_length=settings.hop
            )
            return np.asarray(20 * values_MF.T - 40)
