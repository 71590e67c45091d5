"""Training, validation and test tracks that share no artist and no album.

Axes: G groups of tracks that must stay together, C genres, P parts (the splits, or the folds).
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from store.errors import BadInput

SPLITS = ("training", "validation", "test")
ATTEMPTS = 20  # drawings before artists who play several genres are given up on


class SplitSettings(BaseModel):
    """How the tracks are parted into training, validation and test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["auto", "official", "artist", "none"] = Field(
        default="auto",
        description="official: as the catalogue says; artist: no artist in two splits, each genre in all; "
        "none: no splits; auto: official if the catalogue has all three, else artist if it has genres, "
        "else none",
    )
    validation_share: float = Field(
        default=0.1, ge=0, lt=1, description="Part of each genre's tracks for validation (mode artist)"
    )
    test_share: float = Field(
        default=0.1, ge=0, lt=1, description="Part of each genre's tracks for the test (mode artist)"
    )
    seed: int = Field(default=0, ge=0, description="Seed of the drawing (mode artist)")

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share} + test_share {self.test_share} "
                "leave nothing for training; wanted a sum below 1"
            )
        return self


def split_tracks(table: pa.Table, settings: SplitSettings) -> pa.Table:
    """Fill or clear a catalogue's column `split` as the settings ask.

    Raises: BadInput if official splits are asked for and there are none, or as split_by_artist.
    """
    mode = settings.mode
    official = set(table["split"].to_pylist()) - {None}
    if mode == "auto":
        has_genres = any(table[name].null_count < len(table) for name in ("genres", "genre_top"))
        mode = "official" if len(official) == len(SPLITS) else "artist" if has_genres else "none"
    match mode:
        case "official":
            if not official:
                raise BadInput("the catalogue has no official splits; set split.mode to artist, none or auto")
            return table
        case "artist":
            return split_by_artist(table, settings)
        case "none":
            return _with_split(table, [None] * len(table))


def split_by_artist(table: pa.Table, settings: SplitSettings) -> pa.Table:
    """Give every track of a catalogue a split, so that no artist is in two of them.

    Raises: BadInput if a genre has too few artists to be in every split.

    Each genre_top comes close to its share in each split, and is in all of them. Tracks
    without genre_top are parted too, as if they were one genre. The order of the rows
    does not matter.
    """
    training_share = 1 - settings.validation_share - settings.test_share
    shares = dict(zip(SPLITS, (training_share, settings.validation_share, settings.test_share), strict=True))
    wanted = [name for name, share in shares.items() if share > 0]
    purpose = f"a split into {', '.join(wanted)}"
    parts = _part(table, [shares[name] for name in wanted], purpose, settings.seed)
    return _with_split(table, [wanted[part] for part in parts])


def artist_folds(table: pa.Table, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Number the fold of each track for cross-validation, so that no artist is in two of them.

    Shapes: a table of T tracks -> (T,), 0 to folds - 1.
    Raises: BadInput if a genre has fewer artists than there are folds.
    """
    assert folds >= 2
    return _part(table, [1 / folds] * folds, f"a split into {folds} folds", seed)


def group_tracks(table: pa.Table) -> NDArray[np.int64]:
    """Number the groups of tracks that must stay on one side of any split.

    Shapes: a table of T tracks -> (T,); groups are numbered in order of their least track_id.

    All tracks of an artist are a group, whatever the case and spacing of the name. A track
    without an artist goes with its album (and so with the artist, if only one has an album
    of that title); without an album either, it stands alone.
    """
    track_ids: list[str] = table["track_id"].to_pylist()
    keys_of_track = _shared_keys(table)
    number_of_key: dict[tuple[str, str], int] = {}
    links = [
        (row, number_of_key.setdefault(key, len(number_of_key)))
        for row, keys in enumerate(keys_of_track)
        for key in keys
    ]
    nodes = len(track_ids) + len(number_of_key)
    rows, keys = np.array(links, dtype=np.int64).reshape(-1, 2).T
    ends = (rows, keys + len(track_ids))
    graph = coo_array((np.ones(len(links), dtype=np.int8), ends), shape=(nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    number_of_label: dict[int, int] = {}
    for row in sorted(range(len(track_ids)), key=track_ids.__getitem__):
        number_of_label.setdefault(int(labels[row]), len(number_of_label))
    return np.array([number_of_label[int(label)] for label in labels[: len(track_ids)]], dtype=np.int64)


def _shared_keys(table: pa.Table) -> list[list[tuple[str, str]]]:
    """Name, for each track, what it must not share with a track of another split."""
    artists = [_fold(name) for name in table["artist"].to_pylist()]
    albums = [_fold(name) for name in table["album"].to_pylist()]
    artists_of_album: defaultdict[str, set[str]] = defaultdict(set)
    for artist, album in zip(artists, albums, strict=True):
        if artist and album:
            artists_of_album[album].add(artist)
    keys_of_track = []
    for artist, album in zip(artists, albums, strict=True):
        keys = [("artist", artist)] if artist else []
        if album and (not artist or len(artists_of_album[album]) == 1):
            keys.append(("album", album))
        keys_of_track.append(keys)
    return keys_of_track


def _fold(name: str | None) -> str:
    """Make names that differ in case, spacing or Unicode form equal."""
    return " ".join(unicodedata.normalize("NFKC", name or "").casefold().split())


def _part(table: pa.Table, shares_P: Sequence[float], purpose: str, seed: int) -> NDArray[np.int64]:
    """Number the part of each track: groups whole, genres in proportion, every genre in every part."""
    if not len(table):
        return np.zeros(0, dtype=np.int64)
    groups = group_tracks(table)
    genres: list[str | None] = table["genre_top"].to_pylist()
    names = sorted({genre for genre in genres if genre is not None})
    column_of_genre: dict[str | None, int] = {name: column for column, name in enumerate(names)}
    columns = np.array([column_of_genre.get(genre, len(names)) for genre in genres])
    counts_GC = np.zeros((groups.max() + 1, len(names) + 1))  # the last column: no genre
    np.add.at(counts_GC, (groups, columns), 1)
    holds_GC = counts_GC[:, :-1] > 0
    _check_artists(table, names, holds_GC.sum(axis=0), len(shares_P), purpose)
    lacking: list[str] = []
    for attempt in range(ATTEMPTS):
        part_of_group = _deal(counts_GC, np.array(shares_P), np.random.default_rng([seed, attempt]))
        held_PC = [holds_GC[part_of_group == part].any(axis=0) for part in range(len(shares_P))]
        lacking = [names[genre] for genre in np.flatnonzero(~np.all(held_PC, axis=0))]
        if not lacking:
            return part_of_group[groups]
    raise BadInput(
        f"genre {lacking[0]!r}: its artists play other genres too, and no way was found to have every genre "
        f"in every part of {purpose}; add artists of it, leave it out, or set split.mode to none"
    )


def _check_artists(
    table: pa.Table, names: Sequence[str], artists_C: NDArray[np.int64], wanted: int, purpose: str
) -> None:
    """Raises: BadInput for the first genre that has fewer artists than `wanted`."""
    for name, found in zip(names, artists_C, strict=True):
        if found < wanted:
            tracks = table.select(["genre_top", "artist"]).to_pylist()
            artists = {track["artist"] or "unknown" for track in tracks if track["genre_top"] == name}
            raise BadInput(
                f"genre {name!r} has {found} artist{'' if found == 1 else 's'} "
                f"({', '.join(sorted(artists))}); {purpose} that shares no artist needs {wanted}; "
                "add tracks of other artists, leave this genre out, or set split.mode to none"
            )


def _deal(
    counts_GC: NDArray[np.float64], shares_P: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal the groups out, largest first, each to the part that most lacks its genres.

    Shapes: (G, C) tracks of each group by genre, (P,) -> (G,) the part of each group.

    Where the groups left of a genre are just enough for the parts that have none of it
    yet, those parts come first, whatever their share.
    """
    weights_GC = counts_GC / np.maximum(counts_GC.sum(axis=0), 1)
    lacks_PC = np.repeat(shares_P[:, None], counts_GC.shape[1], axis=1)
    holds_PC = np.zeros(lacks_PC.shape, dtype=bool)
    left_C = (counts_GC > 0).sum(axis=0)
    shuffled = rng.permutation(len(counts_GC))
    ties_GP = rng.random((len(counts_GC), len(shares_P))) * 1e-9
    part_of_group = np.zeros(len(counts_GC), dtype=np.int64)
    for group in shuffled[np.argsort(-weights_GC.sum(axis=1)[shuffled], kind="stable")]:
        own_C = np.flatnonzero(counts_GC[group])
        own_lacks_PC = lacks_PC[:, own_C]
        urgent_PC = ~holds_PC[:, own_C] & (left_C[own_C] <= (~holds_PC[:, own_C]).sum(axis=0))
        need_P = own_lacks_PC @ weights_GC[group, own_C] + ties_GP[group]
        part = int(np.lexsort((need_P, urgent_PC.sum(axis=1)))[-1])
        part_of_group[group] = part
        lacks_PC[part, own_C] -= weights_GC[group, own_C]
        holds_PC[part, own_C] = True
        left_C[own_C] -= 1
    return part_of_group


def _with_split(table: pa.Table, splits: Sequence[str | None]) -> pa.Table:
    return table.set_column(table.schema.get_field_index("split"), "split", pa.array(splits, pa.string()))
