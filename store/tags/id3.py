"""ID3 tags: a file keeps the version it has, several genres stay several, numbers stay text.

Source: id3.org, ID3v2.2.0, ID3v2.3.0 and ID3v2.4.0 (structure, TCON), ID3v1.1.
"""

import re
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO

from mutagen.id3 import ID3, TCON, TXXX, ID3NoHeaderError

from store.errors import BadInput
from store.tags.schema import CUSTOM_TAG_NAMES, Credits, TagEdit, join_values

ID3V1_BYTES = 128
PADDING_BYTES = 1024  # space for the next editor to write in place
NO_GENRE_CODE = 255
NO_GENRE_TEXTS = (str(NO_GENRE_CODE), f"({NO_GENRE_CODE})")
LATIN_1, UTF_16, UTF_8 = 0, 1, 3  # text encodings of ID3v2
LOOKS_LIKE_A_CODE = re.compile(r"\((\d+|RX|CR)\)|\(\(")
FRAME_NAME = re.compile(rb"[A-Z][A-Z0-9]{3}")
UNSYNCHRONISED, EXTENDED, FOOTER = 0x80, 0x40, 0x10


def load_id3(file: BinaryIO, *, with_v1: bool = False) -> ID3 | None:
    """Read the ID3v2 tag at the start of `file`, as its version has it, or None.

    `with_v1` adds from an ID3v1 tag what the ID3v2 tag lacks. Mutagen's translation to
    ID3v2.4 is switched off: it drops what that version no longer has.
    """
    file.seek(0)
    try:
        return ID3(file, translate=False, load_v1=with_v1)
    except ID3NoHeaderError:
        return None


def id3_genres(tag: ID3) -> list[str]:
    """Return the genres of a tag, codes as names ("17" and "(17)" are Rock)."""
    names = [name for text, _ in _genre_texts(tag) for name in names_in(text)]
    return list(dict.fromkeys(names))


def _genre_texts(tag: ID3 | None) -> list[tuple[str, int]]:
    """Return the genres of a tag as they are written, with their text encodings: a text may be codes for several."""
    frames = [] if tag is None else tag.getall("TCON")
    return [(text, int(frame.encoding)) for frame in frames for text in frame.text]


def names_in(text: str) -> list[str]:
    """Return the genres in one text of a TCON frame; the code 255 is none."""
    if text in NO_GENRE_TEXTS:
        return []
    return [name.strip() for name in TCON(encoding=3, text=[text]).genres if name.strip()]


def id3_custom_tags(tag: ID3) -> dict[str, str]:
    """Return the custom tags of a tag, by name."""
    frames = [frame for frame in tag.getall("TXXX") if frame.desc in CUSTOM_TAG_NAMES]
    return {frame.desc: str(frame.text[0]) for frame in frames if frame.text}


def id3_credits(tag: ID3) -> Credits:
    """Return artist, album and title."""
    artist, album, title = (
        join_values(str(text).strip() for frame in tag.getall(key) for text in frame.text)
        for key in ("TPE1", "TALB", "TIT2")
    )
    return Credits(artist, album, title)


def id3_other_fields(tag: ID3) -> list[str]:
    """Return all frames but genres and custom tags as text, without the encoding, which ID3v2.3 may change."""
    frames = [
        f"{key} { {name: value for name, value in vars(frame).items() if name != 'encoding'}!r}"
        for key, frame in tag.items()
        if not (frame.FrameID == "TCON" or (frame.FrameID == "TXXX" and frame.desc in CUSTOM_TAG_NAMES))
    ]
    return frames + [repr(bytes(frame)) for frame in tag.unknown_frames]


def edit_id3(block: bytes, tag: ID3 | None, edit: TagEdit) -> bytes:
    """Return the ID3v2 tag `block`, which mutagen read as `tag`, edited; b"" if it has no frames.

    A plain tag keeps all its other frames byte for byte, those too that mutagen would
    drop as damaged. Mutagen writes those that are not plain (2.2 as 2.3), and a new one out
    of an ID3v1 tag, since some readers look no further once there is an ID3v2 tag.
    """
    if block and tag is None:
        raise BadInput("its ID3 tag cannot be read")
    version = 3 if tag is not None and tag.version in ((2, 2, 0), (2, 3, 0)) else 4
    frames = [] if tag is None else _plain_frames(block)
    if frames is None:
        assert tag is not None
        if block and _count_frames(block) != len(tag) + len(tag.unknown_frames):
            raise BadInput(
                "its ID3 tag has damaged or double frames, which would be lost: rewrite it with another program first"
            )
        frames = _split_frames(_body(tag, version), bits=7 if version == 4 else 8) or []
    others = [frame for frame in frames if not _is_edited(frame, edit, block)]
    index = next((number for number, frame in enumerate(frames) if frame[:4] == b"TCON"), len(frames))
    before = [frame for frame in frames[:index] if not _is_edited(frame, edit, block)]
    custom_tags = [
        _text_frame(TXXX, [text], version, desc=name)
        for name, text in edit.custom_tags.items()
        if text is not None
    ]
    body = b"".join(
        [*before, _genre_frame(edit.genres or (), version, tag), *others[len(before) :], *custom_tags]
    )
    if not body:
        return b""
    space = len(block) - 10 - len(body)
    body += b"\0" * (space if space >= 0 else PADDING_BYTES)
    return _header(version, len(body)) + body


def _is_edited(frame: bytes, edit: TagEdit, block: bytes) -> bool:
    """Return whether the edit replaces or removes a frame of the tag `block`."""
    match frame[:4]:
        case b"TCON":
            return edit.genres is not None
        case b"TXXX":
            return _description(frame, block) in edit.custom_tags
    return False


def _description(frame: bytes, block: bytes) -> str:
    """Return the description of a TXXX frame; "" if its encoding is invalid."""
    if frame[8:10] != b"\0\0":  # compressed or encrypted: mutagen decodes it from a tag of its own
        alone = load_id3(BytesIO(_header(block[3], len(frame)) + frame))
        return "".join(found.desc for found in alone.getall("TXXX")) if alone is not None else ""
    encoding, content = frame[10:11], frame[11:]
    match encoding:
        case b"\0" | b"\3":
            return content.split(b"\0")[0].decode("latin-1")
        case b"\1" | b"\2":
            units = [content[at : at + 2] for at in range(0, len(content) - 1, 2)]
            text = b"".join(units[: units.index(b"\0\0")] if b"\0\0" in units else units)
            return text.decode("utf-16" if encoding == b"\1" else "utf-16-be", "replace")
    return ""


def _genre_frame(genres: Sequence[str], version: int, tag: ID3 | None) -> bytes:
    """Render a TCON frame; values are separated by NUL in 2.3 too, since "/" occurs in genres.

    Raises: BadInput if a genre that is kept would be written in another encoding than it has.

    Genres that the file has keep their texts, and these their encoding: many files contain bytes of another
    code page than the Latin-1 that they claim, and to translate these would damage them for good.
    """
    if not genres:
        return b""
    kept, texts = _keep_texts(genres, _genre_texts(tag))
    encodings = {encoding for text, encoding in kept if not text.isascii()}
    if encodings <= {UTF_16, UTF_16 + 1, UTF_8}:
        return _text_frame(TCON, texts, version)
    try:
        "".join(texts).encode("latin-1")
    except UnicodeEncodeError:
        encodings.add(UTF_16)
    if encodings != {LATIN_1}:
        name = next(text for text, encoding in kept if encoding == LATIN_1 and not text.isascii())
        raise BadInput(
            f"its genre {name!r} is in a single-byte encoding, which the new genres cannot be written in, and "
            "to rewrite it could damage it"
        )
    return _text_frame(TCON, texts, version, encoding=LATIN_1)


def _keep_texts(
    genres: Sequence[str], old: Sequence[tuple[str, int]]
) -> tuple[list[tuple[str, int]], list[str]]:
    """Return the old texts that are kept, and all texts to write for `genres`."""
    kept: list[tuple[str, int]] = []
    texts: list[str] = []
    left = list(genres)
    while left:
        for text, encoding in old:
            names = names_in(text)
            if names and left[: len(names)] == names:
                kept.append((text, encoding))
                break
        else:
            text, names = _as_text(left[0]), left[:1]
        texts.append(text)
        left = left[len(names) :]
    return kept, texts


def _text_frame(
    kind: "type[TCON | TXXX]", texts: Sequence[str], version: int, encoding: int | None = None, **more: str
) -> bytes:
    tag = ID3()
    if encoding is None:
        encoding = LATIN_1 if all(text.isascii() for text in texts) else UTF_16 if version == 3 else UTF_8
    tag.add(kind(encoding=encoding, text=list(texts), **more))
    return _body(tag, version)


def _body(tag: ID3, version: int) -> bytes:
    """Render the frames of a tag with mutagen."""
    rendered = BytesIO()
    tag.save(rendered, v1=0, v2_version=version, v23_sep=None, padding=lambda info: 0)
    return rendered.getvalue()[10:]


def _as_text(genre: str) -> str:
    """Return a genre as text that no reader takes for a code of ID3v1.

    ID3v2.3 doubles a parenthesis to mean "no code". For bare numbers there is no rule; with
    a space after them, ffmpeg, taglib and mutagen take them for text, and we strip it.
    """
    if genre in ("RX", "CR") or (genre.isdecimal() and int(genre) < 256):
        return genre + " "
    return "(" + genre if LOOKS_LIKE_A_CODE.match(genre) else genre


def read_id3v1(file: BinaryIO) -> bytes:
    """Return the ID3v1 tag at the end of a file; b"" if there is none."""
    if file.seek(0, 2) < ID3V1_BYTES:
        return b""
    file.seek(-ID3V1_BYTES, 2)
    block = file.read(ID3V1_BYTES)
    return block if block[:3] == b"TAG" and block[:5] != b"TAGEX" else b""


def id3v1_genres(block: bytes) -> list[str]:
    """Return the genre of an ID3v1 tag; none for a code that is not in its list."""
    return [TCON.GENRES[block[-1]]] if block and block[-1] < len(TCON.GENRES) else []


def code_of_genre(genre: str) -> int | None:
    """Return the code of a genre in the list of ID3v1; None if it is not in it."""
    return TCON.GENRES.index(genre) if genre in TCON.GENRES else None


def id3v1_with_genres(block: bytes, genres: Sequence[str]) -> bytes:
    """Set the genre of an ID3v1 tag, which has a fixed list of them, to the first one; keep the rest.

    Mutagen would create the whole block from the ID3v2 tag and lose the comment.
    """
    code = code_of_genre(genres[0]) if genres else None
    return block[:-1] + bytes([NO_GENRE_CODE if code is None else code]) if block else b""


# A tag as bytes: split into frames, whose content is not read.


def _header(version: int, size: int) -> bytes:
    """Render the header of a plain tag."""
    return b"ID3" + bytes([version, 0, 0]) + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def _plain_frames(block: bytes) -> list[bytes] | None:
    """Split a tag into its frames; return None if flags, version or damage make that unsafe."""
    if len(block) < 10 or block[3] not in (3, 4) or block[5]:
        return None
    # Old iTunes wrote the sizes in ID3v2.4 as plain numbers.
    splits = [_split_frames(block[10:], bits) for bits in ((7, 8) if block[3] == 4 else (8,))]
    return next((frames for frames in splits if frames is not None), None)


def _split_frames(body: bytes, bits: int) -> list[bytes] | None:
    """Split into frames whose sizes have `bits` bits a byte; return None if the frames do not fill the body."""
    frames = []
    start = 0
    while start < len(body) and body[start]:
        sizes = body[start + 4 : start + 8]
        if len(body) < start + 10 or not FRAME_NAME.match(body, start) or max(sizes) >> bits:
            return None
        end = start + 10 + sum(byte << bits * (3 - index) for index, byte in enumerate(sizes))
        if end > len(body):
            return None
        frames.append(body[start:end])
        start = end
    return None if body[start:].strip(b"\0") else frames


def _count_frames(block: bytes) -> int | None:
    """Return the number of frames with content of a tag that is not plain; None if it is damaged."""
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
    return sum(byte << bits * index for index, byte in enumerate(reversed(digits)))
