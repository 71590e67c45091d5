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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.dataset.shard_objects import CHUNK_FRAMES, INDEX_BYTES, OBJECT_FRAMES, count_chunks
from store.dataset.shards import object_url
from store.errors import BadInput
from store.fs.files import file_system, local_path, translate_server_errors
from store.fs.positioned_reads import read_ranges

LOCATION_COLUMNS = ("shard", "start_frame", "frames")  # of the index
CURE = "`spectrogram-one build --repair` builds its tracks again"


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


@dataclass(frozen=True)
class Ranges:
    """Ranges of bytes of objects, and how far into the batch the bytes go."""

    shard_R: NDArray[np.object_]
    object_R: NDArray[np.int64]
    offset_R: NDArray[np.int64]
    size_R: NDArray[np.int64]
    into_R: NDArray[np.int64]

    def objects(self) -> list[tuple[str, int]]:
        """Return the shard and the number of each range's object."""
        return list(zip(self.shard_R.tolist(), self.object_R.tolist(), strict=True))


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

    def read(self, ranges: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fill `out_BFM` with some ranges."""
        # The list keeps the files open that another thread drops from the dict.
        files = [self._open.get(key) or self._open_object(*key) for key in ranges.objects()]
        handle_R = np.array([file.handle for file in files], np.int32)
        address_R = ranges.into_R + out_BFM.ctypes.data
        done = 0
        while done < len(files):
            left = slice(done, None)
            done += read_ranges(handle_R[left], ranges.offset_R[left], ranges.size_R[left], address_R[left])
            if done < len(files):
                self._read_one(files[done], ranges, done, out_BFM)
                done += 1

    def _read_one(self, file: _OpenFile, ranges: Ranges, row: int, out_BFM: NDArray[Any]) -> None:
        """Read a range that one call did not read whole, and find out why. Raises: BadInput; OSError."""
        offset, first, size = int(ranges.offset_R[row]), int(ranges.into_R[row]), int(ranges.size_R[row])
        view, done = out_BFM.data.cast("B")[first : first + size], 0
        while done < size:
            count = os.preadv(file.handle, (view[done:],), offset + done)
            if not count:
                url = object_url(self._root, *ranges.objects()[row])
                raise BadInput(f"{url}: truncated; {CURE}")
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

    def read(self, ranges: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fill `out_BFM` with some ranges."""
        urls = [object_url(self._root, *key) for key in ranges.objects()]
        if not urls:
            return
        fs, _ = file_system(urls[0])
        paths = [file_system(url)[1] for url in urls]
        ends = (ranges.offset_R + ranges.size_R).tolist()
        with translate_server_errors(urls[0]):
            found = fs.cat_ranges(paths, ranges.offset_R.tolist(), ends, on_error="return")
        content = out_BFM.data.cast("B")
        for url, part, first, size in zip(
            urls, found, ranges.into_R.tolist(), ranges.size_R.tolist(), strict=True
        ):
            content[first : first + size] = self._checked(url, part, size)

    def _checked(self, url: str, part: bytes | Exception, size: int) -> bytes:
        """Return the bytes of a response. Raises: BadInput; OSError."""
        match part:
            case FileNotFoundError():
                raise BadInput(f"{url}: missing from the store; {CURE}")
            case Exception():
                with translate_server_errors(url):
                    raise part
            case _ if len(part) != size:
                raise BadInput(f"{url}: truncated; {CURE}")
        return part
