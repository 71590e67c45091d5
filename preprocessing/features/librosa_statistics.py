"""The 518 features of FMA's features.csv: seven statistics of 74 frame features that librosa computes from audio.

Axes: S samples, F frames, K features of a frame, D features of a track.
Source: features.py of github.com/mdeff/fma (Defferrard et al., 2017). Unlike there, librosa is passed the sample
    rate: its default of 22,050 Hz puts chroma and spectral shapes of 44,100 Hz an octave too low.
"""

from collections.abc import Iterator

import librosa
import numpy as np
from numpy.typing import NDArray

from preprocessing.decode import decode
from preprocessing.errors import BadAudio

SAMPLE_RATE_HZ = 44_100  # of nearly all of FMA: it is read at its own rate there
WINDOW, HOP, OCTAVES = 2_048, 512, 7
FEATURES = 518


def compute_file_statistics(url: str, duration_s: float | None = None) -> NDArray[np.float32]:
    """Decode an audio file, or its beginning, and return its features. Shapes: (D,). Raises: BadAudio, OSError."""
    return compute_statistics(decode(url, sample_rate_hz=SAMPLE_RATE_HZ, duration_s=duration_s))


def compute_statistics(wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return mean, standard deviation, skew, kurtosis, median and bounds of each frame feature.

    Shapes: (S,) -> (D,).
    Raises: BadAudio if the wave is shorter than one window.

    The order is that of features.csv's columns sorted by name, as its readers sort them: feature, statistic, number.
    A statistic that is not defined, such as the skew of a constant, is 0.
    """
    if wave_S.size < WINDOW:
        raise BadAudio("too-short", f"{wave_S.size} samples; need {WINDOW} (one window)")
    statistics = [_statistics_of(values_KF) for _, values_KF in sorted(_frame_features(wave_S))]
    return np.nan_to_num(np.concatenate(statistics), nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)


def _frame_features(wave_S: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.floating]]]:
    """Yield the name and the values of each kind of frame feature. Shapes: each (K, F)."""
    rate = SAMPLE_RATE_HZ
    yield "zcr", librosa.feature.zero_crossing_rate(wave_S, frame_length=WINDOW, hop_length=HOP)
    constant_q = np.abs(
        librosa.cqt(wave_S, sr=rate, hop_length=HOP, bins_per_octave=12, n_bins=12 * OCTAVES, tuning=None)
    )
    chroma_cens = librosa.feature.chroma_cens(C=constant_q, n_chroma=12, n_octaves=OCTAVES)
    yield "chroma_cqt", librosa.feature.chroma_cqt(C=constant_q, n_chroma=12, n_octaves=OCTAVES)
    yield "chroma_cens", chroma_cens
    yield "tonnetz", librosa.feature.tonnetz(chroma=chroma_cens)
    magnitude = np.abs(librosa.stft(wave_S, n_fft=WINDOW, hop_length=HOP))
    yield "chroma_stft", librosa.feature.chroma_stft(S=magnitude**2, sr=rate, n_chroma=12)
    yield "rmse", librosa.feature.rms(S=magnitude)
    yield "spectral_centroid", librosa.feature.spectral_centroid(S=magnitude, sr=rate)
    yield "spectral_bandwidth", librosa.feature.spectral_bandwidth(S=magnitude, sr=rate)
    yield "spectral_contrast", librosa.feature.spectral_contrast(S=magnitude, sr=rate, n_bands=6)
    yield "spectral_rolloff", librosa.feature.spectral_rolloff(S=magnitude, sr=rate)
    mel = librosa.feature.melspectrogram(sr=rate, S=magnitude**2)
    yield "mfcc", librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20)


def _statistics_of(values_KF: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return seven statistics of each row, in the order of their names. Shapes: (K, F) -> (7 K,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        centred_KF = values_KF - values_KF.mean(axis=1, keepdims=True)
        square_K = (centred_KF**2).mean(axis=1)
        kurtosis_K = (centred_KF**4).mean(axis=1) / square_K**2 - 3
        skew_K = (centred_KF**3).mean(axis=1) / square_K**1.5
    statistics = (
        kurtosis_K,
        values_KF.max(axis=1),
        values_KF.mean(axis=1),
        np.median(values_KF, axis=1),
        values_KF.min(axis=1),
        skew_K,
        np.sqrt(square_K),
    )
    return np.concatenate(statistics)
