"""Reading of frames, in the type they are stored in, by one positioned read for each run of frames.

Axes: T tracks, B crops, F frames, M mel bands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.dataset.object_ranges import CachedObjects, LocalObjects, Objects, Ranges, RemoteObjects
from store.dataset.shard_objects import CHUNK_FRAMES, OBJECT_FRAMES
from store.fs.block_cache import BlockCache
from store.fs.files import local_path

LOCATION_COLUMNS = ("shard", "start_frame", "frames")  # of the index


@dataclass(frozen=True)
class Locations:
    """Where the spectrograms of some tracks lie: `shard_T` are indices of `shards`, -1 for no spectrogram."""

    shards: NDArray[np.object_]
    shard_T: NDArray[np.int32]
    start_T: NDArray[np.int64]
    frames_T: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pa.Table) -> "Locations":
        """Return the locations of tracks from LOCATION_COLUMNS, where null stands for no spectrogram."""
        shards = rows["shard"].combine_chunks()
        if not pa.types.is_dictionary(shards.type):
            shards = shards.dictionary_encode()
        names = np.array(shards.dictionary.to_pylist(), object)
        start_T, frames_T = (pc.fill_null(rows[name], 0).to_numpy() for name in LOCATION_COLUMNS[1:])
        return cls(names, pc.fill_null(shards.indices, -1).to_numpy(), start_T, frames_T)

    def __len__(self) -> int:
        return len(self.shard_T)

    def take(self, rows: NDArray[Any] | slice) -> "Locations":
        """Return the locations of some of the tracks."""
        return Locations(self.shards, self.shard_T[rows], self.start_T[rows], self.frames_T[rows])


class FrameReader:
    """Reads crops of tracks into arrays. Several threads may share one: they read without Python's lock.

    With a cache, of a store on a slow disk or in an object store, blocks of frames are kept on a local disk.
    """

    def __init__(self, root: str, dtype: np.dtype[Any], bands: int, cache: BlockCache | None = None) -> None:
        self.dtype, self.bands = dtype, bands
        self._objects = _objects(root, bands * dtype.itemsize, cache)

    def read_crops(
        self,
        locations: Locations,
        track_B: NDArray[np.integer],
        start_B: NDArray[np.integer],
        out_BFM: NDArray[Any],
    ) -> None:
        """Fill `out_BFM` with the frames of some tracks from `start_B` on, as they are stored.

        Shapes: out_BFM (B, F, M), C-contiguous, of `dtype`.
        Raises: BadInput if a shard is missing or damaged; OSError.

        A track that ends before its crop is repeated from the crop's first frame.
        """
        assert out_BFM.flags.c_contiguous
        assert out_BFM.dtype == self.dtype
        frames_B = np.minimum(locations.frames_T[track_B] - start_B, out_BFM.shape[1])
        first_B = locations.start_T[track_B] + start_B
        names = locations.shards[locations.shard_T[track_B]]
        for ranges in self._ranges(names, first_B, frames_B, out_BFM.shape[1]):
            self._objects.read(ranges, out_BFM)
        for row in np.flatnonzero(frames_B < out_BFM.shape[1]).tolist():
            crop_FM, read = out_BFM[row], int(frames_B[row])
            crop_FM[read:] = crop_FM[np.arange(read, len(crop_FM)) % read]

    def read_track(self, locations: Locations, track: int, start: int, frames: int) -> NDArray[Any]:
        """Read some frames of one track; fewer than requested at its end. Shapes: (F, M), as stored."""
        low, high = (min(it, int(locations.frames_T[track])) for it in (start, start + frames))
        out_BFM = np.empty((1, high - low, self.bands), self.dtype)
        if high > low:
            self.read_crops(locations, np.array([track]), np.array([low]), out_BFM)
        out_FM: NDArray[Any] = out_BFM[0]
        return out_FM

    def _ranges(
        self,
        shard_B: NDArray[np.object_],
        first_B: NDArray[np.int64],
        frames_B: NDArray[np.int64],
        row_frames: int,
    ) -> Iterator[Ranges]:
        """Yield the ranges of bytes of crops: first those in the object that each begins in, then in the next."""
        frame_bytes = self.bands * self.dtype.itemsize
        into_B = np.arange(len(first_B)) * (row_frames * frame_bytes)
        while len(first_B):
            object_B, within_B = np.divmod(first_B, OBJECT_FRAMES)
            taken_B = np.minimum(frames_B, OBJECT_FRAMES - within_B)
            size_B = taken_B * frame_bytes
            yield Ranges(shard_B, object_B, within_B * frame_bytes, size_B, into_B)
            left = frames_B > taken_B
            shard_B, into_B = shard_B[left], (into_B + size_B)[left]
            first_B, frames_B = (first_B + taken_B)[left], (frames_B - taken_B)[left]


def _objects(root: str, frame_bytes: int, cache: BlockCache | None) -> Objects:
    if cache is not None:
        return CachedObjects(root, frame_bytes, cache)
    if local_path(root) is None:
        return RemoteObjects(root)
    return LocalObjects(root, CHUNK_FRAMES * frame_bytes)
