"""The pages of an Ogg file without its comments: packets, time stamps, page numbers and checksums.

Source: RFC 3533, section 6; Vorbis I, A.2; RFC 7845, section 3; RFC 5334; the Speex manual, section 7;
    xiph.org, Ogg FLAC mapping.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from store.errors import BadInput

WITH_COMMENTS = (b"\x01vorbis", b"OpusHead", b"Speex   ", b"\x80theora", b"\x7fFLAC")
CONTINUED, FIRST, LAST = 1, 2, 4
HEAD_BYTES = 27
CHECKSUM = slice(22, 26)
REVERSED_BITS = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class Page(NamedTuple):
    """One page: its header with the lacing, and its content."""

    offset: int
    head: bytes
    content: bytes

    @property
    def flags(self) -> int:
        return self.head[5]

    @property
    def granule(self) -> int:
        return int.from_bytes(self.head[6:14], "little", signed=True)

    @property
    def serial(self) -> int:
        return int.from_bytes(self.head[14:18], "little")

    @property
    def number(self) -> int:
        return int.from_bytes(self.head[18:22], "little")

    def has_valid_checksum(self) -> bool:
        """Return whether a decoder accepts the page; it skips others, and renumbering would hide the damage."""
        head = self.head[: CHECKSUM.start] + bytes(4) + self.head[CHECKSUM.stop :]
        reversed_crc = zlib.crc32((head + self.content).translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
        return reversed_crc.to_bytes(4, "big").translate(REVERSED_BITS) == self.head[CHECKSUM]

    def packets(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the packets of the page, and whether each ends on it."""
        start, size = 0, 0
        for part in self.head[HEAD_BYTES:]:
            size += part
            if part < 255:
                yield self.content[start : start + size], True
                start, size = start + size, 0
        if size:
            yield self.content[start:], False


def read_pages(file: BinaryIO) -> Iterator[Page]:
    """Yield all pages. Raises: BadInput if one is damaged or cut off."""
    offset = file.seek(0)
    while head := file.read(HEAD_BYTES):
        if len(head) < HEAD_BYTES or head[:4] != b"OggS":
            raise BadInput(f"no Ogg page at byte {offset}: the file is damaged or cut off")
        head += file.read(head[26])
        content = file.read(sum(head[HEAD_BYTES:]))
        if len(content) < sum(head[HEAD_BYTES:]):
            raise BadInput(f"the last Ogg page is cut off at byte {offset + len(head) + len(content)}")
        yield Page(offset, head, content)
        offset += len(head) + len(content)


def read_packets(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (stream, packet). Raises: BadInput as `read_pages` does."""
    pieces: dict[int, bytes] = {}
    for page in read_pages(file):
        for piece, is_complete in page.packets():
            packet = pieces.pop(page.serial, b"") + piece
            if is_complete:
                yield page.serial, packet
            else:
                pieces[page.serial] = packet
    yield from pieces.items()  # the file ends inside a packet


@dataclass
class _Stream:
    """A logical stream of the first link: its digest, and how far its headers have been read."""

    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    headers: int = 0  # packets that hold no audio; 0: it has no comments
    packets: int = 0
    piece: bytes = b""
    first_number: int | None = None  # of its first page of audio

    def add(self, page: Page) -> None:
        if self.first_number is not None or not self.headers:
            self._add_page(page, self.first_number or 0)
        else:
            self._add_headers(page)

    def _add_page(self, page: Page, first_number: int) -> None:
        fields = (page.flags, page.granule, page.number - first_number, page.has_valid_checksum())
        self.digest.update(struct.pack("<Bqq?", *fields) + page.head[26:] + page.content)

    def _add_headers(self, page: Page) -> None:
        """Add packets instead of pages, since longer comments move the boundaries of these.

        A decoder rejects a page with a wrong checksum; rewritten, it would be right.
        """
        if not page.has_valid_checksum():
            self.digest.update(b"damaged")
        for piece, is_complete in page.packets():
            self.piece += piece
            if not is_complete:
                continue
            if self.packets >= self.headers:  # audio on a page of headers: its time stamp counts
                self.digest.update(struct.pack("<q", page.granule))
            if self.packets != 1:
                self.digest.update(struct.pack("<Q", len(self.piece)) + self.piece)
            self.packets, self.piece = self.packets + 1, b""
        if self.packets >= self.headers and not self.piece:
            self.first_number = page.number + 1


def payload_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield a digest of each logical stream without the comments of the first link, which are the file's tags.

    Streams are hashed separately: a longer comment may interleave their pages in another way.
    """
    streams: dict[int, _Stream] = {}
    chain = hashlib.sha256()
    is_first_link, has_audio = True, False
    for page in read_pages(file):
        if not page.flags & FIRST:
            has_audio = True
        elif has_audio:
            is_first_link = False
        elif page.serial not in streams:
            streams[page.serial] = _Stream(headers=_count_headers(page.content))
        if is_first_link and page.serial in streams:
            streams[page.serial].add(page)
        else:
            chain.update(page.head + page.content)
    yield chain.digest()
    for serial in sorted(streams):
        yield struct.pack("<I", serial) + streams[serial].digest.digest()


def _count_headers(packet: bytes) -> int:
    """Return how many packets precede the audio, from the first one; 0 for a stream without comments."""
    if not packet.startswith(WITH_COMMENTS):
        return 0
    match packet[:7]:
        case b"\x01vorbis" | b"\x80theora":
            return 3
        case b"Speex  " if len(packet) >= 72:
            return 2 + min(int.from_bytes(packet[68:72], "little"), 16)
        case _ if packet.startswith(b"\x7fFLAC"):
            return 1 + max(int.from_bytes(packet[7:9], "big"), 1)
    return 2
