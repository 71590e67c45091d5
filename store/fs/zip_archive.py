"""Files within a zip archive, read in place: the directory once, then each file by its own range of bytes.

fsspec's ZipFileSystem reads the whole directory again for every file: 0.6 s for FMA's
106,574 tracks. Here it is kept, as columns, until the archive is another one.
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
MAX_CACHED_DIRECTORIES = 4  # directories kept; the one longest unused goes first
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of name and extra field
DIRECTORY_DTYPE = np.dtype(
    [
        ("begin", np.int64),
        ("end", np.int64),  # where the next file begins
        ("packed_bytes", np.int64),
        ("size_bytes", np.int64),
        ("crc", np.uint32),
        ("method", np.uint16),
        ("flags", np.uint16),
    ]
)


@dataclass(frozen=True)
class ZipDirectory:
    """What an archive holds: the row of each file by its name (folders end with a slash), and DIRECTORY_DTYPE."""

    identity: tuple[object, ...]
    row_of: dict[str, int]
    columns: NDArray[np.void]


_known: dict[str, ZipDirectory] = {}  # by URL: fsspec gives every thread a file system of its own
_reading = threading.Lock()  # threads that want the same directory wait for the first to read it


def read_directory(fs: AbstractFileSystem, path: str) -> ZipDirectory:
    """List the files of an archive; from memory if it is the same archive as last time.

    Raises: FileNotFoundError; BadInput if this is no zip archive, or a part of one.
    """
    identity, url = _identity(fs, path), fs.unstrip_protocol(path)
    with _reading:
        known = _known.pop(url, None)
        if known is None or known.identity != identity:
            known = _read_anew(fs, path, identity)
        _known[url] = known
        while len(_known) > MAX_CACHED_DIRECTORIES:
            del _known[next(iter(_known))]
    return known


@contextmanager
def open_member(fs: AbstractFileSystem, path: str, name: str) -> Iterator[BinaryIO]:
    """Open one file of an archive, to be read as a stream.

    Raises: FileNotFoundError; BadInput as read_directory; DamagedFile when what is read does not unpack.
    """
    directory = read_directory(fs, path)
    if name not in directory.row_of:
        raise FileNotFoundError(f"zip://{name}::{path}")
    row = directory.columns[directory.row_of[name]]
    with _damage_told(f"zip://{name}::{path}"), _open_range(fs, path, row["begin"], row["end"]) as packed:
        signature, name_bytes, extra_bytes = LOCAL_HEADER.unpack(packed.read(LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise BadZipFile("no header where the directory says")
        packed.seek(name_bytes + extra_bytes, io.SEEK_CUR)
        with ZipExtFile(packed, "r", _zip_info(name, row)) as file:
            yield cast(BinaryIO, file)


def _identity(fs: AbstractFileSystem, path: str) -> tuple[object, ...]:
    """Tell one archive from another that took its place."""
    if isinstance(fs, LocalFileSystem):
        found = os.stat(path)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    try:
        info = fs.info(path)
    except FileNotFoundError:
        if "http" in fs.protocol:
            fs.exists(path, strict=True)  # raises what the server did answer, which `info` hides
        raise
    return tuple(str(info.get(key)) for key in ("size", "ETag", "LastModified", "created", "mtime"))


def _read_anew(fs: AbstractFileSystem, path: str, identity: tuple[object, ...]) -> ZipDirectory:
    try:
        with (
            fs.open(path, "rb", block_size=DIRECTORY_BLOCK_BYTES) as file,
            ZipFile(file) as archive,
        ):
            members, end = archive.infolist(), archive.start_dir
        if any(it.header_offset < 0 for it in members):
            raise BadZipFile("a file begins before the archive")
    except (BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise BadInput(
            f"{path}: cannot be read as a zip archive ({' '.join(str(error).split())}); wanted a whole .zip "
            "file, from a server that answers range requests if it lies afar; fetch it again"
        ) from error
    columns = np.empty(len(members), DIRECTORY_DTYPE)
    for row, it in enumerate(members):
        columns[row] = (
            it.header_offset, end, it.compress_size, it.file_size, it.CRC, it.compress_type, it.flag_bits
        )  # fmt: skip
    order = np.argsort(columns["begin"], kind="stable")
    columns["end"][order[:-1]] = columns["begin"][order[1:]]
    return ZipDirectory(identity, {it.filename: row for row, it in enumerate(members)}, columns)


@contextmanager
def _open_range(fs: AbstractFileSystem, path: str, begin: int, end: int) -> Iterator[BinaryIO]:
    """Open an archive where a file begins; from afar, no more than that file is fetched."""
    if not isinstance(fs, LocalFileSystem) and end - begin <= MAX_FETCH_BYTES:
        yield io.BytesIO(fs.cat_file(path, start=int(begin), end=int(end)))
        return
    with fs.open(path, "rb", block_size=MAX_FETCH_BYTES) as file:
        file.seek(int(begin))
        yield file


def _zip_info(name: str, row: np.void) -> ZipInfo:
    if row["flags"] & 1:
        raise BadZipFile("it is encrypted")
    info = ZipInfo(name)
    info.compress_type, info.compress_size = int(row["method"]), int(row["packed_bytes"])
    info.file_size, info.CRC, info.flag_bits = int(row["size_bytes"]), int(row["crc"]), int(row["flags"])
    return info


@contextmanager
def _damage_told(url: str) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, struct.error) as error:
        raise DamagedFile(f"{url}: cannot be unpacked ({error}); fetch the archive again") from error
    except OSError as error:
        if str(error) != "Invalid data stream":  # bz2's way to tell of damage; else a disk or network failed
            raise
        raise DamagedFile(f"{url}: cannot be unpacked ({error}); fetch the archive again") from error
