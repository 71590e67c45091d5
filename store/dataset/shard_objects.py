"""The storage objects of a shard: uncompressed chunks, end to end, then the index of Zarr's sharding codec.

Since chunks are neither compressed nor checksummed one by one, any frames of an object are one range of its bytes.
"""

import google_crc32c
import numpy as np
from numpy.typing import NDArray

CHUNK_FRAMES = 256  # the unit in which other Zarr readers read, and to which the end of a shard is padded
OBJECT_FRAMES = 65_536  # the unit of storage, a file or object: 8 MiB of uint8 at 128 bands
CHUNKS = OBJECT_FRAMES // CHUNK_FRAMES
INDEX_BYTES = CHUNKS * 16 + 4  # offset and length of each chunk, then a CRC-32C
ABSENT = 2**64 - 1  # of offset and length of a chunk that is not there
METADATA_FILE = "zarr.json"


def encode_index(chunks: int, chunk_bytes: int) -> bytes:
    """Return the index of an object whose first `chunks` chunks are there."""
    entries = np.full((CHUNKS, 2), ABSENT, "<u8")
    entries[:chunks, 0] = np.arange(chunks, dtype=np.uint64) * np.uint64(chunk_bytes)
    entries[:chunks, 1] = chunk_bytes
    index = entries.tobytes()
    crc32c: int = google_crc32c.value(index)
    return index + crc32c.to_bytes(4, "little")


def count_chunks(tail: bytes, size_bytes: int, chunk_bytes: int) -> int:
    """Return the number of chunks of an object of `size_bytes` that ends with `tail`, at least its index.

    Raises: ValueError if the index is damaged, or is not of `chunk_bytes` a chunk, end to end.
    """
    chunks, rest = divmod(size_bytes - INDEX_BYTES, chunk_bytes)
    if chunks < 0 or rest or chunks > CHUNKS or tail[-INDEX_BYTES:] != encode_index(chunks, chunk_bytes):
        raise ValueError("its index is damaged, or its size is wrong")
    return chunks


def pad_to_chunks(rows_FM: NDArray[np.generic]) -> NDArray[np.generic]:
    """Repeat the last frame to the end of its chunk."""
    missing = -len(rows_FM) % CHUNK_FRAMES
    return np.pad(rows_FM, ((0, missing), (0, 0)), mode="edge") if missing else rows_FM
