"""Shards of a few bytes, written much faster than by Zarr, for tests of what names them."""

import google_crc32c
import numpy as np

from store.dataset.checksums import checksum_file
from store.dataset.shards import Shard
from store.fs.files import join, write_atomic

FRAMES, CHUNK_BYTES = 5, 32  # of a track


def store_shard(root: str, name: str, tracks: tuple[str, ...]) -> Shard:
    """Store the files of a shard as Zarr lays them out: one chunk per track, then the index of the chunks."""
    chunks = range(len(tracks))
    index = np.array([[CHUNK_BYTES * it, CHUNK_BYTES] for it in chunks], "<u8").tobytes()
    content = b"".join(f"{name} {it} {'.' * CHUNK_BYTES}"[:CHUNK_BYTES].encode() for it in chunks)
    end = index + google_crc32c.value(index).to_bytes(4, "little")
    files = {"zarr.json": b"{}", "c/0/0": content + end}
    for path, data in files.items():
        write_atomic(join(root, "shards", name, path), data)
    stored = (
        checksum_file(path, data, chunk_frames=FRAMES, chunks=len(tracks)) for path, data in files.items()
    )
    starts = {track: FRAMES * at for at, track in enumerate(tracks)}
    return Shard(name, starts, dict.fromkeys(tracks, FRAMES), tuple(stored))
