"""The audio in a file, apart from its tags, as a hash: tagging must never change it."""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from store.errors import BadInput
from store.tags.containers import asf, mp4, ogg
from store.tags.riff import has_trailing_tags, is_tag_chunk, list_chunks

Container = Literal["riff", "aiff", "flac", "ogg", "mp4", "asf", "raw"]

BLOCK_BYTES = 1 << 20
MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
PREFIXED = (  # where their marks are; ID3 tags belong to none of them, though players skip these
    (0, b"OggS", "Ogg"),
    (0, b"RIFF", "WAV"),
    (0, b"FORM", "AIFF"),
    (4, b"ftyp", "MP4"),
    (0, asf.HEADER[:12], "WMA"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"tBaK", "TAK"),
    (0, b"OFR ", "OptimFROG"),
)
FLAC_TAGS = (1, 4, 6)  # padding, comments, pictures


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


def check_structure(path: Path) -> None:
    """Raise BadInput if the structure of a file rules out any edit of its tags. Only headers are read."""
    with path.open("rb") as file:
        match detect_container(file):
            case "riff" | "aiff":
                if has_trailing_tags(file):
                    raise BadInput(
                        "it has tags after the end that its header claims, and readers disagree on those"
                    )
            case "flac":
                list(_flac_blocks(file))
            case "ogg":
                _refuse_trailing_tags(file)
                for _ in ogg.read_pages(file):
                    pass
            case "mp4":
                _refuse_trailing_tags(file)
                mp4.check_offsets(file)
            case "asf":
                _refuse_trailing_tags(file)
                list(asf.payload_pieces(file))
            case "raw":
                if name := prefixed_container(file):
                    raise BadInput(
                        f"an ID3 tag precedes its {name} stream, and readers disagree on which tags count: "
                        "remove the ID3 tag"
                    )


def _refuse_trailing_tags(file: BinaryIO) -> None:
    if start_of_trailing_tags(file) < file.seek(0, 2):
        raise BadInput("it has an ID3v1 or APEv2 tag after its audio, and readers disagree on those")


def prefixed_container(file: BinaryIO) -> str | None:
    """Return the name of the container that an ID3 tag precedes though it has tags of another kind; else None."""
    end = end_of_leading_tags(file)
    start = _at(file, end, 12) if end else b""
    return next((name for at, mark, name in PREFIXED if start[at:].startswith(mark)), None)


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
    return "asf" if start == asf.HEADER[:12] else "raw"


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
        case "riff" | "aiff":
            yield from _chunks(file)
        case "flac":
            yield from _flac_pieces(file)
        case "ogg":
            yield from ogg.payload_pieces(file)
        case "mp4":
            yield from mp4.payload_pieces(file, BLOCK_BYTES)
        case "asf":
            yield from asf.payload_pieces(file)
            yield from _read_range(file, asf.end_of_header(file))  # the Data object and its indices
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


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield all chunks but the tags, in order: the audio, its format, cue points, loops and marks."""
    for chunk in list_chunks(file):
        if not is_tag_chunk(file, chunk):
            yield chunk.id
            yield from _read_range(file, chunk.start, chunk.start + chunk.size)


def _flac_blocks(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield the type, start and end of each metadata block. Source: RFC 9639, section 8.1."""
    end = end_of_leading_tags(file) + 4
    last = False
    while not last:
        header = _whole(file, end, 4)
        last = header[0] >= 0x80
        start, end = end + 4, end + 4 + int.from_bytes(header[1:], "big")
        yield header[0] & 0x7F, start, end


def _flac_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the frames, and the blocks that describe them: their length and checksum, seek points, cue sheets."""
    end = 0
    for kind, start, end in _flac_blocks(file):
        if kind not in FLAC_TAGS:
            yield bytes([kind]) + _whole(file, start, end - start)
    yield from _read_range(file, end, start_of_trailing_tags(file))
