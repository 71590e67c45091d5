"""The delta that computes a file's former bytes from its present ones, for any format.

An edit of tags changes few bytes and moves large blocks. So a delta copies the blocks that both files
contain, and stores the rest, compressed against the bytes that replaced it: a picture or a table
that moved costs very little.

A delta starts with the shift of the page numbers of an Ogg file, 0 for all other files: one page more
before the audio changes all later pages. Then follow steps: a number whose lowest bit is their kind, and
    copy    length (0: up to the end); offset in the new file, from the end of the last step
    patch   length; offset and length of the bytes that replaced it; compressed length (0: plain); the bytes
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard
from zstandard import FORMAT_ZSTD1_MAGICLESS as MAGICLESS

from store.errors import BadInput
from store.tags.ogg_pages import RenumberedFile, list_pages, renumber

MAX_DELTA_BYTES = 64 << 10  # a longer delta is not kept
BLOCK_BYTES = 256 << 10
PATCH_BYTES = 1 << 16  # compressed at once, so that memory does not grow with the file
NEEDLE_BYTES = 1 << 10  # of the old file, searched in the new one
SEARCH_BYTES = 1 << 20  # in both directions from the expected offset
MIN_DICTIONARY_BYTES = 8  # zstd ignores shorter ones
LEVEL = 3


class Region(NamedTuple):
    """A range of the old file, and the range of the new file that it is compared with."""

    old_start: int
    old_stop: int
    new_start: int
    new_stop: int

    @property
    def old_size(self) -> int:
        return self.old_stop - self.old_start

    @property
    def new_size(self) -> int:
        return self.new_stop - self.new_start


class Copy(NamedTuple):
    """A step that copies bytes of the new file."""

    start: int
    size: int


class Patch(NamedTuple):
    """A step that writes `size` bytes where the new file has others; `packed` is compressed against those, or plain."""

    start: int
    replaced: int
    size: int
    packed: bytes
    plain: bool


def make_delta(new: Path, old: Path, *, max_bytes: int = MAX_DELTA_BYTES) -> bytes | None:
    """Return the delta that computes `old` from `new`; None if it would be too long.

    Both are read in blocks: memory does not grow with the files.
    """
    delta = bytearray()
    with new.open("rb", buffering=0) as new_file, old.open("rb", buffering=0) as old_file:
        new_size, old_size = (os.fstat(file.fileno()).st_size for file in (new_file, old_file))
        pages = list_pages(new_file)
        shift = len(pages) - len(list_pages(old_file)) if pages else 0
        source = renumber(new_file, pages, shift) if shift else RenumberedFile(new_file)
        delta += _encode_number(_unsigned(shift))
        offset = 0
        for step in _merge_steps(_steps(RenumberedFile(old_file), source, Region(0, old_size, 0, new_size))):
            delta += _encode(step, offset, new_size)
            offset = step.start + (step.size if isinstance(step, Copy) else step.replaced)
            if len(delta) > max_bytes:
                return None
    return bytes(delta)


def apply_delta(new: Path, delta: bytes, old: Path) -> None:
    """Write to `old` the former bytes of `new`.

    Raises: BadInput if the delta does not belong to this file.
    """
    with new.open("rb", buffering=0) as new_file, old.open("wb") as target:
        unsigned_shift, at = _decode_number(delta, 0)
        shift = _signed(unsigned_shift)
        source = renumber(new_file, list_pages(new_file), shift) if shift else RenumberedFile(new_file)
        for step in _decode(delta, at, os.fstat(new_file.fileno()).st_size):
            match step:
                case Copy(start, length):
                    for block in range(start, start + length, BLOCK_BYTES):
                        target.write(source.read(block, min(block + BLOCK_BYTES, start + length)))
                case Patch(start, replaced, length, packed, plain):
                    replaced_by = source.read(start, start + replaced)
                    target.write(packed if plain else _unpack(packed, length, replaced_by))


def _steps(old: RenumberedFile, new: RenumberedFile, region: Region) -> Iterator[Copy | Patch]:
    """Yield copies of the common bytes at both ends, and patches or smaller steps between them."""
    front = _common_prefix(old, new, region)
    yield Copy(region.new_start, front)
    region = region._replace(old_start=region.old_start + front, new_start=region.new_start + front)
    back = _common_suffix(old, new, region)
    middle = region._replace(old_stop=region.old_stop - back, new_stop=region.new_stop - back)
    if max(middle.old_size, middle.new_size) <= PATCH_BYTES or not middle.old_size:
        yield _patch(old, new, middle)
    else:
        for part in _split(old, new, middle):
            yield from _steps(old, new, part)
    yield Copy(middle.new_stop, back)


def _common_prefix(old: RenumberedFile, new: RenumberedFile, region: Region) -> int:
    """Return the number of bytes that are equal from the start of both."""
    most = min(region.old_size, region.new_size)
    for done in range(0, most, BLOCK_BYTES):
        size = min(BLOCK_BYTES, most - done)
        left = old.read(region.old_start + done, region.old_start + done + size)
        right = new.read(region.new_start + done, region.new_start + done + size)
        if left != right:
            return done + _count_equal(left, right)
    return most


def _common_suffix(old: RenumberedFile, new: RenumberedFile, region: Region) -> int:
    """Return the number of bytes that are equal from the end of both."""
    most = min(region.old_size, region.new_size)
    for done in range(0, most, BLOCK_BYTES):
        size = min(BLOCK_BYTES, most - done)
        left = old.read(region.old_stop - done - size, region.old_stop - done)
        right = new.read(region.new_stop - done - size, region.new_stop - done)
        if left != right:
            return done + _count_equal(left, right, from_end=True)
    return most


def _count_equal(left: bytes, right: bytes, *, from_end: bool = False) -> int:
    """Return the number of bytes before the first difference, which must exist, by bisection: a loop is slow."""
    size = len(left)
    same, differs = 0, size
    while differs - same > 1:
        middle = (same + differs) // 2
        part = slice(size - middle, size - same) if from_end else slice(same, middle)
        if left[part] == right[part]:
            same = middle
        else:
            differs = middle
    return same


def _split(old: RenumberedFile, new: RenumberedFile, region: Region) -> tuple[Region, Region]:
    """Split a region at bytes that occur in both files, or in the middle."""
    for quarter in (2, 1, 3):
        at = region.old_start + region.old_size * quarter // 4
        needle = old.read(at, min(at + NEEDLE_BYTES, region.old_stop))
        if needle.count(needle[:1]) == len(needle):
            continue  # silence is everywhere
        for guess in (region.new_start + at - region.old_start, region.new_stop + at - region.old_stop):
            low = max(guess - SEARCH_BYTES, region.new_start)
            window = new.read(low, min(guess + SEARCH_BYTES, region.new_stop))
            found = _find_nearest(window, needle, guess - low)
            if found >= 0:
                return _split_at(region, at, low + found)
    return _split_at(region, region.old_start + region.old_size // 2, region.new_start + region.new_size // 2)


def _find_nearest(data: bytes, needle: bytes, expected: int) -> int:
    """Return the index of `needle` that is nearest to the expected one, -1 if there is none."""
    found = [data.rfind(needle, 0, max(expected, 0) + len(needle)), data.find(needle, max(expected, 0))]
    return min((at for at in found if at >= 0), key=lambda at: abs(at - expected), default=-1)


def _split_at(region: Region, old_at: int, new_at: int) -> tuple[Region, Region]:
    return region._replace(old_stop=old_at, new_stop=new_at), region._replace(
        old_start=old_at, new_start=new_at
    )


def _patch(old: RenumberedFile, new: RenumberedFile, region: Region) -> Patch:
    replaced_by = new.read(region.new_start, min(region.new_stop, region.new_start + PATCH_BYTES))
    content = old.read(region.old_start, region.old_stop)
    packed = _pack(content, replaced_by) if content else b""
    plain = len(packed) >= len(content)
    return Patch(region.new_start, len(replaced_by), len(content), content if plain else packed, plain)


def _dictionary(replaced_by: bytes) -> zstandard.ZstdCompressionDict | None:
    if len(replaced_by) < MIN_DICTIONARY_BYTES:
        return None
    return zstandard.ZstdCompressionDict(replaced_by, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _pack(content: bytes, replaced_by: bytes) -> bytes:
    """Compress bytes against those that replaced them, without any header."""
    settings = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(content),
        dict_size=len(replaced_by),
        format=MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    packer = zstandard.ZstdCompressor(dict_data=_dictionary(replaced_by), compression_params=settings)
    return packer.compress(content)


def _unpack(packed: bytes, size: int, replaced_by: bytes) -> bytes:
    unpacker = zstandard.ZstdDecompressor(dict_data=_dictionary(replaced_by), format=MAGICLESS)
    try:
        content = unpacker.decompress(packed, max_output_size=size)
    except zstandard.ZstdError as why:
        raise BadInput(f"the delta of its former bytes is damaged ({why})") from None
    if len(content) != size:
        raise BadInput(f"the delta of its former bytes is damaged: {len(content)} bytes came out of {size}")
    return content


def _merge_steps(steps: Iterator[Copy | Patch]) -> Iterator[Copy | Patch]:
    """Yield the steps without empty ones, and with consecutive copies merged."""
    last = Copy(0, 0)
    for step in steps:
        if step.size == 0:
            continue
        if isinstance(step, Copy) and step.start == last.start + last.size:
            last = last._replace(size=last.size + step.size)
            continue
        if last.size:
            yield last
        if isinstance(step, Copy):
            last = step
        else:
            yield step
            last = Copy(step.start + step.replaced, 0)
    if last.size:
        yield last


def _encode(step: Copy | Patch, offset: int, new_size: int) -> bytes:
    distance = _unsigned(step.start - offset)
    match step:
        case Copy(start, size):
            return _encode_number(0 if start + size == new_size else size << 1) + _encode_number(distance)
        case Patch(_, replaced, size, packed, plain):
            head = [size << 1 | 1, distance, replaced, 0 if plain else len(packed)]
            return b"".join(map(_encode_number, head)) + packed


def _decode(delta: bytes, at: int, new_size: int) -> Iterator[Copy | Patch]:
    offset = 0
    while at < len(delta):
        head, at = _decode_number(delta, at)
        distance, at = _decode_number(delta, at)
        start = offset + _signed(distance)
        size = head >> 1
        if head & 1:
            replaced, at = _decode_number(delta, at)
            packed, at = _decode_number(delta, at)
            content = delta[at : at + (packed or size)]
            at += packed or size
            step: Copy | Patch = Patch(start, replaced, size, content, not packed)
            offset = start + replaced
        else:
            step = Copy(start, size or new_size - start)
            offset = start + step.size
        if not 0 <= start <= offset <= new_size or at > len(delta):
            raise BadInput("the delta of its former bytes does not fit this file")
        yield step


def _unsigned(value: int) -> int:
    """Return a non-negative number for any integer; small magnitudes stay small."""
    return value * 2 if value >= 0 else -value * 2 - 1


def _signed(value: int) -> int:
    return -(value + 1) // 2 if value & 1 else value // 2


def _encode_number(value: int) -> bytes:
    """Encode a number in as few bytes as it needs: seven bits each, the highest bit set if more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _decode_number(delta: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(delta):
        value |= (delta[at] & 0x7F) << shift
        shift += 7
        at += 1
        if delta[at - 1] <= 0x7F:
            return value, at
    raise BadInput("the delta of its former bytes is truncated")
