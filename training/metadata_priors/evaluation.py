"""What album, artist and title add to the sound: predictions of one fold's test tracks, with each set of sources.

Bodies of Dask tasks. Axes: T tracks, G genres, D features, K sources.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.catalogue.splits import group_tracks
from store.fs.parquet import read_table
from training.evaluation.probabilities import PROBABILITY_EPSILON
from training.feature_machine.feature_table import select_features
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.track_features import read_block_sizes
from training.metadata_priors.combination import SourceWeights, fit_source_weights
from training.metadata_priors.group_smoothing import mean_of_others
from training.metadata_priors.settings import Source
from training.metadata_priors.word_prior import fit_word_prior

SOUND_SCHEMA = pa.schema(
    [("track_id", pa.string()), ("is_test", pa.bool_()), ("probabilities", pa.list_(pa.float64()))]
)


@dataclass(frozen=True)
class Fold:
    """The tracks of a cross-validation, one genre each, and which fold is tested. Folds share no artist."""

    tracks: pa.Table  # rows of a catalogue
    genres: tuple[str, ...]
    fold_T: NDArray[np.int64]
    fold: int

    def is_test(self) -> NDArray[np.bool_]:
        """Return whether each track is tested. Shapes: (T,)."""
        return np.asarray(self.fold_T == self.fold)

    def truth(self) -> NDArray[np.int64]:
        """Return the index of each track's genre. Shapes: (T,)."""
        return np.array([self.genres.index(name) for name in self.tracks["genre_top"].to_pylist()], np.int64)


def predict_by_sound(fold: Fold, features_url: str, seed: int) -> pa.Table:
    """Predict the test tracks by a machine fitted on the others, and these across the other folds; SOUND_SCHEMA.

    No test track has a part in any prediction of the others: weights can be fitted on them.
    """
    table = read_table(features_url)
    features_TD = select_features(table, fold.tracks["track_id"])
    is_test_T, probability_TG = fold.is_test(), np.zeros((len(fold.fold_T), len(fold.genres)))
    target_TG = np.eye(len(fold.genres))[fold.truth()]
    machine, across_TG = fit_machine(
        features_TD[~is_test_T],
        target_TG[~is_test_T],
        group_tracks(fold.tracks)[~is_test_T],
        fold.fold_T[~is_test_T],
        read_block_sizes(table),
        "top",
        seed,
    )
    probability_TG[~is_test_T] = across_TG
    probability_TG[is_test_T] = machine.predict(features_TD[is_test_T], "top")
    columns = [fold.tracks["track_id"], is_test_T, probability_TG.tolist()]
    return pa.table(columns, names=SOUND_SCHEMA.names).cast(SOUND_SCHEMA)


def combine_sources(
    fold: Fold, sound: pa.Table, sources: Sequence[Source]
) -> tuple[NDArray[np.float64], SourceWeights]:
    """Return the probabilities of the test tracks by sound and sources together, and the weights.

    Shapes: (T_test, G). `sound` is what `predict_by_sound` returned.

    Priors and weights are fitted on the tracks of the other folds. Without sources it is the sound alone, sharpened
    by the same fit: what a source adds is not what the fit adds.
    """
    log_TG = np.log(np.array(sound["probabilities"].to_pylist()).clip(PROBABILITY_EPSILON, 1))
    is_test_T = fold.is_test()
    terms = [SOURCE_TERMS[source](fold, log_TG) for source in sources]
    weights = fit_source_weights(
        log_TG[~is_test_T], [each[~is_test_T] for each in terms], fold.truth()[~is_test_T]
    )
    return weights.combine(log_TG[is_test_T], [each[is_test_T] for each in terms]), weights


def _others_of_album(fold: Fold, log_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = fold.tracks.select(["artist", "album"]).to_pylist()
    albums = [f"{row['artist'] or ''}\0{row['album']}" if row["album"] else None for row in rows]
    return mean_of_others(log_TG, albums)


def _others_of_artist(fold: Fold, log_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean_of_others(log_TG, fold.tracks["artist"].to_pylist())


def _words_of_title(fold: Fold, log_TG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the prior of words, of each track by titles of other folds, and never of the tested one."""
    rows = fold.tracks.select(["title", "album"]).to_pylist()
    texts = [" ".join(filter(None, (row["title"], row["album"]))) for row in rows]
    artist_T, truth_T = group_tracks(fold.tracks), fold.truth()
    found_TG = np.zeros_like(log_TG)
    for out in np.unique(fold.fold_T):
        fitted = np.flatnonzero((fold.fold_T != out) & ~fold.is_test())
        applied = np.flatnonzero(fold.fold_T == out)
        prior = fit_word_prior(
            [texts[row] for row in fitted], artist_T[fitted], truth_T[fitted], len(fold.genres)
        )
        found_TG[applied] = prior.apply([texts[row] for row in applied])
    return found_TG


SOURCE_TERMS: Mapping[Source, Callable[[Fold, NDArray[np.float64]], NDArray[np.float64]]] = {
    "album": _others_of_album,
    "artist": _others_of_artist,
    "title": _words_of_title,
}
