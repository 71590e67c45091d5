"""Waveform to log-mel spectrogram: pure functions, no I/O, no state.

Axes: S samples, F frames, W window, N spectrum bins, M mel bands.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import BadAudio
from preprocessing.mel.filters import mel_filters
from preprocessing.mel.plan import MelPlan, plan_mel
from preprocessing.mel.power import mel_power
from preprocessing.mel.settings import MelSettings

if TYPE_CHECKING:
    import scipy.sparse

FLOOR_POWER = 1e-10  # librosa's `amin`: levels are at least -100 dB
FLOOR_DB = -100.0
MAX_AMPLITUDE = 1e10  # full scale is 1; beyond, the power of a frame exceeds float32
FFT_BLOCK_FRAMES = 64  # 64 windows of 2,048 floats fit into the L2 cache


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

    Shapes: (S_i,) ... -> (F_j, M) ..., at most one for each block of the wave, none of them empty;
        concatenated they equal `log_mel` of the whole wave, to the bit, whatever the blocks.
    Raises: BadAudio as `log_mel` does; if all blocks together are too short, only at the end.

    Less than one window is kept from block to block, so a track may be hours long.
    """
    kept_S, gap = np.empty(0, np.float32), 0  # samples between two frames, if hop > window
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
    """Raise BadAudio if samples are not finite, or so large that their power would not be finite."""
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
    """Compute the level of all whole frames. Shapes: (S,) -> (F, M), S at least one window.

    Powers are multiples of the floor, so that the floor is exactly 1, and its log exactly 0.
    """
    if settings.window & (settings.window - 1):
        mel_FM = _mel_power_of_any_window(wave_S, settings)
    else:
        mel_FM = mel_power(wave_S, _plan(settings))
    np.maximum(mel_FM, 1, out=mel_FM)
    np.log(mel_FM, out=mel_FM)  # numpy has vector code for log on more machines than for log10
    mel_FM *= 10 / np.log(10)
    mel_FM += FLOOR_DB
    return mel_FM


def _mel_power_of_any_window(wave_S: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Compute what `mel_power` does, for windows that are no power of two; several times slower."""
    import scipy.fft  # slow to import, and rarely needed

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
    return plan_mel(_taper(settings.window), _scaled_filters(settings), settings.hop)


@lru_cache(maxsize=8)
def _sparse_filters(settings: MelSettings) -> "scipy.sparse.csr_array[np.float32]":
    import scipy.sparse

    return scipy.sparse.csr_array(_scaled_filters(settings))


@lru_cache(maxsize=8)
def _taper(window: int) -> NDArray[np.float32]:
    """Return a periodic Hann window: its last sample is not its first."""
    taper_W: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return taper_W.astype(np.float32)


def _scaled_filters(settings: MelSettings) -> NDArray[np.float32]:
    """Return the mel filters in multiples of the floor. Shapes: (M, N)."""
    return (mel_filters(settings) / FLOOR_POWER).astype(np.float32)
