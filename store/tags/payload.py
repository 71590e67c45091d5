"""The audio in a file, apart from its tags, as a hash: tagging must never change it."""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from store.errors import BadInput
from store.tags.riff import list_chunks

Container = Literal["riff", "aiff", "flac", "ogg", "mp4", "asf", "raw"]

BLOCK_BYTES = 1 << 20
MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
MP4_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
OGG_WITH_COMMENTS = (b"\x01vorbis", b"OpusHead", b"Speex   ", b"\x80theora", b"\x7fFLAC")
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def hash_payload(path: Path) -> str:
    """Hash the encoded audio of a file, without its tags, wherever these are.

    Raises: BadInput, without the file's name, if its structure is broken.

    Only our own parsers are used here, so that the hash is independent of mutagen.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _pieces(file):
            digest.update(piece)
    return digest.hexdigest()


def detect_container(file: BinaryIO) -> Container:
    """Return the container of the audio, from the first bytes of the file, not from its name."""
    file.seek(0)
    start = file.read(12)
    match start[:4]:
        case b"RIFF" | b"RF64" | b"BW64":
            return "riff"
        case b"FORM":
            return "aiff"
        case b"OggS":
            return "ogg"
    if (file.seek(end_of_leading_tags(file)) and file.read(4) == b"fLaC") or start[:4] == b"fLaC":
        return "flac"
    if start[4:8] in MP4_FIRST_BOXES:
        return "mp4"
    return "asf" if start == ASF_HEADER[:12] else "raw"


def end_of_leading_tags(file: BinaryIO, *, first_only: bool = False) -> int:
    """Return the end of the ID3v2 tags at the start of a file.

    Raises: BadInput if the file ends before.
    Source: id3.org, ID3v2.4.0 structure, 3.1 header and 3.4 footer.
    """
    end, length = 0, file.seek(0, 2)
    while True:
        file.seek(end)
        header = file.read(10)
        if len(header) < 10 or header[:3] != b"ID3" or max(header[6:]) > 0x7F:
            return end
        size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
        end += 10 + size + (10 if header[5] & 0x10 else 0)
        if end > length:
            raise BadInput(f"its ID3 tag claims {end} bytes, but the file has {length}: it is cut off")
        if first_only:
            return end


def start_of_trailing_tags(file: BinaryIO) -> int:
    """Return the start of the ID3v1 and APEv2 tags at the end of a file."""
    start = file.seek(0, 2)
    if _at(file, start - 128, 3) == b"TAG" and _at(file, start - 128, 5) != b"TAGEX":
        start -= 128
    footer = _at(file, start - 32, 32)
    if footer[:8] == b"APETAGEX":
        size, _, flags = struct.unpack("<III", footer[12:24])
        size += 32 if flags >> 31 else 0
        start -= size if 32 <= size <= start else 0
    return start


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    if offset < 0:
        return b""
    file.seek(offset)
    return file.read(size)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    match detect_container(file):
        case "riff":
            yield from _chunks(file, (b"fmt ", b"data"))
        case "aiff":
            yield from _chunks(file, (b"COMM", b"SSND"))
        case "flac":
            yield from _read_range(file, _end_of_flac_metadata(file), start_of_trailing_tags(file))
        case "ogg":
            yield from _ogg_pieces(file)
        case "mp4":
            yield from _mp4_pieces(file)
        case "asf":
            yield from _read_range(file, _end_of_asf_header(file))  # the Data object and its indices
        case "raw":
            yield from _read_range(file, end_of_leading_tags(file), start_of_trailing_tags(file))


def _read_range(file: BinaryIO, start: int, stop: int | None = None) -> Iterator[bytes]:
    """Read from `start` up to `stop` or the end of the file, in blocks."""
    file.seek(start)
    left = stop - start if stop is not None else 1 << 62
    while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
        left -= len(block)
        yield block


def _whole(file: BinaryIO, offset: int, size: int) -> bytes:
    data = _at(file, offset, size)
    if len(data) < size:
        raise BadInput(f"the file ends at byte {offset + len(data)}, inside a header: it is cut off")
    return data


def _chunks(file: BinaryIO, ids: tuple[bytes, ...]) -> Iterator[bytes]:
    for chunk in list_chunks(file):
        if chunk.id in ids:
            yield chunk.id
            yield from _read_range(file, chunk.start, chunk.start + chunk.size)


def _end_of_flac_metadata(file: BinaryIO) -> int:
    """Return the offset of the first FLAC frame. Source: RFC 9639, section 8.1."""
    end = end_of_leading_tags(file) + 4
    last = False
    while not last:
        header = _whole(file, end, 4)
        last = header[0] >= 0x80
        end += 4 + int.from_bytes(header[1:], "big")
    return end


def _end_of_asf_header(file: BinaryIO) -> int:
    end: int = struct.unpack("<Q", _whole(file, 16, 8))[0]
    length = file.seek(0, 2)
    if end > length:
        raise BadInput(f"the ASF header claims {end} bytes, but the file has {length}")
    return end


def _ogg_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield a digest of each logical stream: its packets without the comments, and its last time stamp.

    A longer comment moves the page boundaries, so packets are compared, not pages; and streams
    are hashed separately, since their pages may interleave in another way.
    """
    digests: dict[int, hashlib._Hash] = {}
    packets: dict[int, int] = {}
    tagged: set[int] = set()
    ends: dict[int, int] = {}
    for serial, packet, granule in ogg_packets(file):
        number = packets.get(serial, 0)
        packets[serial] = number + 1
        ends[serial] = granule
        if number == 0:
            digests[serial] = hashlib.sha256()
            if packet.startswith(OGG_WITH_COMMENTS):
                tagged.add(serial)
        if number != 1 or serial not in tagged:  # the second packet holds the comments
            digests[serial].update(struct.pack("<Q", len(packet)) + packet)
    for serial in sorted(digests):
        yield struct.pack("<Iq", serial, ends[serial]) + digests[serial].digest()


def ogg_packets(file: BinaryIO) -> Iterator[tuple[int, bytes, int]]:
    """Yield (stream, packet, time stamp of its page) of an Ogg file. Source: RFC 3533, section 6."""
    pieces: dict[int, bytes] = {}
    file.seek(0)
    while header := file.read(27):
        if len(header) < 27 or header[:4] != b"OggS":
            raise BadInput(f"no Ogg page at byte {file.tell() - len(header)}: the file is damaged or cut off")
        granule, serial = struct.unpack("<qI", header[6:18])
        for size, complete in _lacing(file.read(header[26])):
            packet = file.read(size)
            if len(packet) < size:
                raise BadInput(f"the last Ogg page is cut off at byte {file.tell()}")
            packet = pieces.pop(serial, b"") + packet
            if complete:
                yield serial, packet, granule
            else:
                pieces[serial] = packet
    for serial, packet in pieces.items():  # the file ends inside a packet
        yield serial, packet, -1


def _lacing(sizes: bytes) -> Iterator[tuple[int, bool]]:
    """Yield (bytes of a packet on this page, whether the packet ends here), from runs of 255."""
    size = 0
    for part in sizes:
        size += part
        if part < 255:
            yield size, True
            size = 0
    if size:
        yield size, False


def _mp4_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the content of each mdat, and the offsets in it of the chunks of the tracks.

    Source: ISO/IEC 14496-12, 8.7.5. The chunk offsets move with the tags before them:
    shifted wrongly, the same bytes play as noise.
    """
    boxes = list(_mp4_boxes(file, 0, file.seek(0, 2)))
    spans = [(start, stop) for kind, start, stop in boxes if kind == b"mdat"]
    for start, stop in spans:
        yield from _read_range(file, start, stop)
    for kind, start, stop in boxes:
        if kind in (b"stco", b"co64"):
            width, code = (4, "I") if kind == b"stco" else (8, "Q")
            table = _whole(file, start + 8, (stop - start - 8) // width * width)
            for (offset,) in struct.iter_unpack(f">{code}", table):
                yield struct.pack(">qq", *_locate(spans, offset))


def _locate(spans: list[tuple[int, int]], offset: int) -> tuple[int, int]:
    for number, (start, stop) in enumerate(spans):
        if start <= offset < stop:
            return number, offset - start
    return -1, 0


def _mp4_boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes between two offsets, and those inside the parents of chunk tables."""
    while start + 8 <= stop:
        size, kind = struct.unpack(">I4s", _whole(file, start, 8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", _whole(file, start + 8, 8))[0], 16
        end = start + size if size else stop
        if (size and size < head) or end > stop:
            raise BadInput(f"the MP4 box at byte {start} claims {size} bytes, but {stop - start} are left")
        yield kind, start + head, end
        if kind in MP4_PARENTS:
            yield from _mp4_boxes(file, start + head, end)
        start = end
