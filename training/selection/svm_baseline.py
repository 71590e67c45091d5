"""The baseline: a support-vector machine on statistics of librosa's features.

Axes: T tracks, F frames, M mel bands, K features of a frame, D features of a track, G genres.
"""

from collections.abc import Sequence

import librosa
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from preprocessing.mel.settings import MelSettings
from store.reader import open_snapshot
from training.evaluation.probabilities import softmax

MFCC_COEFFICIENTS = 20  # of the cepstrum, as in FMA's features
MIN_STD = 1e-6  # a feature with less is constant
FEATURES_SCHEMA = pa.schema([("track_id", pa.string()), ("features", pa.list_(pa.float32()))])


def compute_track_features(mel_FM: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Return seven statistics of each of a track's frame features.

    Shapes: (F, M) in dB -> (D,).
    Source: the summary of FMA's features.csv (Defferrard et al., 2017); theirs has chroma too,
            which cannot be computed from a mel spectrogram.
    """
    frames_KF = _frame_features(mel_FM, settings)
    mean_K1 = frames_KF.mean(axis=1, keepdims=True)
    std_K1 = frames_KF.std(axis=1, keepdims=True)
    z_KF = (frames_KF - mean_K1) / np.maximum(std_K1, MIN_STD)
    statistics = [
        mean_K1[:, 0],
        std_K1[:, 0],
        (z_KF**3).mean(axis=1),
        (z_KF**4).mean(axis=1),
        np.median(frames_KF, axis=1),
        frames_KF.min(axis=1),
        frames_KF.max(axis=1),
    ]
    return np.concatenate(statistics).astype(np.float32)


def compute_stored_features(track_ids: Sequence[str], *, snapshot_url: str) -> pa.Table:
    """Compute the features of tracks of a snapshot; return FEATURES_SCHEMA, one row a track."""
    snapshot = open_snapshot(snapshot_url)
    settings = MelSettings.model_validate(snapshot.mel_settings)
    rows = [
        {"track_id": track_id, "features": compute_track_features(snapshot.mel(track_id), settings).tolist()}
        for track_id in track_ids
    ]
    return pa.Table.from_pylist(rows, schema=FEATURES_SCHEMA)


def svm_predict(train_TD: ArrayLike, target_TG: ArrayLike, test_TD: ArrayLike) -> NDArray[np.float64]:
    """Fit on tracks of one genre each, and return the probabilities of other tracks.

    Shapes: (T, D), (T, G) of 0 and 1, (T', D) -> (T', G); each genre has at least one track to fit on.
    Source: sklearn's SVC as FMA's baselines use it: radial kernel, C = 1, standardised features.

    The likeliest genre is the machine's prediction. The probabilities are a softmax of its margins: they
    are not calibrated, so their log-loss means little.
    """
    genre_T = np.asarray(target_TG).argmax(axis=1)
    assert len(np.unique(genre_T)) == np.shape(target_TG)[1], "a track of each genre"
    model = make_pipeline(StandardScaler(), SVC(break_ties=True))
    model.fit(np.asarray(train_TD), genre_T)
    margin = model.decision_function(np.asarray(test_TD))
    margin_TG = np.stack([-margin, margin], axis=1) if margin.ndim == 1 else margin
    return softmax(margin_TG)


def _frame_features(mel_FM: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float64]:
    """Return cepstrum, its change over time, and the shape of the spectrum. Shapes: (F, M) -> (K, F)."""
    mel_MF = mel_FM.T.astype(np.float64)
    mfcc_KF = librosa.feature.mfcc(S=mel_MF, n_mfcc=min(MFCC_COEFFICIENTS, len(mel_MF)))
    delta_KF = librosa.feature.delta(mfcc_KF, mode="nearest")
    power_MF = librosa.db_to_power(mel_MF)
    high_hz = settings.high_hz or settings.sample_rate_hz / 2
    hz_M = librosa.mel_frequencies(settings.bands + 2, fmin=settings.low_hz, fmax=high_hz)[1:-1]
    shapes = [
        librosa.feature.spectral_centroid(S=power_MF, freq=hz_M),
        librosa.feature.spectral_bandwidth(S=power_MF, freq=hz_M),
        librosa.feature.spectral_rolloff(S=power_MF, freq=hz_M),
        librosa.feature.spectral_flatness(S=power_MF, power=1.0),
    ]
    return np.concatenate([mfcc_KF, delta_KF, *shapes])
