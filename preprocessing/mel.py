"""Waveform to log-mel spectrogram: pure functions, no I/O, no state.

Axes: S samples, F frames, W window, N spectrum bins, M mel bands.
"""

import hashlib
from functools import lru_cache

import librosa
import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from preprocessing.errors import BadAudio

FLOOR_POWER = 1e-10  # librosa's `amin`: nothing is quieter than -100 dB
BLOCK_FRAMES = 64  # 64 windows of 2,048 floats stay in the L2 cache: that is the whole trick


class MelSettings(BaseModel, frozen=True, extra="forbid"):
    """How a waveform becomes a log-mel spectrogram."""

    sample_rate_hz: int = Field(
        22_050, ge=8_000, le=192_000, description="Rate that audio is resampled to, in Hz"
    )
    window: int = Field(2_048, ge=64, le=32_768, description="Samples in one FFT window")
    hop: int = Field(512, ge=1, description="Samples between the starts of two frames")
    bands: int = Field(128, ge=8, le=512, description="Mel bands")
    low_hz: float = Field(0.0, ge=0.0, description="Lowest frequency of the mel bands, in Hz")
    high_hz: float | None = Field(
        None, gt=0.0, description="Highest frequency of the mel bands, in Hz; empty for half the sample rate"
    )

    @model_validator(mode="after")
    def _bands_lie_below_nyquist(self) -> "MelSettings":
        high_hz = self.high_hz or self.sample_rate_hz / 2
        if not self.low_hz < high_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"mel bands from {self.low_hz} to {high_hz} Hz; want low_hz < high_hz <= "
                f"half the sample rate ({self.sample_rate_hz / 2} Hz)"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """Name these settings: two stores agree if and only if their fingerprints do."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def frames_in(self, seconds: float) -> int:
        """Count the frames that so many seconds of audio give, at least one."""
        return max(1, 1 + (int(seconds * self.sample_rate_hz) - self.window) // self.hop)


def log_mel(wave_S: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Turn a mono waveform into a log-mel spectrogram.

    Shapes: (S,) -> (F, M) with F = 1 + (S - window) // hop.
    Units:  wave in [-1, 1]; result in dB, 10 log10 of mel power, never below -100.
    Raises: BadAudio if the wave is shorter than one window or not finite.
    Source: librosa.feature.melspectrogram(center=False) then power_to_db(top_db=None), both
            with their defaults (slaney scale and norm, Hann window, power 2, ref 1.0).

    The reference level is fixed, not the loudest frame, so a frame depends only on
    its own samples: any slice of a track can be computed, stored or read alone.
    """
    if wave_S.size < settings.window:
        raise BadAudio("too-short", f"{wave_S.size} samples; need {settings.window} (one window)")
    if not np.isfinite(wave_S).all():
        raise BadAudio("not-audio", "the wave has NaN or infinite samples")
    frames_FW = np.lib.stride_tricks.sliding_window_view(wave_S, settings.window)[:: settings.hop]
    taper_W, filters_MN = _taper(settings.window), _mel_filters(settings)
    mel_FM = np.empty((len(frames_FW), settings.bands), np.float32)
    for first in range(0, len(frames_FW), BLOCK_FRAMES):
        spectrum_FN = scipy.fft.rfft(frames_FW[first : first + BLOCK_FRAMES] * taper_W)
        power_FN = spectrum_FN.real**2 + spectrum_FN.imag**2
        mel_FM[first : first + BLOCK_FRAMES] = (filters_MN @ power_FN.T).T
    np.maximum(mel_FM, FLOOR_POWER, out=mel_FM)
    np.log10(mel_FM, out=mel_FM)
    mel_FM *= 10
    return mel_FM


@lru_cache(maxsize=8)
def _taper(window: int) -> NDArray[np.float32]:
    taper: NDArray[np.float32] = scipy.signal.get_window("hann", window, fftbins=True).astype(np.float32)
    return taper


@lru_cache(maxsize=8)
def _mel_filters(settings: MelSettings) -> "scipy.sparse.csr_array[np.float32]":
    """Shapes: (M, N), sparse: each triangle touches few of the spectrum's bins."""
    dense_MN = librosa.filters.mel(
        sr=settings.sample_rate_hz,
        n_fft=settings.window,
        n_mels=settings.bands,
        fmin=settings.low_hz,
        fmax=settings.high_hz,
        dtype=np.float32,
    )
    return scipy.sparse.csr_array(dense_MN)
