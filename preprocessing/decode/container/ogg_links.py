"""The links of an Ogg file: whole Ogg files one after another, as radio streams and `cat` make them.

Decoders stop at the end of the first link, or at one of another rate. Source: RFC 3533, section 4.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEAD_BYTES = 27
FIRST, LAST = 2, 4
TAIL_BYTES = 1 << 17  # more than the longest page
PLAUSIBLE_PAGES = (0.5, 2.0)  # of the number that the size of the first pages suggests


class _Page(NamedTuple):
    start: int
    stop: int
    flags: int
    serial: int
    number: int


@dataclass(frozen=True)
class OggLink:
    """A range of bytes that is an Ogg file by itself."""

    start: int
    stop: int
    is_complete: bool  # its last page is whole, and marked as the last of its stream


def read_links(path: Path) -> list[OggLink]:
    """Return the links of an Ogg file, in order; one, not complete, if it has no pages.

    Of an ordinary file only the first and the last pages are read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = _find_page(file, 0, size)
        if _is_ordinary(file, start, size):
            return [OggLink(0, size, is_complete=True)]
        return _split(list(_pages(file, start, size)), size)


def _is_ordinary(file: BinaryIO, start: int, size: int) -> bool:
    """Return whether the last page belongs to the first stream and ends it, where the number of pages says so."""
    first = list(_pages(file, start, min(size, start + TAIL_BYTES)))
    last_at = _find_page(file, max(start, size - TAIL_BYTES), size, from_end=True)
    last = next(_pages(file, last_at, size), None)
    if not first or last is None or last.stop != size or not last.flags & LAST:
        return False
    if any(page.flags & FIRST for page in first[1:]) or last.serial != first[0].serial:
        return False
    expected = (size - start) * len(first) / (first[-1].stop - start)
    return PLAUSIBLE_PAGES[0] * expected <= last.number + 1 <= PLAUSIBLE_PAGES[1] * expected


def _split(pages: list[_Page], size: int) -> list[OggLink]:
    """Group pages into links: each starts with first pages of streams, after others."""
    starts = [
        number
        for number, page in enumerate(pages)
        if page.flags & FIRST and (number == 0 or not pages[number - 1].flags & FIRST)
    ]
    links = []
    for number, stop in zip(starts, [*starts[1:], len(pages)], strict=True):
        last = pages[stop - 1]
        is_complete = bool(last.flags & LAST) and last.stop <= size
        links.append(OggLink(pages[number].start, min(last.stop, size), is_complete))
    return links or [OggLink(0, size, is_complete=False)]


def _pages(file: BinaryIO, start: int, stop: int) -> Iterator[_Page]:
    """Read the headers of the pages between two offsets; look for the next one after damage."""
    size = file.seek(0, 2)
    while 0 <= start < stop:
        file.seek(start)
        head = file.read(HEAD_BYTES + 255)
        if len(head) < HEAD_BYTES or head[:4] != b"OggS":
            start = _find_page(file, start + 1, size)
            continue
        serial, number = struct.unpack_from("<II", head, 14)
        end = start + HEAD_BYTES + head[26] + sum(head[HEAD_BYTES : HEAD_BYTES + head[26]])
        yield _Page(start, end, head[5], serial, number)
        start = end


def _find_page(file: BinaryIO, start: int, stop: int, *, from_end: bool = False) -> int:
    """Return the offset of the first page from an offset on, or of the last; -1 if there is none."""
    while start < stop:
        file.seek(start)
        block = file.read(min(TAIL_BYTES, stop - start))
        found = block.rfind(b"OggS") if from_end else block.find(b"OggS")
        if found >= 0:
            return start + found
        start += max(len(block) - 3, 1)
    return -1


class LinkFile(io.RawIOBase):
    """One link, as a file of its own."""

    def __init__(self, path: Path, link: OggLink) -> None:
        self._file = path.open("rb")
        self._link = link
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._link.stop - self._link.start}
        self._at = max(0, base[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        start = self._link.start + self._at
        data = b""
        if start < self._link.stop:
            self._file.seek(start)
            data = self._file.read(min(len(buffer), self._link.stop - start))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
