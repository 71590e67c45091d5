"""Parquet tables, written whole and read by column."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from store.errors import BadInput
from store.fs.files import read_bytes, write_atomic


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def write_table(url: str, table: pa.Table) -> None:
    """Write a table to `url`, replacing an existing file in one step."""
    write_atomic(url, to_parquet(table))


def read_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or those of `columns` that it has. Raises: FileNotFoundError; BadInput if it is damaged."""
    content = pa.BufferReader(read_bytes(url))
    try:
        file = pq.ParquetFile(content, page_checksum_verification=True)
        present = columns and [name for name in columns if name in file.schema_arrow.names]
        return file.read(present, use_threads=False)  # threads need more memory here, and no less time
    except (pa.ArrowException, OSError) as why:  # its bytes are in memory: no disk can fail here
        raise BadInput(f"{url}: this Parquet file is damaged ({why}); restore it from a backup") from None
