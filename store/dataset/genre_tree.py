"""The tree of genres, where a source has one: it travels in the schema of the catalogue."""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

KEY = b"genre_parents"
Genre = TypeVar("Genre", bound=Hashable)  # a title, or a number of a source


def with_genre_parents(schema: pa.Schema, parents: Mapping[str, str]) -> pa.Schema:
    """Add the tree to a schema: the parent of each genre, by title. An empty tree leaves it as it is."""
    if not parents:
        return schema
    return schema.with_metadata({**(schema.metadata or {}), KEY: json.dumps(dict(parents)).encode()})


def genre_parents(schema: pa.Schema) -> dict[str, str]:
    """Return the parent of each genre, by title; {} where the source has no tree."""
    parents: dict[str, str] = json.loads((schema.metadata or {}).get(KEY, b"{}"))
    return parents


def ancestors(genre: Genre, parents: Mapping[Genre, Genre]) -> list[Genre]:
    """Return the genres that one is a kind of, the nearest first."""
    line = [genre]
    while (parent := parents.get(line[-1])) is not None:
        assert parent not in line, f"the genre tree has a cycle at {parent}"
        line.append(parent)
    return line[1:]


def with_ancestors(genres: Iterable[Genre], parents: Mapping[Genre, Genre]) -> set[Genre]:
    """Return some genres and all their ancestors."""
    return {it for genre in genres for it in (genre, *ancestors(genre, parents))}


def ancestor_indices(genres: Sequence[Genre], parents: Mapping[Genre, Genre]) -> list[tuple[int, ...]]:
    """Return the indices of each genre's ancestors among `genres`, the nearest first.

    An ancestor that is not among them is skipped; what lies above it counts.
    """
    index_of = {genre: index for index, genre in enumerate(genres)}
    return [tuple(index_of[it] for it in ancestors(genre, parents) if it in index_of) for genre in genres]


def parents_among(genres: Sequence[Genre], parents: Mapping[Genre, Genre]) -> dict[Genre, Genre]:
    """Return the tree between some genres: the nearest ancestor of each that is among them."""
    lines = zip(genres, ancestor_indices(genres, parents), strict=True)
    return {genre: genres[line[0]] for genre, line in lines if line}
