"""The offsets in an MP4 file: listed, corrected after an edit of its tags, and verified.

Tags lie before the audio in most files, and absolute offsets into the audio move with them. Fragmented files have
many tables of them.
Source: ISO/IEC 14496-12 (2022): 8.7.5 stco, co64; 8.8.7 tfhd; 8.8.8 trun; 8.8.10 tfra; 8.16.3 sidx; 8.7.9 saio;
    8.11.3 iloc; 8.7.2 dref. QuickTime File Format, compressed movie resources.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, NamedTuple

from store.errors import BadInput

PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"udta", b"moof", b"traf", b"mfra", b"meta")
POINTING = (b"stco", b"co64", b"tfhd", b"trun", b"tfra", b"sidx", b"saio", b"iloc")
PADDING = (b"free", b"skip", b"wide")
HEADER_ONLY = 8  # bytes of the shortest box
BASE_IS_GIVEN, DATA_OFFSET_IS_GIVEN, IS_SELF_CONTAINED = 1, 1, 1  # flags
BASE_IS_FRAGMENT = 0x020000


class Box(NamedTuple):
    """A box: its type after those of its parents, its first byte, its content, its end."""

    path: tuple[bytes, ...]
    start: int
    content: int
    stop: int

    @property
    def kind(self) -> bytes:
        return self.path[-1]


class Pointer(NamedTuple):
    """An offset: the field that holds it, what is added to the field, and the byte of the file that it leads to.

    Width 0: the field is relative to its own fragment, which moves as a whole.
    """

    at: int
    width: int
    added: int
    target: int
    is_audio: bool = False


@dataclass(frozen=True)
class Layout:
    """All boxes of a file but those of its tags, and all offsets."""

    boxes: list[Box]
    pointers: list[Pointer]
    size: int

    @cached_property
    def landmarks(self) -> list[Box]:
        """Return the boxes that an edit keeps, in order of their start; one without tags may get a udta box."""
        return [box for box in self.boxes if box.kind != b"udta"]

    @cached_property
    def starts(self) -> list[int]:
        return [box.start for box in self.landmarks]

    def locate(self, target: int) -> tuple[int, int]:
        """Return a byte as the number of the innermost box that contains it and the distance from its start.

        Raises: BadInput if it is among the tags.
        """
        number = bisect_right(self.starts, target) - 1
        if target >= self.size or number < 0:
            return -1, target - self.size
        if target >= self.landmarks[number].stop:
            raise BadInput(
                f"an offset leads into its tags (byte {target}): its tables of offsets are damaged"
            )
        return number, target - self.landmarks[number].start

    def is_header(self, target: int) -> bool:
        """Return whether a byte is inside a box of headers, which an edit may change."""
        number = bisect_right(self.starts, target) - 1
        box = self.landmarks[max(number, 0)]
        return box.start < target < box.stop and box.kind in (*PARENTS, *POINTING)

    def position(self, place: tuple[int, int]) -> int:
        """Return the byte that `locate` described in a file of the same boxes."""
        number, distance = place
        return self.size + distance if number < 0 else self.starts[number] + distance


def read_layout(file: BinaryIO) -> Layout:
    """Read the boxes and offsets of a file.

    Raises: BadInput if its structure is broken, or its audio is in another file or its header compressed.
    """
    size = file.seek(0, 2)
    boxes = list(_walk(file, 0, size, ()))
    if _ends_with_index(file, size) and not any(box.kind == b"mfra" for box in boxes):
        raise BadInput("its index of fragments is hidden in another box: the file is damaged")
    return Layout(boxes, list(_pointers(file, boxes)), size)


def _ends_with_index(file: BinaryIO, size: int) -> bool:
    """Return whether a reader that looks for an index of fragments at the end of the file finds one."""
    return size >= 16 and _exactly(file, size - 12, 4) == b"mfro"


def check_offsets(file: BinaryIO) -> None:
    """Raise BadInput if the offsets of a file could not be corrected after an edit of its tags."""
    layout = read_layout(file)
    for pointer in layout.pointers:
        layout.locate(pointer.target)
        if pointer.is_audio and pointer.target and layout.is_header(pointer.target):
            raise BadInput(
                f"an offset to its audio leads into a header (byte {pointer.target}): it is damaged"
            )


def correct_offsets(source: BinaryIO, draft: BinaryIO) -> None:
    """Have each offset of `draft` lead to the same byte of audio as in `source`, whose tags were edited.

    Raises: BadInput if an offset does not fit its field.
    """
    before, after = read_layout(source), read_layout(draft)
    if [box.path for box in before.landmarks] != [box.path for box in after.landmarks]:
        raise BadInput("the order of its boxes would change")
    for old, new in zip(before.pointers, after.pointers, strict=True):
        value = after.position(before.locate(old.target)) - new.added
        if not new.width or value == new.target - new.added:
            continue
        if not 0 <= value < 1 << 8 * new.width:
            raise BadInput(
                f"its audio would start at byte {value}, beyond what its tables of offsets can hold"
            )
        draft.seek(new.at)
        draft.write(value.to_bytes(new.width, "big"))


def payload_pieces(file: BinaryIO, block_bytes: int) -> Iterator[bytes]:
    """Yield the boxes without the tags, and each offset as the byte that it leads to."""
    check_offsets(file)
    layout = read_layout(file)
    fields = [pointer.at for pointer in layout.pointers]
    for box in layout.boxes:
        if box.kind in PARENTS or (box.kind in PADDING and len(box.path) > 1):
            continue
        yield b"/".join(box.path)
        if box.kind in POINTING:
            inside = slice(bisect_left(fields, box.content), bisect_left(fields, box.stop))
            yield _without_offsets(file, box, layout.pointers[inside])
        else:
            yield from _read(file, box.content, box.stop, block_bytes)
    for pointer in layout.pointers:
        yield struct.pack(">qq", *layout.locate(pointer.target))


def _without_offsets(file: BinaryIO, box: Box, pointers: Sequence[Pointer]) -> bytes:
    content = bytearray(_exactly(file, box.content, box.stop - box.content))
    for pointer in pointers:
        at = pointer.at - box.content
        content[at : at + pointer.width] = bytes(pointer.width)
    return bytes(content)


def _read(file: BinaryIO, start: int, stop: int, block_bytes: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop and (block := file.read(min(block_bytes, stop - start))):
        start += len(block)
        yield block


def _exactly(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise BadInput(f"the file ends at byte {at + len(data)}, inside a header: it is cut off")
    return data


def _walk(file: BinaryIO, start: int, stop: int, parents: tuple[bytes, ...]) -> Iterator[Box]:
    """Yield the boxes between two offsets, and those inside them, without the tags."""
    while start + HEADER_ONLY <= stop:
        size, kind = struct.unpack(">I4s", _exactly(file, start, 8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", _exactly(file, start + 8, 8))[0], 16
        end = start + size if size else stop
        if (size and size < head) or end > stop:
            if parents[-1:] == (b"udta",):  # QuickTime ends this list with zeros, others with text
                break
            raise BadInput(f"the MP4 box at byte {start} claims {size} bytes, but {stop - start} are left")
        if size == 0 and kind != b"mdat" and parents[-1:] != (b"udta",):
            raise BadInput(f"the MP4 box at byte {start} states no size: the file is damaged")
        if kind == b"cmov":
            raise BadInput("its header is compressed (cmov): its tables of offsets cannot be corrected")
        box = Box((*parents, kind), start, start + head, end)
        if box.path[-3:] != (b"moov", b"udta", b"meta"):
            yield box
            if kind in PARENTS:
                yield from _walk(file, _first_child(file, box), end, box.path)
        start = end


def _first_child(file: BinaryIO, box: Box) -> int:
    """Return where the boxes in a box begin: in a meta box of ISO files after four bytes, unlike in QuickTime's."""
    if box.kind != b"meta" or box.stop - box.content < 8:
        return box.content
    return box.content + (0 if _exactly(file, box.content + 4, 4) == b"hdlr" else 4)


def _pointers(file: BinaryIO, boxes: Sequence[Box]) -> Iterator[Pointer]:
    """Yield the offsets in the order of their fields."""
    base, fragment, tracks = 0, 0, 0
    is_known = True  # where the audio of a track fragment is counted from
    for box in boxes:
        match box.kind:
            case b"moof":
                fragment, tracks = box.start, 0
            case b"traf":
                base, tracks = fragment, tracks + 1
                is_known = tracks == 1
            case b"dref":
                _check_references(file, box)
            case b"tfhd" if _flags(file, box) & BASE_IS_GIVEN:
                pointer = _field(file, box.content + 8, 8)
                base, is_known = pointer.target, True
                yield pointer
            case b"tfhd":
                is_known = is_known or bool(_flags(file, box) & BASE_IS_FRAGMENT)
            case b"trun" if _flags(file, box) & DATA_OFFSET_IS_GIVEN:
                samples, distance = struct.unpack(">Ii", _exactly(file, box.content + 4, 8))
                yield Pointer(box.content + 8, 0, base, base + distance, is_known and samples > 0)
            case b"saio":
                yield from _of_auxiliary(file, box, base if b"traf" in box.path else None)
            case b"stco" | b"co64":
                yield from _of_chunks(file, box)
            case b"sidx":
                wide = _exactly(file, box.content, 1)[0] > 0
                width, at = (8, box.content + 20) if wide else (4, box.content + 16)
                yield _field(file, at, width, added=box.stop)
            case b"tfra":
                yield from _of_random_access(file, box)
            case b"iloc":
                yield from _of_items(file, box)


def _flags(file: BinaryIO, box: Box) -> int:
    return int.from_bytes(_exactly(file, box.content + 1, 3), "big")


def _number(file: BinaryIO, at: int, width: int) -> int:
    return int.from_bytes(_exactly(file, at, width), "big")


def _field(file: BinaryIO, at: int, width: int, *, added: int = 0) -> Pointer:
    return Pointer(at, width, added, added + _number(file, at, width))


def _of_chunks(file: BinaryIO, box: Box) -> Iterator[Pointer]:
    width = 4 if box.kind == b"stco" else 8
    count = min(_number(file, box.content + 4, 4), (box.stop - box.content - 8) // width)
    table = _exactly(file, box.content + 8, count * width)
    for row, (offset,) in enumerate(struct.iter_unpack(">I" if width == 4 else ">Q", table)):
        yield Pointer(box.content + 8 + row * width, width, 0, offset, is_audio=True)


def _of_auxiliary(file: BinaryIO, box: Box, base: int | None) -> Iterator[Pointer]:
    """Yield the offsets of auxiliary information, in a fragment relative to that."""
    width = 8 if _exactly(file, box.content, 1)[0] else 4
    at = box.content + (12 if _flags(file, box) & 1 else 4)
    for row in range(min(_number(file, at, 4), (box.stop - at - 4) // width)):
        pointer = _field(file, at + 4 + row * width, width, added=base or 0)
        yield pointer if base is None else pointer._replace(width=0)


def _of_random_access(file: BinaryIO, box: Box) -> Iterator[Pointer]:
    width = 8 if _exactly(file, box.content, 1)[0] else 4
    lengths = _number(file, box.content + 8, 4)
    row_bytes = 2 * width + sum((lengths >> shift & 3) + 1 for shift in (4, 2, 0))
    start = box.content + 16
    for row in range(min(_number(file, box.content + 12, 4), (box.stop - start) // row_bytes)):
        yield _field(file, start + row * row_bytes + width, width)


def _of_items(file: BinaryIO, box: Box) -> Iterator[Pointer]:
    """Yield the offsets of items, such as pictures: those that count from the start of the file."""
    version, sizes = _exactly(file, box.content, 1)[0], _number(file, box.content + 4, 2)
    offset_width, length_width, base_width = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_width = sizes & 15 if version in (1, 2) else 0
    id_width = 2 if version < 2 else 4
    at = box.content + 6 + id_width
    for _ in range(_number(file, box.content + 6, id_width)):
        at += id_width
        method = 0
        if version in (1, 2):
            method = _number(file, at, 2) & 15
            at += 2
        base_at, base = at + 2, _number(file, at + 2, base_width)
        extents = _number(file, base_at + base_width, 2)
        at = base_at + base_width + 2
        for _ in range(extents):
            offset_at = at + index_width
            offset = _number(file, offset_at, offset_width)
            at = offset_at + offset_width + length_width
            if method == 0 and base_width:
                yield Pointer(base_at, base_width, offset, base + offset)
            elif method == 0 and offset_width:
                yield Pointer(offset_at, offset_width, 0, offset)


def _check_references(file: BinaryIO, box: Box) -> None:
    """Raise BadInput if a track is in another file."""
    at = box.content + 8
    while at + 12 <= box.stop:
        size, _, flags = struct.unpack(">I4sI", _exactly(file, at, 12))
        if not flags & IS_SELF_CONTAINED:
            raise BadInput("its audio is in another file, which its offsets lead into")
        at += max(size, 12)
