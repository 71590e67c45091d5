"""The numbered pages of an Ogg stream: a longer comment may change the number of each.

Source: RFC 3533, section 6.
"""

import os
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from io import FileIO

from mutagen.ogg import OggPage, error

NUMBER_AT, NUMBER_BYTES = 18, 8  # the number of a page, and the checksum of all of it
HEAD_BYTES = 27


@dataclass(frozen=True)
class RenumberedFile:
    """A file, read as if some of its pages had other numbers."""

    file: FileIO
    offsets: list[int] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)

    def read(self, start: int, stop: int) -> bytes:
        """Return a range of bytes. Raises: OSError if the file became shorter."""
        content = os.pread(self.file.fileno(), max(stop - start, 0), start)
        if len(content) < stop - start:
            raise OSError(f"{self.file.name}: ends at byte {start + len(content)}, but was longer just now")
        first = bisect_left(self.offsets, start - NUMBER_BYTES + 1)
        last = bisect_left(self.offsets, stop)
        if first == last:
            return content
        changed = bytearray(content)
        for offset, number in zip(self.offsets[first:last], self.numbers[first:last], strict=True):
            part = number[max(start - offset, 0) : stop - offset]
            at = max(offset - start, 0)
            changed[at : at + len(part)] = part
        return bytes(changed)


def list_pages(file: FileIO) -> list[int]:
    """Return the offsets of the pages of the first stream; none if it is no Ogg file."""
    pages: list[int] = []
    offset, first_serial = 0, b""
    while (
        len(head := os.pread(file.fileno(), HEAD_BYTES + 255, offset)) >= HEAD_BYTES and head[:4] == b"OggS"
    ):
        serial = head[14:18]
        first_serial = first_serial or serial
        if serial == first_serial:
            pages.append(offset)
        offset += HEAD_BYTES + head[26] + sum(head[HEAD_BYTES : HEAD_BYTES + head[26]])
    return pages


def renumber(file: FileIO, pages: list[int], shift: int) -> RenumberedFile:
    """Return a view of a file as if its stream had `shift` pages fewer before its audio; or more, if negative.

    The first page stays. It does not matter which page is the first of the audio.
    """
    offsets, numbers = [], []
    for index in range(max(1, shift + 1), len(pages)):
        file.seek(pages[index])
        try:
            page = OggPage(file)
        except (error, struct.error, EOFError):
            break  # truncated
        page.sequence -= shift
        if not 0 <= page.sequence < 1 << 32:
            break
        offsets.append(pages[index] + NUMBER_AT)
        numbers.append(page.write()[NUMBER_AT : NUMBER_AT + NUMBER_BYTES])
    return RenumberedFile(file, offsets, numbers)
