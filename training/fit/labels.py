"""The tracks and the genres that a network is trained on."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.catalogue.splits import SPLITS
from store.errors import BadInput
from training.evaluation.calibration import Target
from training.fit.run import TRACKS_SCHEMA


def select_training_genres(tracks: pa.Table, target: Target, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the genres to train on: those wanted, or all that a training track has.

    Raises: BadInput if one that is wanted has no training track, or fewer than two are left.
    """
    labels = tracks.filter(pc.and_(pc.equal(tracks["split"], "training"), pc.is_valid(tracks["shard"])))
    column = pc.list_flatten(labels["genres"]) if target == "multi" else labels["genre_top"]
    known = sorted(genre for genre in set(column.to_pylist()) if genre is not None)
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
    """Return the tracks that have a spectrogram, a split and one of the genres, with their targets.

    Raises: BadInput if a split has none.
    """
    rows = [
        {"track_id": row["track_id"], "split": row["split"], "target": targets}
        for row in tracks.select(["track_id", "split", "shard", "genre_top", "genres"]).to_pylist()
        if row["shard"] and row["split"] in SPLITS
        for targets in [_targets(row["genre_top"], row["genres"] or [], target, genres)]
        if any(targets)
    ]
    for split in SPLITS:
        if not any(row["split"] == split for row in rows):
            raise BadInput(
                f"no {split} track has one of the genres {', '.join(genres)}; build with --catalogue.split.mode artist"
            )
    return pa.Table.from_pylist(rows, schema=TRACKS_SCHEMA)


def restrict_genre_tree(genres: Sequence[str], tree: Mapping[str, str]) -> dict[str, str]:
    """Return for each genre its nearest ancestor in the tree among the same genres, where there is one."""
    parents = {}
    for genre in genres:
        ancestor = tree.get(genre)
        while ancestor is not None and ancestor not in genres:
            ancestor = tree.get(ancestor)
        if ancestor is not None:
            parents[genre] = ancestor
    return parents


def _targets(
    genre_top: str | None, all_genres: Sequence[str], target: Target, genres: Sequence[str]
) -> list[int]:
    has = {genre_top} if target == "top" else set(all_genres)
    return [int(genre in has) for genre in genres]
