"""Logarithmic fluctuation pattern: how strongly each group of bands pulsates at each rate.

Axes: F frames, M mel bands, B groups of bands, W windows, N spectrum bins, L rates.
"""

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from preprocessing.features.band_groups import group_bands

GROUPS = 32
WINDOW_FRAMES, HOP_FRAMES = 384, 128
RATES = 24
LOWEST_HZ, HIGHEST_HZ = 0.25, 20.0
PERCENTILE = 60


def fluctuation_pattern(mel_FM: NDArray[np.float32], frames_per_s: float) -> NDArray[np.float32]:
    """Return the level of each group of bands' fluctuation at rates from 0.25 to 20 Hz.

    Shapes: (F, M) in dB -> (B * L,), the rates of a group side by side.
    Source: the logarithmic fluctuation pattern of Seyerlehner, Widmer and Pohle (2010).
    """
    groups_FB = group_bands(mel_FM, GROUPS)
    window = min(WINDOW_FRAMES, len(groups_FB))
    windows_WBF = np.lib.stride_tricks.sliding_window_view(groups_FB, window, axis=0)[::HOP_FRAMES]
    centred_WBF = windows_WBF - windows_WBF.mean(axis=2, keepdims=True)
    taper_F = np.hanning(window).astype(np.float32)
    level_WBN = np.abs(scipy.fft.rfft(centred_WBF * taper_F, axis=2))
    level_WBL = level_WBN @ _rate_filters(window, frames_per_s)
    return np.asarray(np.log1p(np.percentile(level_WBL, PERCENTILE, axis=0)).ravel(), np.float32)


@lru_cache(maxsize=8)
def _rate_filters(window: int, frames_per_s: float) -> NDArray[np.float32]:
    """Return the weight of each spectrum bin in the mean of each rate. Shapes: (N, L).

    A rate between two bins, as the lowest ones are, takes the nearest.
    """
    hz_N = np.fft.rfftfreq(window, 1 / frames_per_s)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, RATES + 1)
    weight_NL = ((hz_N[:, None] >= edges[:-1]) & (hz_N[:, None] < edges[1:])).astype(np.float32)
    centres = np.sqrt(edges[:-1] * edges[1:])
    for rate in np.flatnonzero(weight_NL.sum(axis=0) == 0):
        weight_NL[np.abs(hz_N - centres[rate]).argmin(), rate] = 1
    return np.asarray(weight_NL / weight_NL.sum(axis=0))
