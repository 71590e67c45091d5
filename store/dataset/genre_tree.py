"""The tree of genres, where a source has one: it travels in the schema of the catalogue."""

import json
from collections.abc import Mapping

import pyarrow as pa

KEY = b"genre_parents"


def with_genre_parents(schema: pa.Schema, parents: Mapping[str, str]) -> pa.Schema:
    """Note in a schema which genre (its title) is a kind of which; where there is no tree it stays as it is."""
    if not parents:
        return schema
    return schema.with_metadata({**(schema.metadata or {}), KEY: json.dumps(dict(parents)).encode()})


def genre_parents(schema: pa.Schema) -> dict[str, str]:
    """Give the title of each genre's parent by its own; {} where there is no tree, or none was noted."""
    parents: dict[str, str] = json.loads((schema.metadata or {}).get(KEY, b"{}"))
    return parents
