"""Vorbis comments as bytes, to find those that mutagen would change though they are not edited.

Source: xiph.org, Vorbis I, section 5; RFC 9639, section 8.6; RFC 7845, section 5.2.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from store.errors import BadInput
from store.tags.containers import ogg
from store.tags.payload import end_of_leading_tags

HEADS = dict(zip(ogg.WITH_COMMENTS, (7, 8, 0, 7, 4), strict=True))  # bytes before the comments
FLAC_COMMENTS = 4


def check_comments(path: Path, kind: Literal["flac", "ogg"], tags: Iterable[tuple[str, str]]) -> None:
    """Compare the comments of a file with what mutagen read.

    Raises: BadInput if mutagen would change one: invalid UTF-8 becomes U+FFFD, and a comment with an
        invalid name gets another name or is dropped.
    """
    read = [f"{name}={text}".encode() for name, text in tags]
    with path.open("rb") as file:
        found = [_split(packet) for packet in (_in_flac(file) if kind == "flac" else _in_ogg(file))]
    if found and read not in found:
        lost = [comment for comments in found for comment in comments if comment not in read]
        if not lost:
            raise BadInput("its block of comments is damaged")
        raise BadInput(f"tagging it would change a comment that is no UTF-8 or has no name: {lost[0][:80]!r}")


def _in_flac(file: BinaryIO) -> Iterator[bytes]:
    at = end_of_leading_tags(file) + 4
    last = False
    while not last:
        file.seek(at)
        header = file.read(4)
        if len(header) < 4:
            return
        last, size = header[0] >= 0x80, int.from_bytes(header[1:], "big")
        if header[0] & 0x7F == FLAC_COMMENTS:
            yield file.read(size)
        at += 4 + size


def _in_ogg(file: BinaryIO) -> Iterator[bytes]:
    """Yield the second packet of each stream that has comments, up to the first packet of audio."""
    heads: dict[int, int | None] = {}
    for serial, packet in ogg.read_packets(file):
        if serial not in heads:
            heads[serial] = next((HEADS[mark] for mark in HEADS if packet.startswith(mark)), None)
        elif (head := heads[serial]) is not None:
            heads[serial] = None
            yield packet[head:]
        if not any(head is not None for head in heads.values()):
            return


def _split(packet: bytes) -> list[bytes]:
    """Split a packet into its comments; those beyond its end are left out, as mutagen does."""
    try:
        at = 4 + struct.unpack_from("<I", packet)[0]
        (count,) = struct.unpack_from("<I", packet, at)
        at += 4
        comments = []
        for _ in range(count):
            (size,) = struct.unpack_from("<I", packet, at)
            comments.append(packet[at + 4 : at + 4 + size])
            at += 4 + size
    except struct.error:
        return []
    return comments
