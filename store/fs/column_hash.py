"""A hash of a table's content, taken by column: of a million rows in a fraction of a second."""

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS_AT_ONCE = 1 << 16


class Digest(Protocol):
    """A hash that is fed piece by piece, as those of hashlib."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add some bytes."""


def hash_columns(table: pa.Table, digest: Digest) -> None:
    """Feed names and values of all columns to `digest`, however they lie in memory."""
    for name in table.column_names:
        digest.update(f"{name} {len(table)} ".encode())
        _hash_values(table[name].combine_chunks(), digest)


def _hash_values(array: pa.Array, digest: Digest) -> None:
    if isinstance(array, pa.ChunkedArray):  # combine_chunks returns one where an array would be too large
        for chunk in array.chunks:
            _hash_values(chunk, digest)
        return
    digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_dictionary(array.type):
        _hash_texts(array, digest)
    elif pa.types.is_list(array.type):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy().tobytes())
        _hash_values(array.flatten(), digest)
    elif pa.types.is_string(array.type):
        digest.update(pc.fill_null(pc.binary_length(array), 0).to_numpy().tobytes())
        _hash_bytes(array, digest)
    else:
        digest.update(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes())


def _hash_texts(array: pa.DictionaryArray, digest: Digest) -> None:
    """Feed the texts of a dictionary as those of a plain column, whatever its order: a part at a time."""
    length_D = pc.binary_length(array.dictionary)
    digest.update(pc.fill_null(length_D.take(array.indices), 0).to_numpy().tobytes())
    for first in range(0, len(array), ROWS_AT_ONCE):
        _hash_bytes(array.slice(first, ROWS_AT_ONCE).dictionary_decode(), digest)


def _hash_bytes(array: pa.StringArray, digest: Digest) -> None:
    if len(array):
        first, last = np.frombuffer(array.buffers()[1], np.int32)[[array.offset, array.offset + len(array)]]
        digest.update(memoryview(array.buffers()[2] or b"")[first:last])
