"""The splits of a study: the store's, folds that share no artist, and random folds that do.

Axes: T tracks.
"""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.catalogue.splits import SPLITS, assign_artist_folds, with_split
from store.errors import BadInput
from training.selection.cross_validation import split_fold
from training.studies.settings import SplitKind


def split_study(
    labelled: pa.Table, kind: SplitKind, *, folds: int, validation_share: float, seed: int
) -> list[pa.Table]:
    """Return the tracks with their splits, once for each fold; official splits are a single one.

    Raises: BadInput if a genre has fewer artists than folds, or the store has no official splits.
    """
    if kind == "official":
        return [_official(labelled)]
    fold_T = (
        assign_artist_folds(labelled, folds, seed)
        if kind == "artist"
        else random_folds(labelled, folds, seed)
    )
    return [
        _with_validation(labelled, fold_T == fold, validation_share, seed, by_artist=kind == "artist")
        for fold in range(folds)
    ]


def random_folds(labelled: pa.Table, folds: int, seed: int) -> NDArray[np.int64]:
    """Assign tracks to folds at random, each genre in equal parts, whatever their artists. Shapes: (T,)."""
    genre_T = pc.dictionary_encode(labelled["genre_top"]).combine_chunks().indices.fill_null(-1).to_numpy()
    fold_T = np.empty(len(labelled), np.int64)
    random = np.random.default_rng([seed, folds])
    first = 0  # the fold where a genre begins, so that the folds are of equal size
    for genre in np.unique(genre_T):
        rows = random.permutation(np.flatnonzero(genre_T == genre))
        fold_T[rows] = (first + np.arange(len(rows))) % folds
        first += len(rows)
    return fold_T


def count_artists(labelled: pa.Table, genres: Sequence[str]) -> dict[str, int]:
    """Return the number of artists of each genre; tracks of unknown artist count as one artist each."""
    rows = labelled.select(["track_id", "artist", "genre_top"]).to_pylist()
    artists: dict[str, set[tuple[str, str]]] = {genre: set() for genre in genres}
    for row in rows:
        if row["genre_top"] in artists:
            key = ("artist", row["artist"]) if row["artist"] else ("track", row["track_id"])
            artists[row["genre_top"]].add(key)
    return {genre: len(names) for genre, names in artists.items()}


def share_of_known_artists(tracks: pa.Table) -> float:
    """Return the share of the test tracks whose artist has a track outside the test set, too."""
    is_test = pc.equal(tracks["split"], "test")
    test = tracks["artist"].filter(is_test).to_pylist()
    others = set(tracks["artist"].filter(pc.invert(is_test)).to_pylist()) - {None}
    return sum(artist in others for artist in test) / max(len(test), 1)


def _official(labelled: pa.Table) -> pa.Table:
    tracks = labelled.filter(pc.is_in(labelled["split"], value_set=pa.array(SPLITS)))
    found = set(pc.unique(tracks["split"]).to_pylist())
    if found != set(SPLITS):
        raise BadInput(
            f"the tracks of these genres have the splits {', '.join(sorted(found)) or 'none'}, and not all of "
            f"{', '.join(SPLITS)}; use --splits artist, or build with --catalogue.split.mode artist"
        )
    return tracks


def _with_validation(
    labelled: pa.Table, is_test_T: NDArray[np.bool_], share: float, seed: int, *, by_artist: bool
) -> pa.Table:
    if by_artist:
        # Not with a genre of one artist outside the test set: the epoch is chosen by tracks of that artist, too.
        with suppress(BadInput):
            return split_fold(labelled, is_test_T, share, seed)
    rest, test = labelled.filter(pa.array(~is_test_T)), labelled.filter(pa.array(is_test_T))
    is_validation_T = random_folds(rest, max(2, round(1 / share)), seed) == 0
    splits = pa.array(np.where(is_validation_T, "validation", "training").tolist(), pa.string())
    return pa.concat_tables([with_split(rest, splits), with_split(test, pa.repeat("test", len(test)))])
