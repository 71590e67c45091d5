"""Waveform to log-mel spectrogram: pure functions, no I/O, no state.

Axes: S samples, F frames, W window, N spectrum bins, M mel bands.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import BadAudio
from preprocessing.mel.plan import MelPlan, plan_mel
from preprocessing.mel.power import mel_power
from preprocessing.mel.settings import MelSettings

if TYPE_CHECKING:
    import scipy.sparse

FLOOR_POWER = 1e-10  # librosa's `amin`: nothing is quieter than -100 dB
FLOOR_DB = -100.0
MAX_AMPLITUDE = 1e10  # where full scale is 1; beyond, the power of a frame would not fit into float32
FFT_BLOCK_FRAMES = 64  # 64 windows of 2,048 floats stay in the L2 cache


def log_mel(wave_S: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Turn a mono waveform into a log-mel spectrogram.

    Shapes: (S,) -> (F, M) with F = 1 + (S - window) // hop.
    Units:  wave in [-1, 1]; result in dB, 10 log10 of mel power, never below -100.
    Raises: BadAudio if the wave is shorter than one window, not finite or louder than MAX_AMPLITUDE.
    Source: librosa.feature.melspectrogram(center=False) then power_to_db(top_db=None), both
            with their defaults (slaney scale and norm, Hann window, power 2, ref 1.0).

    The reference level is fixed, not the loudest frame, so a frame depends only on
    its own samples: any slice of a track can be computed, stored or read alone.
    """
    (mel_FM,) = log_mel_blocks((wave_S,), settings)
    return mel_FM


def log_mel_blocks(
    waves: Iterable[NDArray[np.float32]], settings: MelSettings
) -> Iterator[NDArray[np.float32]]:
    """Turn a mono waveform that comes in blocks of any length into log-mel blocks.

    Shapes: (S_i,) ... -> (F_j, M) ..., at most one for each block that came, none of them empty;
            laid end to end they equal `log_mel` of the whole wave, to the bit, however it was cut.
    Raises: BadAudio as `log_mel` does; that all blocks together are too short is known only at the end.

    What is kept from block to block is less than one window, so a track may be hours long.
    """
    kept_S, gap = np.empty(0, np.float32), 0  # the gap lies between two frames, where hop > window
    samples = 0
    for block_S in waves:
        _check_level(block_S)
        samples += block_S.size
        wave_S = np.concatenate([kept_S, block_S[gap:]]) if kept_S.size else block_S[gap:]
        gap = max(0, gap - block_S.size)
        if wave_S.size < settings.window:
            kept_S = wave_S.copy()
            continue
        mel_FM = _decibels(wave_S, settings)
        yield mel_FM
        taken = len(mel_FM) * settings.hop
        kept_S, gap = wave_S[taken:].copy(), max(0, taken - wave_S.size)
    if samples < settings.window:
        raise BadAudio("too-short", f"{samples} samples; need {settings.window} (one window)")


def _check_level(wave_S: NDArray[np.float32]) -> None:
    """Raises: BadAudio if samples are not finite, or so large that their power would not be finite."""
    if not wave_S.size:
        return
    loudest = max(-wave_S.min(), wave_S.max())  # NaN if there is one: numpy's min and max pass it on
    if not np.isfinite(loudest):
        raise BadAudio("not-audio", "the wave has NaN or infinite samples")
    if loudest > MAX_AMPLITUDE:
        raise BadAudio(
            "not-audio", f"samples up to {loudest:.0e}; need {MAX_AMPLITUDE:.0e} or less (full scale is 1)"
        )


def _decibels(wave_S: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Shapes: (S,) -> (F, M), S at least one window.

    The power comes as a multiple of the floor, so that the floor is exactly 1, its log exactly 0.
    """
    if settings.window & (settings.window - 1):
        mel_FM = _mel_power_of_any_window(wave_S, settings)
    else:
        mel_FM = mel_power(wave_S, _plan(settings))
    np.maximum(mel_FM, 1, out=mel_FM)
    np.log(mel_FM, out=mel_FM)  # numpy has vector code for it on more machines than for log10
    mel_FM *= 10 / np.log(10)
    mel_FM += FLOOR_DB
    return mel_FM


def _mel_power_of_any_window(wave_S: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Do what `mel_power` does where the window is no power of two, several times slower."""
    import scipy.fft  # here, since most processes never need it

    frames_FW = np.lib.stride_tricks.sliding_window_view(wave_S, settings.window)[:: settings.hop]
    taper_W, filters_MN = _taper(settings.window), _sparse_filters(settings)
    mel_FM = np.empty((len(frames_FW), settings.bands), np.float32)
    for first in range(0, len(frames_FW), FFT_BLOCK_FRAMES):
        spectrum_FN = scipy.fft.rfft(frames_FW[first : first + FFT_BLOCK_FRAMES] * taper_W)
        power_FN = spectrum_FN.real**2 + spectrum_FN.imag**2
        mel_FM[first : first + FFT_BLOCK_FRAMES] = (filters_MN @ power_FN.T).T
    return mel_FM


@lru_cache(maxsize=8)
def _plan(settings: MelSettings) -> MelPlan:
    return plan_mel(_taper(settings.window), _mel_filters(settings), settings.hop)


@lru_cache(maxsize=8)
def _sparse_filters(settings: MelSettings) -> "scipy.sparse.csr_array[np.float32]":
    import scipy.sparse

    return scipy.sparse.csr_array(_mel_filters(settings))


@lru_cache(maxsize=8)
def _taper(window: int) -> NDArray[np.float32]:
    """A Hann window that would repeat, as transforms want it: its last sample is not its first."""
    taper_W: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return taper_W.astype(np.float32)


def _mel_filters(settings: MelSettings) -> NDArray[np.float32]:
    """Draw the bands' triangles over the spectrum's bins, as multiples of the floor.

    Shapes: (M, N)
    Source: Slaney, Auditory Toolbox (1998): each triangle has area 2. Equal to librosa.filters.mel, whose
            import costs a second in each process that decodes.
    """
    nyquist_hz = settings.sample_rate_hz / 2
    lowest, highest = _mel_of(settings.low_hz), _mel_of(settings.high_hz or nyquist_hz)
    corners_hz = _hz_of(np.linspace(lowest, highest, settings.bands + 2))
    bins_hz = np.fft.rfftfreq(settings.window, 1 / settings.sample_rate_hz)
    left_M, middle_M, right_M = (corners_hz[i : i + settings.bands, None] for i in range(3))
    rising_MN, falling_MN = (
        (bins_hz - left_M) / (middle_M - left_M),
        (right_M - bins_hz) / (right_M - middle_M),
    )
    triangles_MN = np.maximum(0, np.minimum(rising_MN, falling_MN)) * 2 / (right_M - left_M)
    return (triangles_MN / FLOOR_POWER).astype(np.float32)


def _mel_of(hz: float) -> float:
    """Slaney's scale: 15 mel at 1 kHz, linear below, 27 steps to a factor of 6.4 above."""
    return hz * 15 / 1_000 if hz < 1_000 else 15 + 27 * float(np.log(hz / 1_000) / np.log(6.4))


def _hz_of(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 1_000 / 15, 1_000 * 6.4 ** ((mel - 15) / 27))
