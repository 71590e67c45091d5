"""One audio file, wherever it lies, to one waveform."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.decoders import WaveBlocks, decode_blocks
from preprocessing.decode.local_copies import local_copy


def decode(
    url: str, *, sample_rate_hz: int, start_s: float = 0.0, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Decode an audio file, or a window of it, to mono.

    Shapes: (S,); the mean of the channels.
    Units:  samples in [-1, 1] but for the overshoot of lossy codecs.
    Raises: BadAudio with a reason code if the file cannot be used; OSError if it cannot be read now.
    """
    with local_copy(url) as path:
        decoded = decode_blocks(
            _concatenate, path, sample_rate_hz=sample_rate_hz, start_s=start_s, duration_s=duration_s
        )
    return decoded.result


def _concatenate(waves: WaveBlocks) -> NDArray[np.float32]:
    blocks = list(waves)
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)
