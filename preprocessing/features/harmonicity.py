"""Levels of the harmonic, percussive and fine parts of a log-mel crop.

Axes: F frames, M mel bands, B groups of bands.
"""

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from preprocessing.features.band_groups import group_bands

GROUPS = 16
MEAN_FRAMES, MEAN_BANDS = 17, 9  # of the running means


def harmonic_percussive_levels(mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return six levels of each group of bands over time.

    Shapes: (F, M) in dB -> (6 * B,).

    What a band differs by from its neighbours is fine structure; what of that lasts is harmonic. What a
    frame differs by from those around it and the neighbouring bands share is percussive.
    """
    fine_FM = mel_FM - _running_mean(mel_FM, MEAN_BANDS, axis=1)
    harmonic_FM = _running_mean(fine_FM, MEAN_FRAMES, axis=0)
    change_FM = mel_FM - _running_mean(mel_FM, MEAN_FRAMES, axis=0)
    percussive_FM = _running_mean(change_FM, MEAN_BANDS, axis=1)
    levels = [
        _group_means(np.abs(fine_FM)),
        np.sqrt(_group_means(harmonic_FM * harmonic_FM)),
        np.sqrt(_group_means(percussive_FM * percussive_FM)),
        _group_means(np.abs(change_FM)),
        _fourth_power_mean(np.maximum(percussive_FM, 0)),
        _fourth_power_mean(np.maximum(harmonic_FM, 0)),
    ]
    return np.concatenate(levels).astype(np.float32)


def _running_mean(values_FM: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    return np.asarray(scipy.ndimage.uniform_filter1d(values_FM, size, axis=axis, mode="nearest"))


def _group_means(values_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    return group_bands(values_FM.mean(axis=0, keepdims=True), GROUPS).ravel()


def _fourth_power_mean(values_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    squared_FM = values_FM * values_FM
    return np.asarray(np.sqrt(np.sqrt(_group_means(squared_FM * squared_FM))))
