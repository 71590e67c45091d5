"""All fields of the tags of a file, by name, for a person to read or compare."""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mutagen
from mutagen.flac import Picture
from mutagen.id3 import ID3

from store.tags.formats import TagFormat, detect_tag_format, edited_fields, open_tags, parse_tags
from store.tags.id3_files import read_id3_tags
from store.tags.schema import CUSTOM_TAG_NAMES
from store.tags.wav_aiff import read_wav_aiff_tags
from store.tags.write import resolve_audio_file, translate_errors

MAX_VALUE_CHARS = 200
ITUNES = "----:com.apple.iTunes:"

Fields = dict[str, list[str]]


def read_fields(path: Path | str) -> Fields:
    """Return the fields of a file: genre, artist, album, title and custom tags by these names, others by their own.

    Raises: BadInput if the file or its tags cannot be read.

    Long texts are shortened. Binary values, such as pictures, are described in a few words, with the start of
    their SHA-256, so that two of them can be distinguished.
    """
    with translate_errors(path):
        real = resolve_audio_file(path)
        kind = detect_tag_format(real)
        view = parse_tags(real, kind)
        credits = {name: [getattr(view.credits, name) or ""] for name in ("artist", "album", "title")}
        fields: Fields = {
            "genre": view.genres,
            **credits,
            **{key: [text] for key, text in view.custom_tags.items()},
        }
        for name, value in _other_values(real, kind):
            fields.setdefault(name, []).append(_format(value))
    present = {name: [text for text in texts if text] for name, texts in fields.items()}
    return {name: texts for name, texts in present.items() if texts}


def _other_values(path: Path, kind: TagFormat) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the fields without a common name."""
    match kind:
        case "id3":
            tag, ape = read_id3_tags(path)
            yield from _frames(tag)
            yield from ((f"APEv2:{key}", value) for key, value in ape.items())
            return
        case "riff" | "aiff":
            tag, entries = read_wav_aiff_tags(path)
            yield from _frames(tag)
            yield from ((f"INFO:{name.decode('latin-1')}", text.split(b"\0")[0]) for name, text in entries)
            return
    audio = open_tags(path, kind)
    edited = edited_fields(kind)
    tags: Any = audio.tags if audio.tags is not None else {}
    for key, value in tags if isinstance(tags, list) else tags.items():
        if key.lower() not in edited:
            name = key.removeprefix(ITUNES).removeprefix("----:")
            yield from ((name, it) for it in (value if isinstance(value, list) else [value]))
    yield from (("picture", picture) for picture in getattr(audio, "pictures", []))
    if getattr(audio, "cuesheet", None):
        yield "cue sheet", f"{len(audio.cuesheet.tracks)} tracks"
    for chapter in getattr(audio, "chapters", None) or ():
        yield "chapter", f"{chapter.start:.3f} s: {chapter.title}"


def _frames(tag: ID3) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the frames of an ID3 tag; the name includes the description of the frame, if any."""
    edited = edited_fields("id3")
    for frame in tag.values():
        descriptions = [getattr(frame, part, "") for part in ("desc", "owner", "element_id", "lang")]
        name = ":".join([frame.FrameID, *(text.strip(" \0") for text in descriptions if text.strip(" \0"))])
        if frame.FrameID.lower() in edited or name in [f"TXXX:{custom}" for custom in CUSTOM_TAG_NAMES]:
            continue
        match frame.FrameID:
            case "APIC":
                yield name, f"{frame.mime}, {_format(frame.data)}"
            case "CHAP":
                titles = [str(title) for title in frame.sub_frames.getall("TIT2")]
                yield (
                    name,
                    " ".join([f"{frame.start_time / 1000:.3f} s to {frame.end_time / 1000:.3f} s", *titles]),
                )
            case "CTOC":
                yield name, frame.child_element_ids
            case "SYLT":
                yield name, " ".join(text for text, _ in frame.text)
            case _:
                yield from ((name, value) for value in _values(frame))
    yield from (("unknown frame", data) for data in tag.unknown_frames)


def _values(frame: Any) -> Iterable[Any]:
    """Return the values of a frame of any other kind."""
    for part in ("text", "url", "people", "data"):
        if hasattr(frame, part):
            value = getattr(frame, part)
            return value if isinstance(value, list) else [value]
    parts = {
        name: value for name, value in vars(frame).items() if name not in ("desc", "owner", "element_id")
    }
    return [", ".join(f"{name} {_format(value)}" for name, value in parts.items())]


def _format(value: Any) -> str:
    """Format a value as one line."""
    match getattr(value, "value", value):  # APEv2 and ASF wrap theirs
        case bytes() as data:
            text = _decode_text(data)
            return _shorten(text) if text is not None else _describe_binary(data)
        case bool() as flag:
            return "yes" if flag else "no"
        case tuple() | list() as parts:  # track 3 of 9; a person and a role
            return _shorten(", ".join(_format(part) for part in parts))
        case Picture() as picture:
            return f"{picture.mime or 'a picture'}, {_describe_binary(picture.data)}"
        case other:
            return _format_text(str(other).replace("\0", "; "))


def _decode_text(data: bytes) -> str | None:
    """Return bytes as text; None if they are no text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if all(sign.isprintable() or sign.isspace() for sign in text) else None


def _format_text(text: str) -> str:
    """Shorten a text, and describe a picture in base64, as Vorbis comments contain it."""
    if len(text) > MAX_VALUE_CHARS:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return _shorten(text)
        try:
            return _format(Picture(data))
        except mutagen.MutagenError:
            return _describe_binary(data)
    return _shorten(text)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_VALUE_CHARS else f"{line[:MAX_VALUE_CHARS]}… ({len(line):,} characters)"


def _describe_binary(data: bytes) -> str:
    return f"{len(data):,} bytes ({hashlib.sha256(data).hexdigest()[:8]})" if data else ""
