"""Parquet tables, written whole and read by column."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import BadInput
from store.fs.files import local_path, read_bytes, write_atomic


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def write_table(url: str, table: pa.Table) -> None:
    """Write a table to `url`, replacing an existing file in one step."""
    write_atomic(url, to_parquet(table))


def row_count(url: str) -> int:
    """Return the number of rows of a table. Raises: FileNotFoundError."""
    rows: int = pq.read_metadata(pa.BufferReader(read_bytes(url))).num_rows
    return rows


def read_table(url: str, columns: Sequence[str] | None = None, *, encoded: Sequence[str] = ()) -> pa.Table:
    """Read a table, or those of `columns` that it has; `encoded` are columns of few texts, returned as dictionaries.

    Raises: FileNotFoundError; BadInput if the file is damaged; OSError if the disk or the server fails.
    """
    with _open(url, columns) as source:
        try:
            file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=list(encoded))
            present = columns and [name for name in columns if name in file.schema_arrow.names]
            return file.read(present, use_threads=False)  # threads need more memory here, and no less time
        except (pa.ArrowException, OSError) as why:
            if isinstance(why, OSError) and why.errno is not None:
                raise  # of the disk; of damage, pyarrow raises errors without a number
            raise BadInput(f"{url}: this Parquet file is damaged ({why}); restore it from a backup") from None


def _open(url: str, columns: Sequence[str] | None) -> pa.NativeFile:
    """Open a file; of a local one, only the columns that are wanted are read from the disk."""
    path = local_path(url)
    return pa.BufferReader(read_bytes(url)) if path is None or columns is None else pa.OSFile(str(path))
