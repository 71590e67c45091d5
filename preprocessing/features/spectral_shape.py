"""Statistics of a log-mel crop's cepstrum and of the shape of its spectrum.

Axes: F frames, M mel bands, C cepstral coefficients, K features of a frame, D features of a crop.
"""

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Values = NDArray[np.floating]  # in the precision of the crop: float32 in tagging

COEFFICIENTS = 20  # of the cepstrum
MIN_STD = 1e-6  # a feature with less is constant
DELTA_FRAMES = 4  # on each side
ROLLOFF_SHARE = 0.85  # of the power
MIN_POWER = 1e-10


def cepstrum(mel_FM: Values) -> Values:
    """Return the first cepstral coefficients. Shapes: (F, M) in dB -> (F, C), C at most 20."""
    return np.asarray(scipy.fft.dct(mel_FM, axis=1, norm="ortho")[:, :COEFFICIENTS])


def delta(values_FK: Values) -> Values:
    """Return the slope of the least-squares line through each frame's 9 neighbours, edges repeated.

    Shapes: (F, K) -> (F, K).
    Source: librosa.feature.delta(mode="nearest").
    """
    padded_FK = np.pad(values_FK, ((DELTA_FRAMES, DELTA_FRAMES), (0, 0)), "edge")
    frames = len(values_FK)
    slope_FK = np.zeros_like(values_FK)
    for offset in range(1, DELTA_FRAMES + 1):
        after = padded_FK[DELTA_FRAMES + offset : DELTA_FRAMES + offset + frames]
        before = padded_FK[DELTA_FRAMES - offset : DELTA_FRAMES - offset + frames]
        slope_FK += offset * (after - before)
    return slope_FK / (2 * sum(offset**2 for offset in range(1, DELTA_FRAMES + 1)))


def frame_statistics(mel_FM: Values, hz_M: NDArray[np.float64]) -> Values:
    """Return seven statistics of each frame feature: mean, standard deviation, skew, kurtosis, median, bounds.

    Shapes: (F, M) in dB, the centre of each band in Hz -> (D,).
    Source: the summary of FMA's features.csv (Defferrard et al., 2017), without its chroma.
    """
    mfcc_FC = cepstrum(mel_FM)
    frames_FK = np.concatenate([mfcc_FC, delta(mfcc_FC), _spectrum_shapes(mel_FM, hz_M)], axis=1)
    mean_K, std_K = frames_FK.mean(axis=0), frames_FK.std(axis=0)
    z_FK = (frames_FK - mean_K) / np.maximum(std_K, MIN_STD)
    cube_FK = z_FK * z_FK * z_FK
    statistics = [
        mean_K,
        std_K,
        cube_FK.mean(axis=0),
        (cube_FK * z_FK).mean(axis=0),
        np.median(frames_FK, axis=0),
        frames_FK.min(axis=0),
        frames_FK.max(axis=0),
    ]
    return np.concatenate(statistics).astype(np.float32)


def cepstral_covariance(mel_FM: Values) -> Values:
    """Return mean and covariance of the cepstrum, and the covariance of its change.

    Shapes: (F, M) in dB -> (C + C (C + 1),).
    """
    mfcc_FC = cepstrum(mel_FM)
    triangle = _triangle(mfcc_FC.shape[1])
    parts = [
        mfcc_FC.mean(axis=0),
        _covariance(mfcc_FC)[triangle],
        _covariance(delta(mfcc_FC))[triangle],
    ]
    return np.concatenate(parts).astype(np.float32)


def _covariance(values_FK: Values) -> Values:
    centred_FK = values_FK - values_FK.mean(axis=0)
    return np.asarray(centred_FK.T @ centred_FK / len(centred_FK))


@lru_cache(maxsize=4)
def _triangle(size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.triu_indices(size)


def _spectrum_shapes(mel_FM: Values, hz_M: NDArray[np.float64]) -> Values:
    """Return centroid, bandwidth and roll-off in Hz, and flatness. Shapes: (F, M) -> (F, 4)."""
    power_FM = np.exp(mel_FM * float(np.log(10) / 10))
    hz = hz_M.astype(mel_FM.dtype)
    total_F1 = np.maximum(power_FM.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    share_FM = power_FM / total_F1
    centroid_F = share_FM @ hz
    # The variance as a sum of squared distances: a difference of means would cancel.
    distance_FM = hz - centroid_F[:, None]
    bandwidth_F = np.sqrt((share_FM * distance_FM * distance_FM).sum(axis=1))
    rolloff_F = hz[(share_FM.cumsum(axis=1) < ROLLOFF_SHARE).sum(axis=1).clip(max=len(hz) - 1)]
    floored_FM = np.maximum(power_FM, MIN_POWER)
    flatness_F = np.exp(np.log(floored_FM).mean(axis=1)) / floored_FM.mean(axis=1)
    return np.stack([centroid_F, bandwidth_F, rolloff_F, flatness_F], axis=1)
