"""Tables of a dataset, stored as Parquet files that are never changed: a commit adds a part, and merges small ones.

The name of a part is ROWS-HASH-RANDOM.parquet. The hash is of its content. The random end makes it unique,
so that a part which a sweep removes can never be one that another writer has found and relies on.
"""

import hashlib
from contextlib import suppress
from itertools import takewhile
from uuid import uuid4

import pyarrow as pa

from store.fs.files import join, last_part, put_if_absent, read_bytes
from store.fs.parquet import read_table, to_parquet

MERGED_ROWS = 65_536  # a part of so many rows is not merged again
MAX_SMALL_PARTS = 16
HASH_DIGITS = 32


def put_part(root: str, folder: str, table: pa.Table) -> str:
    """Store a table under a name never used before, and return that name, relative to the root."""
    data = to_parquet(table)
    name = f"{folder}/{len(table)}-{_digest(data)}-{uuid4().hex[:12]}.parquet"
    with suppress(FileExistsError):  # nobody else has that name: a request that was repeated was refused
        put_if_absent(join(root, name), data)
    return name


def append_part(root: str, folder: str, parts: tuple[str, ...], table: pa.Table) -> tuple[str, ...]:
    """Store the rows that follow those of `parts`; return the names of all parts, oldest first.

    When many small parts have gathered at the end, they become one: so the number of parts grows with
    the rows, not with the commits, and a row is written about three times in all.
    """
    if not len(table):
        return parts
    small = len(list(takewhile(lambda name: part_rows(name) < MERGED_ROWS, reversed(parts))))
    if small + 1 < MAX_SMALL_PARTS:
        return (*parts, put_part(root, folder, table))
    before, merged = parts[: len(parts) - small], parts[len(parts) - small :]
    rows = pa.concat_tables([*(read_table(join(root, name)) for name in merged), table])
    return (*before, put_part(root, folder, rows))


def part_rows(name: str) -> int:
    """Return the number of rows of a part."""
    return int(last_part(name).split("-", 1)[0])


def has_content(name: str, folder: str, table: pa.Table) -> bool:
    """Return whether a part is of this content."""
    return name.startswith(f"{folder}/{len(table)}-{_digest(to_parquet(table))}-")


def is_intact(root: str, name: str) -> bool:
    """Return whether a part has the content that its name states. Raises: FileNotFoundError, OSError."""
    return name.split("-")[1] == _digest(read_bytes(join(root, name)))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]
