"""The delta that makes a file's former bytes out of its present ones, whatever its format.

An edit of tags changes few bytes and moves large blocks. So a delta copies what stands in both
files, and holds the rest, compressed against the bytes that took its place: a picture or a table
that moved there costs next to nothing.

A delta says by how much the pages of an Ogg file are to be renumbered, 0 for all other files: one page more
before the audio changes all that follow. Then come steps: a number whose lowest bit tells their kind, and
    copy    length (0: all the rest); place in the new file, counted from the end of the last step
    patch   length; place and length of what took its place; compressed length (0: plain); the bytes
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard
from zstandard import FORMAT_ZSTD1_MAGICLESS as MAGICLESS

from store.errors import BadInput
from store.tags.ogg_pages import RenumberedFile, list_pages, renumber

MAX_DELTA_BYTES = 64 << 10  # a delta beyond that is not worth keeping
BLOCK_BYTES = 256 << 10
PATCH_BYTES = 1 << 16  # what is compressed at once, so that memory does not grow with the file
NEEDLE_BYTES = 1 << 10  # so much of the one file is looked for in the other
REACH_BYTES = 1 << 20  # so far around where it should be
LEAST_DICTIONARY_BYTES = 8  # zstd ignores shorter ones
LEVEL = 3


class Region(NamedTuple):
    """A stretch of the old file and the one of the new file that it is compared with."""

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
    """Take bytes of the new file as they are."""

    start: int
    size: int


class Patch(NamedTuple):
    """Put `size` bytes where the new file has others; `packed` is compressed against those, or plain."""

    start: int
    replaced: int
    size: int
    packed: bytes
    plain: bool


def make_delta(new: Path, old: Path, *, max_bytes: int = MAX_DELTA_BYTES) -> bytes | None:
    """Write the delta that makes `old` out of `new`; None if it would be too long.

    Both are read in blocks: memory does not grow with the files.
    """
    delta = bytearray()
    with new.open("rb", buffering=0) as of_new, old.open("rb", buffering=0) as of_old:
        new_size, old_size = (os.fstat(file.fileno()).st_size for file in (of_new, of_old))
        pages = list_pages(of_new)
        shift = len(pages) - len(list_pages(of_old)) if pages else 0
        source = renumber(of_new, pages, shift) if shift else RenumberedFile(of_new)
        delta += _number(_unsigned(shift))
        place = 0
        for step in _joined(_steps(RenumberedFile(of_old), source, Region(0, old_size, 0, new_size))):
            delta += _encode(step, place, new_size)
            place = step.start + (step.size if isinstance(step, Copy) else step.replaced)
            if len(delta) > max_bytes:
                return None
    return bytes(delta)


def apply_delta(new: Path, delta: bytes, old: Path) -> None:
    """Write to `old` what `new` was before.

    Raises: BadInput if the delta is not of this file.
    """
    with new.open("rb", buffering=0) as of_new, old.open("wb") as target:
        spelt, at = _take_number(delta, 0)
        shift = _signed(spelt)
        source = renumber(of_new, list_pages(of_new), shift) if shift else RenumberedFile(of_new)
        for step in _decode(delta, at, os.fstat(of_new.fileno()).st_size):
            match step:
                case Copy(start, length):
                    for block in range(start, start + length, BLOCK_BYTES):
                        target.write(source.read(block, min(block + BLOCK_BYTES, start + length)))
                case Patch(start, replaced, length, packed, plain):
                    there = source.read(start, start + replaced)
                    target.write(packed if plain else _unpack(packed, length, there))


def _steps(old: RenumberedFile, new: RenumberedFile, span: Region) -> Iterator[Copy | Patch]:
    """Copy what the two have in common at both ends, and look closer at what lies between."""
    front = _same_at_front(old, new, span)
    yield Copy(span.new_start, front)
    span = span._replace(old_start=span.old_start + front, new_start=span.new_start + front)
    back = _same_at_back(old, new, span)
    middle = span._replace(old_stop=span.old_stop - back, new_stop=span.new_stop - back)
    if max(middle.old_size, middle.new_size) <= PATCH_BYTES or not middle.old_size:
        yield _patch(old, new, middle)
    else:
        for part in _parted(old, new, middle):
            yield from _steps(old, new, part)
    yield Copy(middle.new_stop, back)


def _same_at_front(old: RenumberedFile, new: RenumberedFile, span: Region) -> int:
    """Count the bytes that are the same from the start of both."""
    most = min(span.old_size, span.new_size)
    for done in range(0, most, BLOCK_BYTES):
        size = min(BLOCK_BYTES, most - done)
        left = old.read(span.old_start + done, span.old_start + done + size)
        right = new.read(span.new_start + done, span.new_start + done + size)
        if left != right:
            return done + _same_bytes(left, right)
    return most


def _same_at_back(old: RenumberedFile, new: RenumberedFile, span: Region) -> int:
    """Count the bytes that are the same from the end of both."""
    most = min(span.old_size, span.new_size)
    for done in range(0, most, BLOCK_BYTES):
        size = min(BLOCK_BYTES, most - done)
        left = old.read(span.old_stop - done - size, span.old_stop - done)
        right = new.read(span.new_stop - done - size, span.new_stop - done)
        if left != right:
            return done + _same_bytes(left, right, from_end=True)
    return most


def _same_bytes(left: bytes, right: bytes, *, from_end: bool = False) -> int:
    """Count the bytes up to the first difference, which there is, by halving: a loop would be slow."""
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


def _parted(old: RenumberedFile, new: RenumberedFile, span: Region) -> tuple[Region, Region]:
    """Part a span at a place that is found in both files, or half way."""
    for quarter in (2, 1, 3):
        at = span.old_start + span.old_size * quarter // 4
        needle = old.read(at, min(at + NEEDLE_BYTES, span.old_stop))
        if needle.count(needle[:1]) == len(needle):
            continue  # silence is everywhere
        for guess in (span.new_start + at - span.old_start, span.new_stop + at - span.old_stop):
            low = max(guess - REACH_BYTES, span.new_start)
            found = new.read(low, min(guess + REACH_BYTES, span.new_stop)).find(needle)
            if found >= 0:
                return _cut(span, at, low + found)
    return _cut(span, span.old_start + span.old_size // 2, span.new_start + span.new_size // 2)


def _cut(span: Region, old_at: int, new_at: int) -> tuple[Region, Region]:
    return span._replace(old_stop=old_at, new_stop=new_at), span._replace(old_start=old_at, new_start=new_at)


def _patch(old: RenumberedFile, new: RenumberedFile, span: Region) -> Patch:
    there = new.read(span.new_start, min(span.new_stop, span.new_start + PATCH_BYTES))
    wanted = old.read(span.old_start, span.old_stop)
    packed = _pack(wanted, there) if wanted else b""
    plain = len(packed) >= len(wanted)
    return Patch(span.new_start, len(there), len(wanted), wanted if plain else packed, plain)


def _dictionary(there: bytes) -> zstandard.ZstdCompressionDict | None:
    if len(there) < LEAST_DICTIONARY_BYTES:
        return None
    return zstandard.ZstdCompressionDict(there, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _pack(wanted: bytes, there: bytes) -> bytes:
    """Compress bytes against those that took their place, without a header of any kind."""
    settings = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=len(wanted),
        dict_size=len(there),
        format=MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    packer = zstandard.ZstdCompressor(dict_data=_dictionary(there), compression_params=settings)
    return packer.compress(wanted)


def _unpack(packed: bytes, size: int, there: bytes) -> bytes:
    unpacker = zstandard.ZstdDecompressor(dict_data=_dictionary(there), format=MAGICLESS)
    try:
        wanted = unpacker.decompress(packed, max_output_size=size)
    except zstandard.ZstdError as why:
        raise BadInput(f"the delta of its former bytes is damaged ({why})") from None
    if len(wanted) != size:
        raise BadInput(f"the delta of its former bytes is damaged: {len(wanted)} bytes came out of {size}")
    return wanted


def _joined(steps: Iterator[Copy | Patch]) -> Iterator[Copy | Patch]:
    """Leave out empty steps, and make one of copies that follow each other."""
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


def _encode(step: Copy | Patch, place: int, new_size: int) -> bytes:
    away = _unsigned(step.start - place)
    match step:
        case Copy(start, size):
            return _number(0 if start + size == new_size else size << 1) + _number(away)
        case Patch(_, replaced, size, packed, plain):
            head = [size << 1 | 1, away, replaced, 0 if plain else len(packed)]
            return b"".join(map(_number, head)) + packed


def _decode(delta: bytes, at: int, new_size: int) -> Iterator[Copy | Patch]:
    place = 0
    while at < len(delta):
        head, at = _take_number(delta, at)
        away, at = _take_number(delta, at)
        start = place + _signed(away)
        size = head >> 1
        if head & 1:
            replaced, at = _take_number(delta, at)
            packed, at = _take_number(delta, at)
            content = delta[at : at + (packed or size)]
            at += packed or size
            step: Copy | Patch = Patch(start, replaced, size, content, not packed)
            place = start + replaced
        else:
            step = Copy(start, size or new_size - start)
            place = start + step.size
        if not 0 <= start <= place <= new_size or at > len(delta):
            raise BadInput("the delta of its former bytes does not fit this file")
        yield step


def _unsigned(value: int) -> int:
    """Fold numbers below 0 between those above, so that small ones stay small."""
    return value * 2 if value >= 0 else -value * 2 - 1


def _signed(value: int) -> int:
    return -(value + 1) // 2 if value & 1 else value // 2


def _number(value: int) -> bytes:
    """Spell a number in as few bytes as it needs: seven bits each, the highest says that more follow."""
    spelt = bytearray()
    while value > 0x7F:
        spelt.append(value & 0x7F | 0x80)
        value >>= 7
    spelt.append(value)
    return bytes(spelt)


def _take_number(delta: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(delta):
        value |= (delta[at] & 0x7F) << shift
        shift += 7
        at += 1
        if delta[at - 1] <= 0x7F:
            return value, at
    raise BadInput("the delta of its former bytes is cut off")
