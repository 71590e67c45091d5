"""A hash of a table's content, taken by column: of a million rows in a fraction of a second."""

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


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
    if pa.types.is_list(array.type):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy().tobytes())
        _hash_values(array.flatten(), digest)
    elif pa.types.is_string(array.type):
        digest.update(pc.fill_null(pc.binary_length(array), 0).to_numpy().tobytes())
        if len(array):
            first, last = np.frombuffer(array.buffers()[1], np.int32)[
                [array.offset, array.offset + len(array)]
            ]
            digest.update(memoryview(array.buffers()[2])[first:last])
    else:
        digest.update(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes())
