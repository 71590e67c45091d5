"""The journal of a run: the state of files before it changed them, in Parquet, a part for each attempt at a batch.

ROOT/RUN/journal/BATCH-ATTEMPT.parquet      on disk before the first file of the batch is touched

A row contains the digests of a file before and after the change. So a row is harmless if its run died before it
changed the file: only a file with the new bytes is restored.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from store.fs.files import join, list_names, read_bytes, write_atomic
from store.fs.parquet import row_count

DIGEST_BYTES = 16
BLOCK_BYTES = 1 << 20
SUFFIX = ".parquet"

JOURNAL_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),  # the path within the source
        ("url", pa.string()),
        ("old_digest", pa.binary(DIGEST_BYTES)),  # of all bytes of the file, blake2b
        ("new_digest", pa.binary(DIGEST_BYTES)),
        ("delta", pa.binary()),  # computes the old bytes from the new ones (byte_delta.py); null: too long
        ("old_genres", pa.list_(pa.string())),
        ("old_custom_tags", pa.map_(pa.string(), pa.string())),
        ("mtime_ns", pa.int64()),  # of the file before
        ("old_owner", pa.list_(pa.int64(), 2)),  # user and group, if the file changed hands; else null
        ("new_owner", pa.list_(pa.int64(), 2)),
        ("version", pa.string()),  # of the object before, where a bucket keeps versions
    ]
)


def write_entries(journal_url: str, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write durably what one attempt at the batch `name` is about to change, and return the URL of the part."""
    url = join(journal_url, f"{name}-{uuid4().hex[:12]}{SUFFIX}")
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(list(rows), schema=JOURNAL_SCHEMA)
    # Statistics, dictionaries and Arrow's own schema would take more room than the rows of a small part.
    settings = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    pq.write_table(table, sink, compression="zstd", **settings)
    write_atomic(url, sink.getvalue().to_pybytes())
    return url


def list_journalled_batches(journal_url: str) -> list[str]:
    """Return the names of the batches that have a journal, sorted."""
    return sorted({part.rsplit("-", 1)[0] for part in _parts(journal_url)})


def read_journal(journal_url: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of all attempts at a batch; none if it has no journal."""
    parts = (part for part in _parts(journal_url) if part.rsplit("-", 1)[0] == name)
    return [row for part in parts for row in read_entries(join(journal_url, part))]


def count_entries(journal_url: str) -> Counter[str]:
    """Return the number of rows of each batch, of all attempts at it."""
    counts: Counter[str] = Counter()
    for part in _parts(journal_url):
        counts[part.rsplit("-", 1)[0]] += row_count(join(journal_url, part))
    return counts


def _parts(journal_url: str) -> list[str]:
    """Return the names of the parts, without the hidden drafts of killed processes."""
    return [name for name in list_names(journal_url) if name.endswith(SUFFIX) and not name.startswith(".")]


def read_entries(url: str) -> list[dict[str, Any]]:
    """Return the rows of one part of a journal."""
    table = pq.ParquetFile(pa.BufferReader(read_bytes(url))).read(use_threads=False)
    rows: list[dict[str, Any]] = table.cast(JOURNAL_SCHEMA).to_pylist(maps_as_pydicts="strict")
    return rows


def digest_file(path: Path) -> bytes:
    """Hash all bytes of a file."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.digest()
