"""Ranges of bytes of the objects of shards: on a local disk, in an object store, or there behind a cache.

Axes: R ranges; B crops, F frames, M mel bands of what they are read into.
"""

import hashlib
import os
import resource
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from store.dataset.shard_objects import CHUNK_FRAMES, INDEX_BYTES, count_chunks
from store.dataset.shards import object_url
from store.errors import BadInput
from store.fs.block_cache import HEADER, BlockCache
from store.fs.files import file_system, local_path, translate_server_errors
from store.fs.positioned_reads import OpenFile, read_ranges

Key = TypeVar("Key")
CURE = "`spectrogram-one build --repair` builds its tracks again"
BLOCK_FRAMES = 16 * CHUNK_FRAMES  # what a cache fetches at once: 1 MiB of float16 at 128 bands
OVERLAP_FRAMES = CHUNK_FRAMES  # and so much of the next block: few crops need both
BLOCKS_AT_ONCE = 64  # that a thread requests together, and has in memory


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

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Ranges":
        """Return some of the ranges."""
        return Ranges(*(column[rows] for column in vars(self).values()))


class Objects(Protocol):
    """Where the bytes of objects are read from."""

    def read(self, ranges: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fill `out_BFM` with some ranges. Raises: BadInput if an object is missing or damaged; OSError."""


class LocalObjects:
    """The objects of shards on a local disk. An object's index is read once, when it is first opened."""

    def __init__(self, root: str, chunk_bytes: int) -> None:
        self._root, self._chunk_bytes = root, chunk_bytes
        self._open = _OpenFiles[tuple[str, int]]()
        self._checked: set[tuple[str, int]] = set()

    def read(self, ranges: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fill `out_BFM` with some ranges."""
        # The list keeps the files open that another thread drops from the dict.
        keys = ranges.objects()
        files = [file or self._open_object(key) for file, key in zip(self._open.get(keys), keys, strict=True)]
        _read_files(self._root, files, ranges, ranges.offset_R, out_BFM)

    def _open_object(self, key: tuple[str, int]) -> OpenFile:
        url = object_url(self._root, *key)
        path = local_path(url)
        assert path is not None
        try:
            file = OpenFile(str(path))
        except FileNotFoundError:
            raise BadInput(f"{url}: missing from the store; {CURE}") from None
        if key not in self._checked:
            self._check_index(file, url)
            self._checked.add(key)
        return self._open.add(key, file)

    def _check_index(self, file: OpenFile, url: str) -> None:
        size_bytes = os.fstat(file.handle).st_size
        try:
            tail = os.pread(file.handle, INDEX_BYTES, max(0, size_bytes - INDEX_BYTES))
            count_chunks(tail, size_bytes, self._chunk_bytes)
        except ValueError as error:
            raise BadInput(f"{url}: {error}; {CURE}") from None


class RemoteObjects:
    """The objects of shards in an object store: ranges that are read together are requested all at once."""

    def __init__(self, root: str) -> None:
        self.root = root

    def read(self, ranges: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fill `out_BFM` with some ranges."""
        parts = self.fetch(ranges.objects(), ranges.offset_R, ranges.size_R)
        _copy_parts(self.root, parts, ranges, np.zeros_like(ranges.offset_R), out_BFM)

    def fetch(
        self,
        objects: Sequence[tuple[str, int]],
        offset_R: NDArray[np.int64],
        size_R: NDArray[np.int64],
    ) -> list[bytes]:
        """Return ranges of objects, fewer bytes where an object ends. Raises: BadInput; OSError."""
        urls = [object_url(self.root, *key) for key in objects]
        if not urls:
            return []
        fs, _ = file_system(urls[0])
        paths = [file_system(url)[1] for url in urls]
        with translate_server_errors(urls[0]):
            ends = (offset_R + size_R).tolist()
            parts = fs.cat_ranges(paths, offset_R.tolist(), ends, on_error="return")
        for url, part in zip(urls, parts, strict=True):
            if isinstance(part, FileNotFoundError):
                raise BadInput(f"{url}: missing from the store; {CURE}")
            if isinstance(part, Exception):
                with translate_server_errors(url):
                    raise part
        return list(parts)


class CachedObjects:
    """The objects of shards anywhere, read in blocks that are kept on a local disk."""

    def __init__(self, root: str, frame_bytes: int, cache: BlockCache) -> None:
        self._source, self._cache = RemoteObjects(root), cache
        self._block_bytes = BLOCK_FRAMES * frame_bytes
        self._overlap_bytes = OVERLAP_FRAMES * frame_bytes
        self._prefix = hashlib.sha256(f"{root} {self._block_bytes}".encode()).hexdigest()[:12]
        self._open = _OpenFiles[str]()

    def read(self, ranges: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fill `out_BFM` with some ranges."""
        for pieces in self._within_blocks(ranges):
            names = [
                f"{self._prefix}-{shard}-{number}-{block}"
                for (shard, number), block in zip(
                    pieces.objects(), self._block_of(pieces).tolist(), strict=True
                )
            ]
            files = [
                file or self._open_block(name)
                for file, name in zip(self._open.get(names), names, strict=True)
            ]
            self._read_blocks(files, pieces, out_BFM)
            missing: dict[str, list[int]] = defaultdict(list)
            for row, name in enumerate(names):
                if files[row] is None:
                    missing[name].append(row)
            wanted = list(missing)
            for first in range(0, len(wanted), BLOCKS_AT_ONCE):
                group = {name: missing[name] for name in wanted[first : first + BLOCKS_AT_ONCE]}
                self._read_missing(group, pieces, out_BFM)

    def _block_of(self, ranges: Ranges) -> NDArray[np.int64]:
        return ranges.offset_R // self._block_bytes

    def _within_blocks(self, ranges: Ranges) -> Iterator[Ranges]:
        """Yield ranges that are within a block each: first those that begin the ranges, then what is left."""
        while len(ranges.size_R):
            block_end_R = (self._block_of(ranges) + 1) * self._block_bytes
            left_R = ranges.offset_R + ranges.size_R - block_end_R
            size_R = np.where(left_R > self._overlap_bytes, ranges.size_R - left_R, ranges.size_R)
            yield Ranges(ranges.shard_R, ranges.object_R, ranges.offset_R, size_R, ranges.into_R)
            rest = Ranges(
                ranges.shard_R,
                ranges.object_R,
                ranges.offset_R + size_R,
                ranges.size_R - size_R,
                ranges.into_R + size_R,
            )
            ranges = rest.take(rest.size_R > 0)

    def _open_block(self, name: str) -> OpenFile | None:
        file = self._cache.open(name)
        return file and self._open.add(name, file)

    def _read_blocks(self, files: Sequence[OpenFile | None], pieces: Ranges, out_BFM: NDArray[Any]) -> None:
        """Read the pieces whose block is open."""
        opened = [(row, file) for row, file in enumerate(files) if file is not None]
        rows = np.array([row for row, _ in opened], np.int64)
        its = pieces.take(rows)
        offset_R = its.offset_R - self._block_of(its) * self._block_bytes + HEADER.size
        _read_files(self._source.root, [file for _, file in opened], its, offset_R, out_BFM)

    def _read_missing(self, rows_of: dict[str, list[int]], pieces: Ranges, out_BFM: NDArray[Any]) -> None:
        """Fetch blocks and read their pieces; wait for those that another thread or process is fetching."""
        with self._cache.claiming(rows_of) as claimed:
            # Since this thread looked for a block, another may have fetched it and given its claim up.
            absent = {name: rows_of[name] for name in claimed if self._open_block(name) is None}
            self._fetch(absent, pieces, out_BFM)
        for name in rows_of.keys() - absent.keys():
            self._cache.wait_for(name)
            file, rows = self._open_block(name), rows_of[name]
            if file is None:
                self._fetch({name: rows}, pieces, out_BFM)
            else:
                self._read_blocks([file] * len(rows), pieces.take(np.array(rows)), out_BFM)

    def _fetch(self, rows_of: dict[str, list[int]], pieces: Ranges, out_BFM: NDArray[Any]) -> None:
        first = pieces.take(np.array([rows[0] for rows in rows_of.values()], np.int64))
        start_R = self._block_of(first) * self._block_bytes
        size_R = np.full(len(start_R), self._block_bytes + self._overlap_bytes)
        contents = self._source.fetch(first.objects(), start_R, size_R)
        for content, start, (name, rows) in zip(contents, start_R, rows_of.items(), strict=True):
            self._cache.put(name, content)
            its = pieces.take(np.array(rows))
            _copy_parts(self._source.root, [content] * len(rows), its, its.offset_R - start, out_BFM)


class _OpenFiles(Generic[Key]):
    """Files that are kept open, as many as the process may have."""

    def __init__(self) -> None:
        self._most = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._files: dict[Key, OpenFile] = {}
        self._lock = Lock()

    def get(self, keys: Sequence[Key]) -> list[OpenFile | None]:
        """Return the file of each key, where it is open."""
        return list(map(self._files.get, keys))  # in one call: there is a key for each crop

    def add(self, key: Key, file: OpenFile) -> OpenFile:
        """Keep a file, unless another thread has kept one of its key; return the one that is kept."""
        with self._lock:
            while len(self._files) >= self._most:
                # Crops are drawn at random, so the file opened first is as good as any other.
                del self._files[next(iter(self._files))]
            return self._files.setdefault(key, file)


def _read_files(
    root: str,
    files: Sequence[OpenFile],
    ranges: Ranges,
    offset_R: NDArray[np.int64],
    out_BFM: NDArray[Any],
) -> None:
    """Read ranges of open files, which begin at `offset_R` in these. Raises: BadInput; OSError."""
    handle_R = np.array([file.handle for file in files], np.int32)
    address_R = ranges.into_R + out_BFM.ctypes.data
    done = 0
    while done < len(files):
        left = slice(done, None)
        done += read_ranges(handle_R[left], offset_R[left], ranges.size_R[left], address_R[left])
        if done < len(files):
            _read_one(root, files[done], ranges, done, int(offset_R[done]), out_BFM)
            done += 1


def _read_one(
    root: str, file: OpenFile, ranges: Ranges, row: int, offset: int, out_BFM: NDArray[Any]
) -> None:
    """Read a range that one call did not read whole, and find out why. Raises: BadInput; OSError."""
    first, size = int(ranges.into_R[row]), int(ranges.size_R[row])
    view, done = out_BFM.data.cast("B")[first : first + size], 0
    while done < size:
        count = os.preadv(file.handle, (view[done:],), offset + done)
        if not count:
            raise _truncated(root, ranges, row)
        done += count


def _copy_parts(
    root: str, parts: Sequence[bytes], ranges: Ranges, offset_R: NDArray[np.int64], out_BFM: NDArray[Any]
) -> None:
    """Copy ranges that begin at `offset_R` in some bytes. Raises: BadInput if there are too few."""
    view = out_BFM.data.cast("B")
    columns = (ranges.into_R, ranges.size_R, offset_R)
    for row, (part, into, size, offset) in enumerate(
        zip(parts, *(it.tolist() for it in columns), strict=True)
    ):
        if offset + size > len(part):
            raise _truncated(root, ranges, row)
        view[into : into + size] = memoryview(part)[offset : offset + size]


def _truncated(root: str, ranges: Ranges, row: int) -> BadInput:
    return BadInput(f"{object_url(root, *ranges.objects()[row])}: truncated; {CURE}")
