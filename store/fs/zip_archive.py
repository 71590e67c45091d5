"""Files in a zip archive, read in place: the directory once, then each file by its range of bytes.

fsspec's ZipFileSystem reads the whole directory again for every file: 0.6 s for FMA's
106,574 tracks. Here it is kept, as columns, until the archive changes.
"""

import io
import lzma
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from zipfile import BadZipFile, ZipExtFile, ZipFile, ZipInfo

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from store.errors import BadInput, DamagedFile

MAX_FETCH_BYTES = 1 << 24  # a larger file streams through a window of this size
DIRECTORY_BLOCK_BYTES = 1 << 20
MAX_CACHED_DIRECTORIES = 4  # the least recently used is dropped first
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of name and extra field
DIRECTORY_DTYPE = np.dtype(
    [
        ("start", np.int64),
        ("end", np.int64),  # the start of the next file
        ("packed_bytes", np.int64),
        ("size_bytes", np.int64),
        ("crc", np.uint32),
        ("method", np.uint16),
        ("flags", np.uint16),
    ]
)


@dataclass(frozen=True)
class ZipDirectory:
    """The directory of an archive: the row of each file by name (folders end with a slash), and DIRECTORY_DTYPE."""

    identity: tuple[object, ...]
    row_of: dict[str, int]
    columns: NDArray[np.void]


_cache: dict[str, ZipDirectory] = {}  # by URL: fsspec gives every thread its own file system
_lock = threading.Lock()  # threads that need the same directory wait for the first to read it


def read_directory(fs: AbstractFileSystem, path: str) -> ZipDirectory:
    """Return the directory of an archive, from memory if the archive did not change.

    Raises: FileNotFoundError; BadInput if it is no zip archive, or a part of one.
    """
    identity, url = _identity(fs, path), fs.unstrip_protocol(path)
    with _lock:
        known = _cache.pop(url, None)
        if known is None or known.identity != identity:
            known = _load_directory(fs, path, identity)
        _cache[url] = known
        while len(_cache) > MAX_CACHED_DIRECTORIES:
            del _cache[next(iter(_cache))]
    return known


@contextmanager
def open_member(fs: AbstractFileSystem, path: str, name: str) -> Iterator[BinaryIO]:
    """Open one file of an archive as a stream.

    Raises: FileNotFoundError; BadInput as read_directory; DamagedFile if the content cannot be unpacked.
    """
    directory = read_directory(fs, path)
    if name not in directory.row_of:
        raise FileNotFoundError(f"zip://{name}::{path}")
    row = directory.columns[directory.row_of[name]]
    with (
        _translate_damage(f"zip://{name}::{path}"),
        _open_range(fs, path, row["start"], row["end"]) as packed,
    ):
        signature, name_bytes, extra_bytes = LOCAL_HEADER.unpack(packed.read(LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise BadZipFile("no header at the position that its directory gives")
        packed.seek(name_bytes + extra_bytes, io.SEEK_CUR)
        with ZipExtFile(packed, "r", _zip_info(name, row)) as file:
            yield cast(BinaryIO, file)


def _identity(fs: AbstractFileSystem, path: str) -> tuple[object, ...]:
    """Return what changes if another archive replaces this one."""
    if isinstance(fs, LocalFileSystem):
        found = os.stat(path)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    try:
        info = fs.info(path)
    except FileNotFoundError:
        if "http" in fs.protocol:
            fs.exists(path, strict=True)  # raises the error of the server, which `info` hides
        raise
    return tuple(str(info.get(key)) for key in ("size", "ETag", "LastModified", "created", "mtime"))


def _load_directory(fs: AbstractFileSystem, path: str, identity: tuple[object, ...]) -> ZipDirectory:
    try:
        with (
            fs.open(path, "rb", block_size=DIRECTORY_BLOCK_BYTES) as file,
            ZipFile(file) as archive,
        ):
            members, end = archive.infolist(), archive.start_dir
        if any(it.header_offset < 0 for it in members):
            raise BadZipFile("a file starts before the archive")
    except (BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise BadInput(
            f"{path}: cannot be read as a zip archive ({' '.join(str(error).split())}); wanted a whole .zip "
            "file, on a server that supports range requests if it is remote; fetch it again"
        ) from error
    columns = np.empty(len(members), DIRECTORY_DTYPE)
    for row, it in enumerate(members):
        columns[row] = (
            it.header_offset, end, it.compress_size, it.file_size, it.CRC, it.compress_type, it.flag_bits
        )  # fmt: skip
    order = np.argsort(columns["start"], kind="stable")
    columns["end"][order[:-1]] = columns["start"][order[1:]]
    return ZipDirectory(identity, {it.filename: row for row, it in enumerate(members)}, columns)


@contextmanager
def _open_range(fs: AbstractFileSystem, path: str, start: int, end: int) -> Iterator[BinaryIO]:
    """Open an archive at the start of a file; of a remote archive, fetch no more than that file."""
    if not isinstance(fs, LocalFileSystem) and end - start <= MAX_FETCH_BYTES:
        yield io.BytesIO(fs.cat_file(path, start=int(start), end=int(end)))
        return
    with fs.open(path, "rb", block_size=MAX_FETCH_BYTES) as file:
        file.seek(int(start))
        yield file


def _zip_info(name: str, row: np.void) -> ZipInfo:
    if row["flags"] & 1:
        raise BadZipFile("it is encrypted")
    info = ZipInfo(name)
    info.compress_type, info.compress_size = int(row["method"]), int(row["packed_bytes"])
    info.file_size, info.CRC, info.flag_bits = int(row["size_bytes"]), int(row["crc"]), int(row["flags"])
    return info


@contextmanager
def _translate_damage(url: str) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, struct.error) as error:
        raise DamagedFile(f"{url}: cannot be unpacked ({error}); fetch the archive again") from error
    except OSError as error:
        if str(error) != "Invalid data stream":  # bz2's error for damage; any other is of a disk or network
            raise
        raise DamagedFile(f"{url}: cannot be unpacked ({error}); fetch the archive again") from error
