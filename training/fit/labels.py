"""The tracks and the genres that a network is trained on, chosen by column: there may be a million tracks.

Axes: T tracks, G genres, N pairs of a track and one of its genres.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.catalogue.splits import SPLITS, number_artists
from store.dataset.frame_reader import LOCATION_COLUMNS
from store.errors import BadInput
from training.evaluation.calibration import Target
from training.fit.run import LABELLED_SCHEMA
from training.loading.settings import Balance, needs_artists


def label_columns(target: Target, balance: Balance) -> tuple[str, ...]:
    """Return the columns of a catalogue by which tracks are chosen."""
    artist = ("artist",) if needs_artists(balance) else ()
    return ("split", "genres" if target == "multi" else "genre_top", *artist)


def select_training_genres(tracks: pa.Table, target: Target, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the genres to train on: those wanted, or all that a training track has.

    Raises: BadInput if one that is wanted has no training track, or fewer than two are left.
    """
    labels = tracks.filter(pc.and_(pc.equal(tracks["split"], "training"), pc.is_valid(tracks["shard"])))
    column = pc.list_flatten(labels["genres"]) if target == "multi" else labels["genre_top"]
    known = sorted(genre for genre in pc.unique(column).to_pylist() if genre is not None)
    for genre in wanted:
        if genre not in known:
            raise BadInput(
                f"genre {genre!r}: no training track has it; the snapshot has {', '.join(known) or 'no genres'}"
            )
    chosen = tuple(sorted(set(wanted))) or tuple(known)
    if len(chosen) < 2:
        raise BadInput(
            f"{len(chosen)} genre to train on ({', '.join(chosen)}); need two or more: "
            "build from a source with genres and a split"
        )
    return chosen


def select_labelled_tracks(tracks: pa.Table, target: Target, genres: Sequence[str]) -> pa.Table:
    """Return the tracks that have a spectrogram, a split and one of the genres, with targets and locations.

    Shapes: rows of LABELLED_SCHEMA; artists are null if `tracks` has no column of them.
    Raises: BadInput if a split has none.
    """
    usable_T = pc.and_(pc.is_valid(tracks["shard"]), pc.is_in(tracks["split"], value_set=pa.array(SPLITS)))
    target_TG = _targets(tracks, target, genres)
    wanted_T = target_TG.any(axis=1) & usable_T.to_numpy()
    labelled = tracks.select(["track_id", "split", *LOCATION_COLUMNS]).filter(pa.array(wanted_T))
    for split in SPLITS:
        if not pc.any(pc.equal(labelled["split"], split)).as_py():
            raise BadInput(
                f"no {split} track has one of the genres {', '.join(genres)}; build with --catalogue.split.mode artist"
            )
    values = target_TG[wanted_T].ravel()
    offsets = np.arange(len(labelled) + 1, dtype=np.int32) * len(genres)
    targets = pa.ListArray.from_arrays(offsets, values)
    labelled = labelled.append_column("target", targets).append_column(
        "artist_number", _artists(tracks, wanted_T)
    )
    return labelled.select(LABELLED_SCHEMA.names).cast(LABELLED_SCHEMA)


def _artists(tracks: pa.Table, is_wanted_T: NDArray[np.bool_]) -> pa.Array:
    """Number the artists of some of the tracks; null for an unknown one."""
    if "artist" not in tracks.column_names:
        return pa.nulls(int(is_wanted_T.sum()), pa.int32())
    artist_T = number_artists(tracks["artist"].filter(pa.array(is_wanted_T))).astype(np.int32)
    return pa.array(artist_T, mask=artist_T < 0)


def _targets(tracks: pa.Table, target: Target, genres: Sequence[str]) -> NDArray[np.int8]:
    """Return whether each track has each genre. Shapes: (T, G)."""
    if target == "top":
        track_N, genre_N = np.arange(len(tracks)), tracks["genre_top"]
    else:
        lists = tracks["genres"].combine_chunks()
        track_N, genre_N = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    index_N = pc.fill_null(pc.index_in(genre_N, value_set=pa.array(genres)), -1).to_numpy()
    target_TG = np.zeros((len(tracks), len(genres)), np.int8)
    target_TG[track_N[index_N >= 0], index_N[index_N >= 0]] = 1
    return target_TG
