"""Reading of frames, in the type they are stored in, by one positioned read for each run of frames.

Axes: T tracks, B crops, F frames, M mel bands.
"""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.dataset.shard_objects import CHUNK_FRAMES, INDEX_BYTES, OBJECT_FRAMES, count_chunks
from store.dataset.shards import object_url
from store.errors import BadInput
from store.fs.files import file_system, local_path, translate_server_errors

CURE = "`spectrogram-one build --repair` builds its tracks again"
Range = tuple[str, int, int, memoryview]  # shard, object in it, first byte; the memory that the bytes go to


@dataclass(frozen=True)
class Locations:
    """Where the spectrograms of some tracks lie: `shard_T` are indices of `shards`, -1 for no spectrogram."""

    shards: NDArray[np.object_]
    shard_T: NDArray[np.int32]
    start_T: NDArray[np.int64]
    frames_T: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard_T)

    def take(self, rows: NDArray[Any] | slice) -> "Locations":
        """Return the locations of some of the tracks."""
        return Locations(self.shards, self.shard_T[rows], self.start_T[rows], self.frames_T[rows])


class FrameReader:
    """Reads crops of tracks into arrays. Several threads may share one: they read without Python's lock."""

    def __init__(self, root: str, dtype: np.dtype[Any], bands: int) -> None:
        self.dtype, self.bands = dtype, bands
        self._objects = (
            _RemoteObjects(root)
            if local_path(root) is None
            else _LocalObjects(root, CHUNK_FRAMES * bands * dtype.itemsize)
        )

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
        self._objects.read(self._ranges(names, first_B, frames_B, out_BFM))
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
        out_BFM: NDArray[Any],
    ) -> Iterator[Range]:
        """Yield the ranges of bytes of crops: one for each crop and object that it lies in."""
        content = out_BFM.data.cast("B")
        frame_bytes = self.bands * self.dtype.itemsize
        into_B = np.arange(len(first_B)) * (out_BFM.shape[1] * frame_bytes)
        while len(first_B):
            object_B, within_B = np.divmod(first_B, OBJECT_FRAMES)
            taken_B = np.minimum(frames_B, OBJECT_FRAMES - within_B)
            end_B = into_B + taken_B * frame_bytes
            views = [content[low:high] for low, high in zip(into_B.tolist(), end_B.tolist(), strict=True)]
            offsets = (within_B * frame_bytes).tolist()
            yield from zip(shard_B.tolist(), object_B.tolist(), offsets, views, strict=True)
            left = frames_B > taken_B
            shard_B, into_B = shard_B[left], end_B[left]
            first_B, frames_B = (first_B + taken_B)[left], (frames_B - taken_B)[left]


class _OpenFile:
    """A file that is closed when its last reader has let go of it."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class _LocalObjects:
    """The objects of shards on a local disk. An object's index is read once, when it is first opened."""

    def __init__(self, root: str, chunk_bytes: int) -> None:
        self._root, self._chunk_bytes = root, chunk_bytes
        self._most_open = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._open: dict[tuple[str, int], _OpenFile] = {}
        self._checked: set[tuple[str, int]] = set()
        self._lock = Lock()

    def read(self, ranges: Iterator[Range]) -> None:
        opened, preadv = self._open, os.preadv
        for shard, number, offset, view in ranges:
            file = opened.get((shard, number)) or self._open_object(shard, number)
            if preadv(file.handle, (view,), offset) != len(view):
                self._read_rest(file, shard, number, offset, view)

    def _read_rest(self, file: _OpenFile, shard: str, number: int, offset: int, view: memoryview) -> None:
        """Read a range of which one call returned only a part: the kernel returns at most 2 GiB."""
        done = 0
        while done < len(view):
            count = os.preadv(file.handle, (view[done:],), offset + done)
            if not count:
                raise BadInput(f"{object_url(self._root, shard, number)}: truncated; {CURE}")
            done += count

    def _open_object(self, shard: str, number: int) -> _OpenFile:
        url = object_url(self._root, shard, number)
        path = local_path(url)
        assert path is not None
        try:
            file = _OpenFile(str(path))
        except FileNotFoundError:
            raise BadInput(f"{url}: missing from the store; {CURE}") from None
        if (shard, number) not in self._checked:
            self._check_index(file, url)
        with self._lock:
            self._checked.add((shard, number))
            while len(self._open) >= self._most_open:
                # Crops are drawn at random, so the file opened first is as good as any other.
                del self._open[next(iter(self._open))]
            return self._open.setdefault((shard, number), file)

    def _check_index(self, file: _OpenFile, url: str) -> None:
        size_bytes = os.fstat(file.handle).st_size
        try:
            tail = os.pread(file.handle, INDEX_BYTES, max(0, size_bytes - INDEX_BYTES))
            count_chunks(tail, size_bytes, self._chunk_bytes)
        except ValueError as error:
            raise BadInput(f"{url}: {error}; {CURE}") from None


class _RemoteObjects:
    """The objects of shards in an object store: the ranges of a batch are requested all at once."""

    def __init__(self, root: str) -> None:
        self._root = root

    def read(self, ranges: Iterator[Range]) -> None:
        wanted = list(ranges)
        if not wanted:
            return
        urls = [object_url(self._root, shard, number) for shard, number, _, _ in wanted]
        fs, _ = file_system(urls[0])
        starts = [offset for _, _, offset, _ in wanted]
        ends = [offset + len(view) for _, _, offset, view in wanted]
        paths = [file_system(url)[1] for url in urls]
        with translate_server_errors(urls[0]):
            found = fs.cat_ranges(paths, starts, ends, on_error="return")
        for url, content, (_, _, _, view) in zip(urls, found, wanted, strict=True):
            if isinstance(content, FileNotFoundError):
                raise BadInput(f"{url}: missing from the store; {CURE}")
            if isinstance(content, Exception):
                with translate_server_errors(url):
                    raise content
            if len(content) != len(view):
                raise BadInput(f"{url}: truncated; {CURE}")
            view[:] = content
