"""The placement of windows in a track, and what to decode for each.

Windows start at frames of the whole track's spectrogram, so the spectrogram of a window is a slice
of it. Samples and frames are counted at the spectrogram's sample rate.

Axes: S samples.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.settings import WindowSettings
from preprocessing.mel.settings import MelSettings

RESAMPLER_MARGIN_S = 0.25  # decoded before and after a window: resampling a sample needs its neighbours


@dataclass(frozen=True)
class FrameRange:
    """Frames of a track's spectrogram."""

    start: int
    frames: int

    def sample_range(self, mel: MelSettings) -> tuple[int, int]:
        """Return the first of the samples that the frames are made of, and their number."""
        return self.start * mel.hop, (self.frames - 1) * mel.hop + mel.window


def place_windows(frames: int, windows: WindowSettings, mel: MelSettings) -> list[FrameRange]:
    """Space windows evenly over a track, each in the middle of its share.

    A track that is no longer than all windows together is one window, and so is each track if
    `whole_track` is set.
    """
    if windows.covers_track(frames, mel):
        return [FrameRange(0, frames)]
    length = mel.count_frames(windows.length_s)
    share = frames / windows.count
    starts = [round(share * (number + 0.5) - length / 2) for number in range(windows.count)]
    return [FrameRange(min(max(start, 0), frames - length), length) for start in starts]


@dataclass(frozen=True)
class DecodeRange:
    """The part of a file to decode for one window, and which of its samples, once resampled, to keep."""

    start_s: float
    duration_s: float
    skip_samples: int
    keep_samples: int


def decode_range_for(window: FrameRange, rate_hz: int, mel: MelSettings) -> DecodeRange:
    """Return what to decode of a file of some sample rate for a window.

    It starts where a sample of the file and one of the spectrogram's rate coincide; from
    any other start, resampling would return values between the whole track's samples.
    """
    first, keep_samples = window.sample_range(mel)
    step = mel.sample_rate_hz // math.gcd(mel.sample_rate_hz, rate_hz)
    margin = round(RESAMPLER_MARGIN_S * mel.sample_rate_hz)
    start = max(0, first - margin) // step * step
    return DecodeRange(
        start_s=start / mel.sample_rate_hz,
        duration_s=(first - start + keep_samples + margin) / mel.sample_rate_hz,
        skip_samples=first - start,
        keep_samples=keep_samples,
    )


def slice_wave(waves: Iterator[NDArray[np.float32]], skip: int, keep: int) -> Iterator[NDArray[np.float32]]:
    """Yield `keep` samples of a waveform in blocks, after the first `skip`; read all blocks."""
    for wave_S in waves:
        part_S = wave_S[skip : skip + keep]
        skip = max(0, skip - wave_S.size)
        keep -= part_S.size
        if part_S.size:
            yield part_S


class PeakMeter:
    """The peak of each hop of a waveform, measured while its blocks pass through."""

    def __init__(self, mel: MelSettings) -> None:
        self._mel = mel
        self._peaks: list[NDArray[np.float32]] = []
        self._rest_S = np.empty(0, np.float32)

    def measure(self, waves: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the blocks of a waveform as they are."""
        for wave_S in waves:
            level_S = np.concatenate([self._rest_S, np.abs(wave_S)])
            whole = level_S.size // self._mel.hop * self._mel.hop
            self._peaks.append(level_S[:whole].reshape(-1, self._mel.hop).max(axis=1))
            self._rest_S = level_S[whole:]
            yield wave_S

    def peak(self, window: FrameRange) -> float:
        """Return the peak of a window, extended to whole hops."""
        first, samples = window.sample_range(self._mel)
        hops = slice(first // self._mel.hop, math.ceil((first + samples) / self._mel.hop))
        last = self._rest_S.max(initial=0, keepdims=True)
        return float(np.concatenate([*self._peaks, last])[hops].max(initial=0))
