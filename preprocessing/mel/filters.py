"""The filters of mel bands, equal to librosa's.

Axes: N spectrum bins, M mel bands.
"""

import numpy as np
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings


def mel_filters(settings: MelSettings) -> NDArray[np.float64]:
    """Return the triangular weights of the bands over the spectrum's bins.

    Shapes: (M, N)
    Source: Slaney, Auditory Toolbox (1998): each triangle has area 2. Equal to librosa.filters.mel,
        whose import takes a second.
    """
    corners_hz = _corners_hz(settings)
    bins_hz = np.fft.rfftfreq(settings.window, 1 / settings.sample_rate_hz)
    left_M, middle_M, right_M = (corners_hz[i : i + settings.bands, None] for i in range(3))
    rising_MN, falling_MN = (
        (bins_hz - left_M) / (middle_M - left_M),
        (right_M - bins_hz) / (right_M - middle_M),
    )
    triangles_MN = np.maximum(0, np.minimum(rising_MN, falling_MN)) * 2 / (right_M - left_M)
    return np.asarray(triangles_MN)


def band_centres_hz(settings: MelSettings) -> NDArray[np.float64]:
    """Return the frequency at which each band's filter is highest, in Hz. Shapes: (M,)."""
    return _corners_hz(settings)[1:-1]


def _corners_hz(settings: MelSettings) -> NDArray[np.float64]:
    lowest, highest = (_hz_to_mel(hz) for hz in (settings.low_hz, settings.top_hz))
    return _mel_to_hz(np.linspace(lowest, highest, settings.bands + 2))


def _hz_to_mel(hz: float) -> float:
    """Convert to Slaney's scale: 15 mel at 1 kHz, linear below, 27 mel to a factor of 6.4 above."""
    return hz * 15 / 1_000 if hz < 1_000 else 15 + 27 * float(np.log(hz / 1_000) / np.log(6.4))


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 1_000 / 15, 1_000 * 6.4 ** ((mel - 15) / 27))
