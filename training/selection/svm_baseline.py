"""The baseline: a support-vector machine on statistics of MFCCs and of the spectrum's shape.

Axes: T tracks, F frames, M mel bands, D features of a track, G genres.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from preprocessing.features.spectral_shape import frame_statistics
from preprocessing.mel.filters import band_centres_hz
from preprocessing.mel.settings import MelSettings
from store.reader import open_snapshot
from training.evaluation.probabilities import softmax

MAX_TRACKS = 5_000  # to fit on: the time of an SVM grows with their square
FEATURES_SCHEMA = pa.schema([("track_id", pa.string()), ("features", pa.list_(pa.float32()))])


def compute_track_features(mel_FM: NDArray[np.float32], settings: MelSettings) -> NDArray[np.float32]:
    """Return seven statistics of each of a track's frame features.

    Shapes: (F, M) in dB -> (D,).
    Source: the summary of FMA's features.csv (Defferrard et al., 2017); theirs has chroma too,
            which cannot be computed from a mel spectrogram.
    """
    return frame_statistics(mel_FM.astype(np.float64), band_centres_hz(settings)).astype(np.float32)


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
    from sklearn.pipeline import make_pipeline  # here, since the import costs a second
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    genre_T = np.asarray(target_TG).argmax(axis=1)
    assert len(np.unique(genre_T)) == np.shape(target_TG)[1], "a track of each genre"
    model = make_pipeline(StandardScaler(), SVC(break_ties=True))
    model.fit(np.asarray(train_TD), genre_T)
    margin = model.decision_function(np.asarray(test_TD))
    margin_TG = np.stack([-margin, margin], axis=1) if margin.ndim == 1 else margin
    return softmax(margin_TG)


def limit_tracks(target_TG: ArrayLike, most: int = MAX_TRACKS) -> NDArray[np.int64]:
    """Return the rows of the tracks to fit on: all, or equally many of each genre as far as it has them."""
    genre_T = np.asarray(target_TG).argmax(axis=1)
    if len(genre_T) <= most:
        return np.arange(len(genre_T))
    of_each = most // np.shape(target_TG)[1]
    random = np.random.default_rng(0).permutation(len(genre_T))
    chosen = [random[genre_T[random] == genre][:of_each] for genre in np.unique(genre_T)]
    return np.sort(np.concatenate(chosen))
