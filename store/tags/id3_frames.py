"""ID3v2 tags as bytes: split into frames, without a look at what these say.

Source: id3.org, ID3v2.2.0, ID3v2.3.0 and ID3v2.4.0, structure.
"""

import re

FRAME_NAME = re.compile(rb"[A-Z][A-Z0-9]{3}")
UNSYNCHRONISED, EXTENDED, FOOTER = 0x80, 0x40, 0x10


def id3_header(version: int, size: int) -> bytes:
    """Render what stands before the frames of a plain tag."""
    return b"ID3" + bytes([version, 0, 0]) + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def plain_frames(block: bytes) -> list[bytes] | None:
    """Split a tag into its frames, or give None if flags, version or damage make that unsafe."""
    if len(block) < 10 or block[3] not in (3, 4) or block[5]:
        return None
    # Old iTunes wrote the sizes in ID3v2.4 as plain numbers.
    splits = [split_frames(block[10:], bits) for bits in ((7, 8) if block[3] == 4 else (8,))]
    return next((frames for frames in splits if frames is not None), None)


def split_frames(body: bytes, bits: int) -> list[bytes] | None:
    """Split into frames whose sizes bear so many bits in a byte, or give None if that comes out uneven."""
    frames = []
    start = 0
    while start < len(body) and body[start]:
        sizes = body[start + 4 : start + 8]
        if len(body) < start + 10 or not FRAME_NAME.match(body, start) or max(sizes) >> bits:
            return None
        end = start + 10 + sum(byte << bits * (3 - place) for place, byte in enumerate(sizes))
        if end > len(body):
            return None
        frames.append(body[start:end])
        start = end
    return None if body[start:].strip(b"\0") else frames


def count_frames(block: bytes) -> int | None:
    """Count the frames with content of a tag that is not plain; None if it is damaged."""
    version, flags, body = block[3], block[5], block[10:]
    if flags & FOOTER and version == 4:
        body = body[:-10]
    if flags & UNSYNCHRONISED and version < 4:
        body = body.replace(b"\xff\0", b"\xff")
    if flags & EXTENDED:
        size = _number(body[:4], 7 if version == 4 else 8)
        body = body[size if version == 4 else 4 + size :]
    width, head = (3, 6) if version == 2 else (4, 10)
    for bits in (7, 8) if version == 4 else (8,):
        count, start = 0, 0
        while body[start : start + width].strip(b"\0") and start + head <= len(body):
            size = _number(body[start + width : start + 2 * width], bits)
            count += size > 0
            start += head + size
        if start <= len(body):
            return count
    return None


def _number(digits: bytes, bits: int) -> int:
    return sum(byte << bits * place for place, byte in enumerate(reversed(digits)))
