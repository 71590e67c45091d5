"""Which parts of a track are listened to, and how they are cut out of it.

Windows start at frames of the whole track's spectrogram, so theirs is part of it: no frame
is new. All is counted at the spectrogram's rate, in samples and frames.

Axes: S samples.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.settings import WindowSettings
from preprocessing.mel.settings import MelSettings

RESAMPLER_MARGIN_S = (
    0.25  # decoded before and after a window: a resampler needs the neighbours of its first and last sample
)


@dataclass(frozen=True)
class FrameRange:
    """Frames of a track's spectrogram."""

    start: int
    frames: int

    def sample_range(self, mel: MelSettings) -> tuple[int, int]:
        """Give the first of the samples that the frames are made of, and their number."""
        return self.start * mel.hop, (self.frames - 1) * mel.hop + mel.window


def place_windows(frames: int, windows: WindowSettings, mel: MelSettings) -> list[FrameRange]:
    """Lay windows evenly over a track: each in the middle of its share, so none begins or ends with the track.

    A track that is no longer than all windows together is one window, and so is one listened to whole.
    """
    if windows.covers_track(frames, mel):
        return [FrameRange(0, frames)]
    length = mel.count_frames(windows.length_s)
    share = frames / windows.count
    starts = [round(share * (number + 0.5) - length / 2) for number in range(windows.count)]
    return [FrameRange(min(max(start, 0), frames - length), length) for start in starts]


@dataclass(frozen=True)
class DecodeRange:
    """What must be decoded of a file for one window: seconds of the file, and which of their samples to keep."""

    start_s: float
    duration_s: float
    skip_samples: int
    keep_samples: int


def decode_range_for(span: FrameRange, rate_hz: int, mel: MelSettings) -> DecodeRange:
    """Say what to decode of a file of some sample rate for a window.

    It starts where a sample of the file and one of the spectrogram's rate fall together;
    anywhere else, resampling would give what lies between the whole track's samples.
    """
    first, keep_samples = span.sample_range(mel)
    step = mel.sample_rate_hz // math.gcd(mel.sample_rate_hz, rate_hz)
    run = round(RESAMPLER_MARGIN_S * mel.sample_rate_hz)
    start = max(0, first - run) // step * step
    return DecodeRange(
        start_s=start / mel.sample_rate_hz,
        duration_s=(first - start + keep_samples + run) / mel.sample_rate_hz,
        skip_samples=first - start,
        keep_samples=keep_samples,
    )


def slice_wave(
    waves: Iterator[NDArray[np.float32]], skipped: int, kept: int
) -> Iterator[NDArray[np.float32]]:
    """Keep some samples of a waveform that comes in blocks; all that comes is read."""
    for wave_S in waves:
        part_S = wave_S[skipped : skipped + kept]
        skipped = max(0, skipped - wave_S.size)
        kept -= part_S.size
        if part_S.size:
            yield part_S


class PeakMeter:
    """The loudest sample of each hop, noted as a waveform passes."""

    def __init__(self, mel: MelSettings) -> None:
        self._mel = mel
        self._peaks: list[NDArray[np.float32]] = []
        self._rest_S = np.empty(0, np.float32)

    def measure(self, waves: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Pass a waveform on."""
        for wave_S in waves:
            loud_S = np.concatenate([self._rest_S, np.abs(wave_S)])
            whole = loud_S.size // self._mel.hop * self._mel.hop
            self._peaks.append(loud_S[:whole].reshape(-1, self._mel.hop).max(axis=1))
            self._rest_S = loud_S[whole:]
            yield wave_S

    def peak(self, span: FrameRange) -> float:
        """Give the loudest sample of a window, to a hop."""
        first, samples = span.sample_range(self._mel)
        hops = slice(first // self._mel.hop, math.ceil((first + samples) / self._mel.hop))
        last = self._rest_S.max(initial=0, keepdims=True)
        return float(np.concatenate([*self._peaks, last])[hops].max(initial=0))
