"""Checksums of the files of a shard: of each file, and of the stored bytes of each inner chunk in it.

They are of stored bytes, so they hold for any codec. An inner chunk is found by the index of Zarr's sharding
codec, which is the end of each object: offset and length of each chunk, then a CRC-32C of these.
"""

from dataclasses import dataclass

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from store.dataset.shard_objects import ABSENT, METADATA_FILE

ENTRY_BYTES, CRC_BYTES = 16, 4
FILES_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("path", pa.string()),  # within the shard: zarr.json, c/0/0, c/1/0
        ("size_bytes", pa.int64()),
        ("crc32c", pa.uint32()),  # of the whole file
        ("chunk_frames", pa.int32()),  # frames of an inner chunk; null for zarr.json
        ("chunk_crc32c", pa.list_(pa.uint32())),  # of each inner chunk, 0 if it is absent; null for zarr.json
    ]
)


@dataclass(frozen=True)
class StoredFile:
    """One file of a shard, as it was written."""

    path: str
    size_bytes: int
    crc32c: int
    chunk_frames: int | None
    chunk_crc32c: tuple[int, ...] | None

    @property
    def first_frame(self) -> int:
        """The frame of the shard that an object begins with."""
        assert self.chunk_frames is not None
        assert self.chunk_crc32c is not None
        return int(self.path.split("/")[1]) * self.chunk_frames * len(self.chunk_crc32c)


def checksum_file(path: str, content: bytes, *, chunk_frames: int, chunks: int) -> StoredFile:
    """Return the size and the checksums of a file of a shard; an object has at most `chunks` inner chunks."""
    crc32c = google_crc32c.value(content)
    if path == METADATA_FILE:
        return StoredFile(path, len(content), crc32c, None, None)
    sums = tuple(google_crc32c.value(content[start:stop]) for start, stop in chunk_ranges(content, chunks))
    return StoredFile(path, len(content), crc32c, chunk_frames, sums)


def chunk_ranges(content: bytes, chunks: int) -> list[tuple[int, int]]:
    """Return where each inner chunk of an object starts and stops; (0, 0) for one that is absent.

    Raises: ValueError if the index at the end of the object is damaged.
    """
    end = len(content) - CRC_BYTES
    index = content[max(0, end - chunks * ENTRY_BYTES) : end]
    stated = int.from_bytes(content[-CRC_BYTES:], "little")
    if len(index) != chunks * ENTRY_BYTES or google_crc32c.value(index) != stated:
        raise ValueError("the index of its chunks is damaged")
    entries: NDArray[np.uint64] = np.frombuffer(index, "<u8").reshape(chunks, 2)
    return [(0, 0) if start == ABSENT else (start, start + size) for start, size in entries.tolist()]


def damaged_chunks(content: bytes, stored: StoredFile) -> list[int]:
    """Return the inner chunks of an object that differ from those written. Raises: ValueError if none can be found."""
    assert stored.chunk_crc32c is not None
    ranges = chunk_ranges(content, len(stored.chunk_crc32c))
    return [
        number
        for number, ((start, stop), written) in enumerate(zip(ranges, stored.chunk_crc32c, strict=True))
        if google_crc32c.value(content[start:stop]) != written
    ]


def files_table(files_of_shard: dict[str, tuple[StoredFile, ...]]) -> pa.Table:
    """Return the files of some shards as rows of FILES_SCHEMA."""
    rows = [{"shard": shard, **vars(file)} for shard, files in files_of_shard.items() for file in files]
    return pa.Table.from_pylist(rows, schema=FILES_SCHEMA)
