"""The spool: a temporary file of raw float32 that a decoding process writes and its parent reads.

Axes: S samples, F frames, M mel bands.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.windows import FrameRange
from preprocessing.mel.settings import MelSettings

READ_BLOCK_FRAMES = 8_192  # 4 MiB at 128 bands


@dataclass(frozen=True)
class SpooledMel:
    """The position of a track's spectrogram on the spool, and the facts about the track."""

    start_byte: int
    frames: int
    bands: int
    decoded_s: float
    stated_s: float | None
    silence_s: float  # of digital silence, left out of the spectrogram
    is_truncated: bool
    sha256: (
        str | None
    )  # of the file, in hexadecimal; None for an excerpt, which is decoded faster than hashed
    fingerprint: str  # in hexadecimal

    def read_blocks(
        self, spool: BinaryIO, block_frames: int = READ_BLOCK_FRAMES
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the spectrogram in blocks. Shapes: (F_i, M), in all `frames` frames."""
        spool.seek(self.start_byte)
        left = self.frames
        while left:
            frames = min(left, block_frames)
            block_FM = np.fromfile(spool, np.float32, frames * self.bands)
            if block_FM.size < frames * self.bands:
                raise OSError(errno.EIO, "a spectrogram's temporary file ends before the spectrogram does")
            left -= frames
            yield block_FM.reshape(-1, self.bands)


@dataclass(frozen=True)
class SpooledWindow:
    """The position of a window of a track on the spool."""

    start_frame: int  # in the spectrogram of the whole track
    frames: int
    start_byte: int


@dataclass(frozen=True)
class DecodedWindow:
    """A window that can be read: `read(first, frames)` returns (F, M) in dB, or the (S,) that these are made of."""

    start_frame: int
    frames: int
    read: Callable[[int, int], NDArray[np.float32]]


def open_window(spool: int, window: SpooledWindow, mel: MelSettings, *, as_waves: bool) -> DecodedWindow:
    """Return a window that reads from the spool, a file descriptor."""

    def read(first: int, frames: int) -> NDArray[np.float32]:
        if as_waves:
            start, samples = FrameRange(first, frames).sample_range(mel)
            return _read_values(spool, window.start_byte + 4 * start, samples)
        values = _read_values(spool, window.start_byte + 4 * mel.bands * first, mel.bands * frames)
        return values.reshape(frames, mel.bands)

    return DecodedWindow(window.start_frame, window.frames, read)


def _read_values(spool: int, start_byte: int, count: int) -> NDArray[np.float32]:
    values = np.empty(count, np.float32)
    if os.preadv(spool, [values.data.cast("B")], start_byte) < values.nbytes:
        raise OSError(errno.EIO, "a track's temporary file ends before its windows do")
    return values
