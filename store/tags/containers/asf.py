"""The header objects of an ASF (WMA) file that describe its audio.

Its indices count packets, or bytes from the first packet, so that they hold wherever the audio starts.
Source: Microsoft, Advanced Systems Format specification 01.20.06, sections 3 and 6.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from store.errors import BadInput

HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
PADDING = bytes.fromhex("74d40618dfca0945a4ba9aabcb96aae8")
WITH_TAGS = (
    bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c"),  # content description
    bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850"),  # extended content description
    bytes.fromhex("eacbf8c5af5b77488467aa8c44fa4cca"),  # metadata
    bytes.fromhex("941c23449894d149a1411d134e457054"),  # metadata library
    PADDING,
)
FILE_SIZE = slice(16, 24)  # in the content of the file properties
EXTENSION_HEAD_BYTES = 22


def payload_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the header objects without the tags; the audio and its indices follow at `end_of_header`.

    Raises: BadInput if the header is broken.
    """
    end = end_of_header(file)
    yield from _objects(_exactly(file, 30, end - 30))
    yield _exactly(file, end, 16)
    if _exactly(file, end, 16) != DATA:
        raise BadInput(f"no audio follows its header at byte {end}")


def end_of_header(file: BinaryIO) -> int:
    """Return the offset of the object with the audio. Raises: BadInput if the file ends before."""
    end: int = struct.unpack("<Q", _exactly(file, 16, 8))[0]
    length = file.seek(0, 2)
    if not 30 <= end <= length:
        raise BadInput(f"the ASF header claims {end} bytes, but the file has {length}")
    return end


def correct_file_size(source: BinaryIO, draft: BinaryIO) -> None:
    """State the new size of the file in `draft`, if `source` stated its own."""
    at = _find_file_size(draft)
    old = _find_file_size(source)
    if at and old and _exactly(source, old, 8) == struct.pack("<Q", source.seek(0, 2)):
        size = draft.seek(0, 2)
        draft.seek(at)
        draft.write(struct.pack("<Q", size))


def _find_file_size(file: BinaryIO) -> int | None:
    at, end = 30, end_of_header(file)
    while at + 24 <= end:
        kind, size = struct.unpack("<16sQ", _exactly(file, at, 24))
        if kind == FILE_PROPERTIES:
            return at + 24 + FILE_SIZE.start
        at += max(size, 24)
    return None


def _objects(data: bytes) -> Iterator[bytes]:
    """Yield the objects in a header, in order, without tags and without sizes that change with the tags."""
    at = 0
    while at + 24 <= len(data):
        kind, size = struct.unpack_from("<16sQ", data, at)
        if not 24 <= size <= len(data) - at:
            raise BadInput(f"an object of the ASF header claims {size} bytes, but {len(data) - at} are left")
        content = data[at + 24 : at + size]
        at += size
        if kind == EXTENSION:
            yield from _objects(content[EXTENSION_HEAD_BYTES:])
        elif kind == FILE_PROPERTIES:
            yield kind + content[: FILE_SIZE.start] + content[FILE_SIZE.stop :]
        elif kind not in WITH_TAGS:
            yield kind + content


def _exactly(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise BadInput(f"the file ends at byte {at + len(data)}, inside a header: it is cut off")
    return data
