"""Training, validation and test tracks that share no artist, no album and no recording.

Axes: T tracks, G groups of tracks that must stay together, C genres, P parts (the splits, or the folds).
"""

import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from preprocessing.catalogue.settings import SplitSettings
from store.errors import BadInput

SPLITS = ("training", "validation", "test")
TRAINING_INDEX = 0  # splits are in order of precedence: see find_cross_split_duplicates
UNASSIGNED = -1  # the part of a group that may go to any
MAX_ATTEMPTS = 20  # random orders to try before a genre in every part is taken to be impossible


def split_tracks(table: pa.Table, settings: SplitSettings, previous: pa.Table | None = None) -> pa.Table:
    """Fill or clear a catalogue's column `split` as the settings ask.

    Raises: BadInput if official splits are asked for and there are none, or as split_by_artist.

    `previous` is the table of `read_previous_splits`, if the catalogue has grown. Official splits do not
    change, except for copies of a recording in several splits: see `find_cross_split_duplicates`.
    """
    match resolve_split_mode(table, settings):
        case "official":
            if table["split"].null_count == len(table):
                raise BadInput("the catalogue has no official splits; set split.mode to artist, none or auto")
            crossing = find_cross_split_duplicates(table)
            return with_split(table, _without(table["split"], crossing)) if len(crossing) else table
        case "artist":
            return split_by_artist(table, settings, previous)
        case "none":
            return with_split(table, pa.nulls(len(table), pa.string()))


def resolve_split_mode(table: pa.Table, settings: SplitSettings) -> Literal["official", "artist", "none"]:
    """Return how a catalogue with its official splits (or none) will be split."""
    if settings.mode != "auto":
        return settings.mode
    if len(pc.unique(table["split"]).drop_null()) == len(SPLITS):
        return "official"
    has_genres = any(table[name].null_count < len(table) for name in ("genres", "genre_top"))
    return "artist" if has_genres else "none"


def find_cross_split_duplicates(table: pa.Table) -> NDArray[np.int64]:
    """Return the rows whose recording is also in another split that takes precedence.

    Test takes precedence over validation, and validation over training: a track that is tested must not
    be trained on, and test scores are what others compare with.
    """
    if "duplicate_group" not in table.column_names:
        return np.zeros(0, dtype=np.int64)
    groups_T, groups = _codes(table["duplicate_group"])
    strength_T = pc.index_in(table["split"], value_set=pa.array(SPLITS)).fill_null(-1).to_numpy()
    strongest = np.full(groups + 1, -1)  # the last is for tracks without a group, whose code is -1
    np.maximum.at(strongest, groups_T, strength_T)
    is_weaker_T = (strength_T >= 0) & (strength_T < strongest[groups_T]) & (groups_T >= 0)
    return np.flatnonzero(is_weaker_T)


def split_by_artist(table: pa.Table, settings: SplitSettings, previous: pa.Table | None = None) -> pa.Table:
    """Assign every track of a catalogue to a split, so that no artist and no recording is in two splits.

    Raises: BadInput if a genre has too few artists to be in every split.

    Each genre_top is in all splits, close to its share in each. Tracks without genre_top are
    treated as one more genre. The order of the rows does not matter.

    With `previous` splits (track_id, split), a group stays in the split that its tracks are in, and
    only new groups are assigned. A genre is then in all splits only if it has enough new
    artists. If groups of two splits turn out to be one, its tracks leave the split of lower
    precedence (see `find_cross_split_duplicates`): a track that was trained on is never tested with.
    """
    training_share = 1 - settings.validation_share - settings.test_share
    shares = dict(zip(SPLITS, (training_share, settings.validation_share, settings.test_share), strict=True))
    used = [name for name, share in shares.items() if share > 0]
    purpose = f"a split into {', '.join(used)}"
    groups_T = group_tracks(table)
    kept_G, is_out_T = _keep(table, groups_T, previous if settings.keep_existing else None)
    # A split without a share keeps its tracks, but is not one of the parts that groups are assigned to.
    part_of_split = np.array([used.index(name) if name in used else len(used) for name in SPLITS])
    kept_part_G = np.where(kept_G == UNASSIGNED, UNASSIGNED, part_of_split[kept_G])
    parts_T = _assign(table, groups_T, [shares[name] for name in used], purpose, settings.seed, kept_part_G)
    split_of_part = np.array([SPLITS.index(name) for name in used] + [UNASSIGNED])
    splits_T = np.where(kept_G[groups_T] == UNASSIGNED, split_of_part[parts_T], kept_G[groups_T])
    return with_split(table, pa.array(SPLITS, pa.string()).take(pa.array(splits_T, mask=is_out_T)))


def _keep(
    table: pa.Table, groups_T: NDArray[np.int64], previous: pa.Table | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which split each group stays in, UNASSIGNED if it is new, and which tracks leave their split.

    Shapes: (T,) -> (G,) indices into SPLITS, (T,).

    A track that left its split may have been trained on: its group can only be in training,
    unless another track has it in a split of higher precedence.
    """
    kept_G = np.full(groups_T.max(initial=-1) + 1, UNASSIGNED)
    if previous is None:
        return kept_G, np.zeros(len(table), dtype=bool)
    rows = pc.index_in(table["track_id"], value_set=previous["track_id"].combine_chunks())
    splits = pc.index_in(previous["split"].take(rows), value_set=pa.array(SPLITS))
    previous_T = splits.fill_null(UNASSIGNED).to_numpy()
    is_known_T = rows.is_valid().to_numpy()
    np.maximum.at(kept_G, groups_T, np.where(is_known_T, np.maximum(previous_T, TRAINING_INDEX), UNASSIGNED))
    is_out_T = is_known_T & (previous_T < kept_G[groups_T]) & (kept_G[groups_T] > TRAINING_INDEX)
    return kept_G, is_out_T


def assign_artist_folds(table: pa.Table, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Assign each track to a fold of a cross-validation, so that no artist is in two folds.

    Shapes: a table of T tracks -> (T,), 0 to folds - 1.
    Raises: BadInput if a genre has fewer artists than there are folds.
    """
    assert folds >= 2
    groups_T = group_tracks(table)
    free_G = np.full(groups_T.max(initial=-1) + 1, UNASSIGNED)
    return _assign(table, groups_T, [1 / folds] * folds, f"a split into {folds} folds", seed, free_G)


def group_tracks(table: pa.Table) -> NDArray[np.int64]:
    """Number the groups of tracks that must be in one split.

    Shapes: a table of T tracks -> (T,); groups are numbered in order of their least track_id.

    All tracks of an artist are a group, whatever the case and spacing of the name. A track
    without an artist is grouped with its album (and so with the artist, if only one has an album
    of that title); without an album either, it is a group of its own. Copies of a recording
    join the groups they are in, if the table has a column of copies.
    """
    rows_of_keys = _shared_keys(table)
    rows = np.concatenate([rows for rows, _ in rows_of_keys])
    first_nodes = len(table) + np.cumsum([0, *(keys.max(initial=-1) + 1 for _, keys in rows_of_keys)])
    nodes = np.concatenate(
        [keys + first for (_, keys), first in zip(rows_of_keys, first_nodes, strict=False)]
    )
    links = (np.ones(len(rows), dtype=np.int8), (rows.astype(np.int32), nodes.astype(np.int32)))
    graph = coo_array(links, shape=(first_nodes[-1], first_nodes[-1]))
    _, labels = connected_components(graph, directed=False)
    labels_T = labels[: len(table)]
    by_track_id = pc.sort_indices(table["track_id"]).to_numpy()
    _, first_T, label_T = np.unique(labels_T[by_track_id], return_index=True, return_inverse=True)
    number_of_label = np.empty(len(first_T), dtype=np.int64)
    number_of_label[np.argsort(first_T)] = np.arange(len(first_T))
    groups_T = np.empty(len(table), dtype=np.int64)
    groups_T[by_track_id] = number_of_label[label_T]
    return groups_T


def number_artists(artists: pa.ChunkedArray) -> NDArray[np.int64]:
    """Number artists, whatever the case and spacing of their names; -1 for an unknown one."""
    return _codes(artists, fold=True)[0]


def _shared_keys(table: pa.Table) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return what must not be in two splits, by kind: the rows that have one, and its number.

    The kinds are artists, albums and recordings.
    """
    artist_T = number_artists(table["artist"])
    album_T, albums = _codes(table["album"], fold=True)
    has_both_T = (artist_T >= 0) & (album_T >= 0)
    pairs = np.unique(np.column_stack([album_T, artist_T])[has_both_T], axis=0)
    artists_of_album = np.bincount(pairs[:, 0], minlength=albums + 1)
    has_own_album_T = (album_T >= 0) & ((artist_T < 0) | (artists_of_album[album_T] == 1))
    kinds = [(np.flatnonzero(artist_T >= 0), artist_T), (np.flatnonzero(has_own_album_T), album_T)]
    if "duplicate_group" in table.column_names:
        copy_T, _ = _codes(table["duplicate_group"])
        kinds.append((np.flatnonzero(copy_T >= 0), copy_T))
    return [(rows, codes_T[rows]) for rows, codes_T in kinds]


def _codes(column: pa.ChunkedArray, *, fold: bool = False) -> tuple[NDArray[np.int64], int]:
    """Number the distinct texts of a column, null and (folded) empty ones as -1; return also how many there are.

    Each text is folded once, not once a row: a catalogue may have a million rows.
    """
    encoded = column.combine_chunks().dictionary_encode()
    codes_T = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    if not fold:
        return codes_T, len(encoded.dictionary)
    number_of_name: dict[str, int] = {"": -1}
    numbers = [
        number_of_name.setdefault(_fold(text.as_py()), len(number_of_name) - 1) for text in encoded.dictionary
    ]
    return np.array([*numbers, -1], dtype=np.int64)[codes_T], len(number_of_name) - 1


def _fold(name: str) -> str:
    """Return the same text for names that differ in case, spacing or Unicode form only."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _assign(
    table: pa.Table,
    groups_T: NDArray[np.int64],
    shares_P: Sequence[float],
    purpose: str,
    seed: int,
    kept_G: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Assign each track to a part: groups whole, genres in proportion, every genre in every part.

    A group stays in its part of `kept_G`, which from P on is none of the P, unless it is UNASSIGNED.
    """
    if not len(table):
        return np.zeros(0, dtype=np.int64)
    names: list[str] = sorted(pc.unique(table["genre_top"]).drop_null().to_pylist())
    genres = pc.index_in(table["genre_top"], value_set=pa.array(names, pa.string()))
    columns = genres.fill_null(len(names)).to_numpy()
    counts_GC = np.zeros((len(kept_G), len(names) + 1), dtype=np.int32)  # the last column: no genre
    np.add.at(counts_GC, (groups_T, columns), 1)
    has_GC = counts_GC[:, :-1] > 0
    _check_artists(table, names, has_GC.sum(axis=0), len(shares_P), purpose)
    parts_G, is_missing_C = _best_assignment(counts_GC, np.array(shares_P), kept_G, seed)
    if is_missing_C.any() and (kept_G == UNASSIGNED).all():  # with kept groups it may be impossible
        raise BadInput(
            f"genre {names[int(is_missing_C.argmax())]!r}: its artists play other genres too, and no assignment "
            f"was found that has every genre in every part of {purpose}; add artists of it, leave it out, "
            "or set split.mode to none"
        )
    return parts_G[groups_T]


def _best_assignment(
    counts_GC: NDArray[np.int32], shares_P: NDArray[np.float64], kept_G: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the part of each group, and which genres are missing in a part: as few as possible.

    Shapes: (G, C) tracks of each group by genre, the last column without one, (P,), (G,) -> (G,), (C - 1,).
    """
    has_GC = counts_GC[:, :-1] > 0
    fewest: int | None = None
    for attempt in range(MAX_ATTEMPTS):
        parts_G = _assign_groups(counts_GC, shares_P, kept_G, np.random.default_rng([seed, attempt]))
        has_PC = np.array([has_GC[parts_G == part].any(axis=0) for part in range(len(shares_P))])
        missing = int((~has_PC).sum())
        if fewest is None or missing < fewest:
            fewest, best = missing, (parts_G, np.asarray(~has_PC.all(axis=0)))
        if not missing:
            break
    return best


def _check_artists(
    table: pa.Table, names: Sequence[str], artists_C: NDArray[np.int64], needed: int, purpose: str
) -> None:
    """Raise BadInput for the first genre that has fewer artists than `needed`."""
    for name, found in zip(names, artists_C, strict=True):
        if found < needed:
            of_genre = table.filter(pc.equal(table["genre_top"], name))
            artists = {artist or "unknown" for artist in pc.unique(of_genre["artist"]).to_pylist()}
            raise BadInput(
                f"genre {name!r} has {found} artist{'' if found == 1 else 's'} "
                f"({', '.join(sorted(artists))}); {purpose} that shares no artist needs {needed}; "
                "add tracks of other artists, leave this genre out, or set split.mode to none"
            )


def _assign_groups(
    counts_GC: NDArray[np.int32],
    shares_P: NDArray[np.float64],
    kept_G: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Assign the UNASSIGNED groups, largest first, each to the part that is furthest below its share of their genres.

    Shapes: (G, C) tracks of each group by genre, (P,), (G,) -> (G,) the part of each group.

    If a genre has only as many groups left as parts that have none of it yet, those parts
    come first, whatever their share.
    """
    weights_GC = counts_GC / np.maximum(counts_GC.sum(axis=0), 1)
    deficit_PC = np.repeat(shares_P[:, None], counts_GC.shape[1], axis=1)
    has_PC = np.zeros(deficit_PC.shape, dtype=bool)
    for part in range(len(shares_P)):
        deficit_PC[part] -= weights_GC[kept_G == part].sum(axis=0)
        has_PC[part] = (counts_GC[kept_G == part] > 0).any(axis=0)
    left_C = (counts_GC[kept_G == UNASSIGNED] > 0).sum(axis=0)
    shuffled = rng.permutation(len(counts_GC))
    ties_GP = rng.random((len(counts_GC), len(shares_P))) * 1e-9
    parts_G = kept_G.copy()
    largest_first = shuffled[np.argsort(-weights_GC.sum(axis=1)[shuffled], kind="stable")]
    for group in largest_first[kept_G[largest_first] == UNASSIGNED]:
        own_C = np.flatnonzero(counts_GC[group])
        own_deficit_PC = deficit_PC[:, own_C]
        urgent_PC = ~has_PC[:, own_C] & (left_C[own_C] <= (~has_PC[:, own_C]).sum(axis=0))
        need_P = own_deficit_PC @ weights_GC[group, own_C] + ties_GP[group]
        part = int(np.lexsort((need_P, urgent_PC.sum(axis=1)))[-1])
        parts_G[group] = part
        deficit_PC[part, own_C] -= weights_GC[group, own_C]
        has_PC[part, own_C] = True
        left_C[own_C] -= 1
    return parts_G


def _without(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Make some rows of a column null."""
    is_out = np.zeros(len(column), dtype=bool)
    is_out[rows] = True
    return pc.if_else(pa.array(is_out), None, column)


def with_split(table: pa.Table, splits: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return a catalogue with other splits."""
    return table.set_column(table.schema.get_field_index("split"), "split", splits)
