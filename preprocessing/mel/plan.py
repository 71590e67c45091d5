"""The tables that the mel kernel reads: all that depends on the settings and not on the wave.

Axes: W window, C = W / 2 complex points, N = C + 1 spectrum bins, M mel bands, K the weights of
all bands end to end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANES = (
    16  # frames side by side in a register: one AVX-512 register of float32, two of AVX2, four of SSE or NEON
)


@dataclass(frozen=True, eq=False)
class MelPlan:
    """The tables for one window, hop and set of mel filters."""

    hop: int
    taper_W: NDArray[np.float32]
    twiddles_C3: NDArray[np.complex64]  # of the pass over blocks of 4 q points: q rows, from row q on
    order_C: NDArray[np.int64]  # the position in which the transform leaves each bin
    turns_C: NDArray[np.complex64]
    bin_M: NDArray[np.int64]  # the first bin of each band
    start_M: NDArray[np.int64]  # the first weight of each band; one more, for the end
    weights_K: NDArray[np.float32]


def plan_mel(taper_W: NDArray[np.float32], filters_MN: NDArray[np.float32], hop: int) -> MelPlan:
    """Compute the tables for one window, hop and set of mel filters.

    Raises: ValueError if the window is no power of two from 8 up.
    """
    window = taper_W.size
    if window < 8 or window & (window - 1):
        raise ValueError(f"a window of {window} samples; want a power of two, 8 or more")
    size = window // 2
    used_bins = [np.flatnonzero(weights_N) for weights_N in filters_MN]
    spans = [slice(bins[0], bins[-1] + 1) if bins.size else slice(0, 0) for bins in used_bins]
    return MelPlan(
        hop=hop,
        taper_W=taper_W,
        twiddles_C3=_twiddles(size),
        order_C=np.argsort(_bin_at_position(size)),
        turns_C=np.exp(-2j * np.pi * np.arange(size) / window).astype(np.complex64),
        bin_M=np.array([span.start for span in spans]),
        start_M=np.cumsum([0, *(span.stop - span.start for span in spans)]),
        weights_K=np.concatenate([row_N[span] for row_N, span in zip(filters_MN, spans, strict=True)]),
    )


def _twiddles(size: int) -> NDArray[np.complex64]:
    """Return the factors of all passes of the transform. Shapes: (C, 3)."""
    twiddles_C3 = np.ones((size, 3), np.complex64)
    quarter = size // 4
    while quarter:
        steps = np.outer(np.arange(quarter), [1, 2, 3]) / (4 * quarter)
        twiddles_C3[quarter : 2 * quarter] = np.exp(-2j * np.pi * steps)
        quarter //= 4
    return twiddles_C3


def _bin_at_position(size: int) -> NDArray[np.int64]:
    """Return the bin that the transform leaves at each position: a pass sends bin 4 m + r to the r-th quarter."""
    if size < 4:
        return np.arange(size)
    return np.concatenate([4 * _bin_at_position(size // 4) + r for r in range(4)])
