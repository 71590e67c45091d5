"""FMA's 518 features of an audio file, computed by librosa: seven statistics of eleven descriptors.

They are what FMA's published `features.csv` contains, and what its baselines are fitted on.

Axes: F frames, K descriptors of a frame, N frequencies of a spectrum.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import scipy.stats
from numpy.typing import NDArray

WINDOW, HOP = 2048, 512
OCTAVES, SEMITONES = 7, 12
FEATURES = 518
STATISTICS = (
    np.mean, np.std, scipy.stats.skew, scipy.stats.kurtosis, np.median, np.min, np.max,
)  # fmt: skip


def load_fma_features(paths: list[str], cache: Path) -> NDArray[np.float32]:
    """Return the features of files, in their order, computed once and kept in `cache`. Shapes: (files, 518)."""
    if cache.exists():
        stored = np.load(cache)
        feature_of = dict(zip(stored["paths"].tolist(), stored["features"], strict=True))
    else:
        feature_of = {}
    missing = [path for path in paths if path not in feature_of]
    if missing:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            feature_of |= dict(zip(missing, pool.map(compute_fma_features, missing), strict=True))
        np.savez(cache, paths=np.array(list(feature_of)), features=np.array(list(feature_of.values())))
    return np.array([feature_of[path] for path in paths], np.float32)


def compute_fma_features(path: str) -> NDArray[np.float32]:
    """Return the features of a file. Shapes: (518,).

    Source: Defferrard et al., "FMA: a dataset for music analysis" (2017), section 4.
    """
    wave, rate = librosa.load(path, sr=None, mono=True)
    frames_KF = np.concatenate([*_pitch_classes(wave, rate), *_spectrum_shapes(wave, rate)])
    # A descriptor that never changes has no skew and no kurtosis: 0, as for a symmetric one.
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.concatenate([statistic(frames_KF, axis=1) for statistic in STATISTICS])
    return np.nan_to_num(values).astype(np.float32)


def _pitch_classes(wave: NDArray[np.float32], rate: float) -> list[NDArray[np.float32]]:
    """Return chroma and tonnetz of a constant-Q transform, as long as a short-time spectrum. Shapes: each (K, F)."""
    bins = OCTAVES * SEMITONES
    level_KF = np.abs(librosa.cqt(wave, sr=rate, hop_length=HOP, bins_per_octave=SEMITONES, n_bins=bins))
    chroma_KF = librosa.feature.chroma_cqt(C=level_KF, n_octaves=OCTAVES)
    smooth_KF = librosa.feature.chroma_cens(C=level_KF, n_octaves=OCTAVES)
    return [chroma_KF, smooth_KF, librosa.feature.tonnetz(chroma=smooth_KF)]


def _spectrum_shapes(wave: NDArray[np.float32], rate: float) -> list[NDArray[np.float32]]:
    """Return the descriptors of a short-time spectrum, and the zero-crossing rate. Shapes: each (K, F)."""
    level_NF = np.abs(librosa.stft(wave, n_fft=WINDOW, hop_length=HOP))
    power_NF = level_NF**2
    mel_db = librosa.power_to_db(librosa.feature.melspectrogram(S=power_NF, sr=rate))
    return [
        librosa.feature.chroma_stft(S=power_NF, sr=rate),
        librosa.feature.rms(S=level_NF),
        librosa.feature.spectral_centroid(S=level_NF, sr=rate),
        librosa.feature.spectral_bandwidth(S=level_NF, sr=rate),
        librosa.feature.spectral_contrast(S=level_NF, sr=rate),
        librosa.feature.spectral_rolloff(S=level_NF, sr=rate),
        librosa.feature.mfcc(S=mel_db, n_mfcc=20),
        librosa.feature.zero_crossing_rate(wave, frame_length=WINDOW, hop_length=HOP),
    ]
