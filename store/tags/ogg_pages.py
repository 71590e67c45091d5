"""The pages of an Ogg stream, which are numbered: a longer comment may move the number of each.

Source: RFC 3533, section 6.
"""

import os
import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from io import FileIO

from mutagen.ogg import OggPage, error

NUMBER_AT, NUMBER_BYTES = 18, 8  # the number of a page, and the check sum over all of it
HEAD_BYTES = 27


@dataclass(frozen=True)
class RenumberedFile:
    """A file as it reads with other numbers on some pages."""

    file: FileIO
    places: list[int] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)

    def read(self, start: int, stop: int) -> bytes:
        """Read a stretch. Raises: OSError if the file got shorter meanwhile."""
        content = os.pread(self.file.fileno(), max(stop - start, 0), start)
        if len(content) < stop - start:
            raise OSError(f"{self.file.name}: ends at byte {start + len(content)}, but was longer just now")
        first = bisect_left(self.places, start - NUMBER_BYTES + 1)
        last = bisect_left(self.places, stop)
        if first == last:
            return content
        changed = bytearray(content)
        for place, number in zip(self.places[first:last], self.numbers[first:last], strict=True):
            cut = number[max(start - place, 0) : stop - place]
            at = max(place - start, 0)
            changed[at : at + len(cut)] = cut
        return bytes(changed)


def list_pages(file: FileIO) -> list[int]:
    """List where the pages of the first stream start; none if it is no Ogg file."""
    pages: list[int] = []
    place, first_serial = 0, b""
    while len(head := os.pread(file.fileno(), HEAD_BYTES + 255, place)) >= HEAD_BYTES and head[:4] == b"OggS":
        serial = head[14:18]
        first_serial = first_serial or serial
        if serial == first_serial:
            pages.append(place)
        place += HEAD_BYTES + head[26] + sum(head[HEAD_BYTES : HEAD_BYTES + head[26]])
    return pages


def renumber(file: FileIO, pages: list[int], shift: int) -> RenumberedFile:
    """Read a file as if its stream had so many pages fewer before its audio; or more, below 0.

    The first page stays. Where the others start to be those of the audio does not matter.
    """
    places, numbers = [], []
    for index in range(max(1, shift + 1), len(pages)):
        file.seek(pages[index])
        try:
            page = OggPage(file)
        except (error, struct.error, EOFError):
            break  # cut off
        page.sequence -= shift
        if not 0 <= page.sequence < 1 << 32:
            break
        places.append(pages[index] + NUMBER_AT)
        numbers.append(page.write()[NUMBER_AT : NUMBER_AT + NUMBER_BYTES])
    return RenumberedFile(file, places, numbers)
