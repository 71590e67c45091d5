"""Chunks of RIFF (WAV) and IFF (AIFF) files: listed, and copied with some of them replaced.

Mutagen writes the ID3 chunk only, and Windows reads the genre from the LIST/INFO chunk only.
Source: Microsoft and IBM, Multimedia Programming Interface 1.0 (1991), RIFF; Apple, AIFF 1.3 (1989).
"""

import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from store.errors import BadInput

COPY_BYTES = 1 << 20
AUDIO = (b"data", b"SSND")


@dataclass(frozen=True)
class Chunk:
    """A chunk of a file, or, with `content`, one to be written."""

    id: bytes
    start: int
    size: int
    content: bytes | None = None


def new_chunk(id: bytes, content: bytes) -> Chunk:
    """Return a chunk to be written."""
    return Chunk(id, 0, len(content), content)


def list_chunks(file: BinaryIO) -> list[Chunk]:
    """Return the chunks of a WAV or AIFF file, in their order.

    Raises: BadInput if the file is neither, is truncated, or is of the 64-bit kind.
    """
    return _parse(file)[2]


def _parse(file: BinaryIO) -> tuple[str, int, list[Chunk]]:
    """Return the byte order, the end of the outermost chunk, and the chunks in it.

    A program that writes into a pipe cannot go back to state the sizes: the audio then extends to the end.
    """
    order, end, length = _read_form(file)
    chunks = []
    start = 12
    while start + 8 <= end:
        file.seek(start)
        id_, size = struct.unpack(f"{order}4sI", file.read(8))
        if not (id_.isascii() and id_.decode("ascii").isprintable()):
            raise BadInput(f"{id_!r} at byte {start} is no chunk name: the file is damaged")
        if id_ in AUDIO and (size == 0 or (_is_placeholder(size) and start + 8 + size > end)):
            end, size = length, length - start - 8
        if start + 8 + size > end:
            raise BadInput(
                f"the chunk {id_.decode()!r} at byte {start} claims {size} bytes, but {end - start - 8} "
                "are left: the file is cut off or was never finished"
            )
        chunks.append(Chunk(id_, start + 8, size))
        start += 8 + size + size % 2
    if not any(chunk.id in AUDIO for chunk in chunks):
        raise BadInput("the file ends before its audio: it is cut off or was never finished")
    return order, end, chunks


def lacks_audio(file: BinaryIO) -> bool:
    """Return whether the file ends inside its audio; False if it has none or is of another kind."""
    try:
        order, _, length = _read_form(file)
    except BadInput:
        return False
    start = 12
    while start + 8 <= length:
        file.seek(start)
        id_, size = struct.unpack(f"{order}4sI", file.read(8))
        if id_ in AUDIO:
            return not _is_placeholder(size) and start + 8 + size > length
        start += 8 + size + size % 2
    return False


def _is_placeholder(size: int) -> bool:
    """Return whether a size is one that writers leave before they know it: about -1, or about the largest int."""
    return size >= 0xFFFF_F000 or 0x7FFF_F000 <= size <= 0x8000_0000


def is_tag_chunk(file: BinaryIO, chunk: Chunk) -> bool:
    """Return whether a chunk holds tags: ID3, or a list of INFO."""
    if chunk.id != b"LIST":
        return chunk.id.upper() == b"ID3 "
    file.seek(chunk.start)
    return file.read(4) == b"INFO"


def read_chunk(file: BinaryIO, chunk: Chunk) -> bytes:
    """Return the content of a chunk."""
    if chunk.content is not None:
        return chunk.content
    file.seek(chunk.start)
    return file.read(chunk.size)


def copy_chunks(file: BinaryIO, target: Path, chunks: Sequence[Chunk]) -> None:
    """Write `target` like `file`, with these chunks, and the bytes after the outermost one.

    Raises: BadInput if they do not fit into the 4 GiB that the format can hold.
    """
    order, end, _ = _parse(file)
    total = 4 + sum(8 + chunk.size + chunk.size % 2 for chunk in chunks)
    if total > 0xFFFF_FFFF:
        raise BadInput(f"{total} bytes do not fit into one RIFF file (4 GiB): leave it without tags")
    with target.open("wb") as new:
        file.seek(0)
        form = file.read(12)
        new.write(struct.pack(f"{order}4sI4s", form[:4], total, form[8:]))
        for chunk in chunks:
            new.write(struct.pack(f"{order}4sI", chunk.id, chunk.size))
            _copy(file, new, chunk)
            new.write(b"\0" * (chunk.size % 2))
        file.seek(end)
        shutil.copyfileobj(file, new, COPY_BYTES)


def _copy(file: BinaryIO, new: BinaryIO, chunk: Chunk) -> None:
    if chunk.content is not None:
        new.write(chunk.content)
        return
    file.seek(chunk.start)
    left = chunk.size
    while left and (block := file.read(min(left, COPY_BYTES))):
        new.write(block)
        left -= len(block)


def has_trailing_tags(file: BinaryIO) -> bool:
    """Return whether tags follow the outermost chunk: chunks from writers that did not lengthen it, ID3v1, APEv2."""
    _, end, _ = _parse(file)
    file.seek(end)
    following = file.read(8)
    return following[:4].upper() in (b"ID3 ", b"LIST") or following[:3] == b"TAG" or following == b"APETAGEX"


def _read_form(file: BinaryIO) -> tuple[str, int, int]:
    """Return the byte order, the end of the outermost chunk as it states it, and the end of the file."""
    file.seek(0)
    form = file.read(12)
    match form[:4], form[8:]:
        case b"RIFF", b"WAVE":
            order = "<"
        case b"FORM", b"AIFF" | b"AIFC":
            order = ">"
        case b"RF64" | b"BW64", _:
            raise BadInput("a 64-bit WAV (RF64) cannot be tagged: no reader agrees on where its tags go")
        case _:
            raise BadInput("neither a WAV nor an AIFF file, though it starts like one")
    size = struct.unpack(f"{order}I", form[4:8])[0]
    length = file.seek(0, 2)
    return order, length if size == 0 else min(8 + size + size % 2, length), length


# LIST/INFO: a chunk whose content is "INFO" and then small chunks of text.


def parse_info(content: bytes) -> list[tuple[bytes, bytes]]:
    """Split the content of a LIST/INFO chunk into its entries: (name, text with its end mark).

    Raises: BadInput if it cannot be split without loss.
    """
    entries = []
    start = 4
    while content[start:].strip(b"\0"):  # some writers leave zeros at the end
        head = content[start : start + 8]
        if len(head) < 8 or not head[:4].isalnum():
            raise BadInput(f"no entry at byte {start} of the INFO chunk: it is damaged")
        name, size = struct.unpack("<4sI", head)
        if start + 8 + size > len(content):
            raise BadInput(f"the entry {name.decode()} of the INFO chunk extends beyond its end")
        entries.append((name, content[start + 8 : start + 8 + size]))
        start += 8 + size + size % 2
    return entries


def build_info(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Join entries into the content of a LIST/INFO chunk."""
    return b"INFO" + b"".join(
        struct.pack("<4sI", name, len(text)) + text + b"\0" * (len(text) % 2) for name, text in entries
    )
