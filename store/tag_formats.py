"""Where each kind of audio file keeps its tags: read them, and render a copy with other genres.

Files are told apart by their content; their names are often wrong.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import mutagen
from mutagen.aac import AAC
from mutagen.apev2 import APENoHeaderError, APEv2
from mutagen.asf import ASF
from mutagen.flac import FLAC
from mutagen.id3 import ID3
from mutagen.monkeysaudio import MonkeysAudio
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggtheora import OggTheora
from mutagen.oggvorbis import OggVorbis
from mutagen.optimfrog import OptimFROG
from mutagen.tak import TAK
from mutagen.trueaudio import TrueAudio
from mutagen.wavpack import WavPack

from store.audio_payload import container_of, end_of_leading_tags
from store.errors import BadInput
from store.id3_tag import find_id3v1, id3_genres, id3_with_genres, id3v1_with_genres, load_id3
from store.riff import Chunk, copy_chunks, info_content, info_entries, list_chunks, new_chunk, read_chunk

TagFormat = Literal["id3", "riff", "aiff", "flac", "ogg", "mp4", "asf", "ape"]

APE_KINDS = [WavPack, MonkeysAudio, OptimFROG, TAK]  # not Musepack: damaged ones hang mutagen 1.48
OGG_KINDS = [OggVorbis, OggOpus, OggFLAC, OggSpeex, OggTheora]


@dataclass(frozen=True)
class Credits:
    """Who made a track, as its tags say; None where they do not."""

    artist: str | None
    album: str | None
    title: str | None


NOTE_NAMES = ("GENRE_CONFIDENCE", "GENRE_MODEL")


@dataclass(frozen=True)
class Edit:
    """What a file's tags are to say: None leaves the genres, and takes a note away."""

    genres: tuple[str, ...] | None
    notes: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TagView:
    """All that a file's tags say: the genres, and the rest, spelt so that it can be compared."""

    genres: list[str]
    credits: Credits
    others: list[str]
    notes: dict[str, str] = field(default_factory=dict)


def tag_format(path: Path) -> TagFormat:
    """Tell which tags a file has or can have.

    Raises: BadInput if we know none.
    """
    with path.open("rb") as file:
        container = container_of(file)
        file.seek(end_of_leading_tags(file))
        start = file.read(2)
    if container != "bare":
        return container
    if len(start) == 2 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:  # ADTS; mutagen takes it for MP3
        AAC(path)
        return "id3"
    match mutagen.File(path, options=[MP3, TrueAudio, *APE_KINDS]):
        case MP3() | TrueAudio():
            return "id3"
        case None:
            raise BadInput("no tag format is known for this file: is it audio?")
    return "ape"


def read_view(path: Path, kind: TagFormat) -> TagView:
    """Read all tags of a file."""
    match kind:
        case "id3":
            return _id3_view(path)
        case "riff" | "aiff":
            return _chunk_view(path)
    audio = _open(path, kind)
    tags: Any = audio.tags if audio.tags is not None else {}
    genre_key, *credit_keys = _keys(kind)
    genres = dict.fromkeys(text for text in _texts(tags, genre_key) if text)
    return TagView(
        list(genres),
        Credits(*(_credit(_texts(tags, key)) for key in credit_keys)),
        _others(audio, kind, path),
    )


def write_edited(source: Path, draft: Path, edit: Edit, kind: TagFormat) -> None:
    """Write to `draft` what `source` is with other genres."""
    genres = edit.genres or ()
    match kind:
        case "id3":
            _write_id3_file(source, draft, genres)
            return
        case "riff" | "aiff":
            _write_chunk_file(source, draft, genres, kind)
            return
    shutil.copyfile(source, draft)
    audio = _open(draft, kind)
    key = _keys(kind)[0]
    if genres:
        audio[key] = list(genres)
    elif audio.tags is not None and key in audio.tags:
        del audio[key]
    audio.save()
    if kind == "ape":
        _put_back_id3v1(source, draft, genres)


def _open(path: Path, kind: TagFormat) -> Any:
    match kind:
        case "flac":
            return FLAC(path)
        case "mp4":
            return MP4(path)
        case "asf":
            return ASF(path)
    audio = mutagen.File(path, options=OGG_KINDS if kind == "ogg" else APE_KINDS)
    if audio is None:
        raise BadInput("no tag format is known for this file: is it audio?")
    return audio


def _keys(kind: TagFormat) -> tuple[str, str, str, str]:
    """Name the fields of genre, artist, album and title."""
    match kind:
        case "id3" | "riff" | "aiff":
            return "TCON", "TPE1", "TALB", "TIT2"
        case "mp4":
            return "\xa9gen", "\xa9ART", "\xa9alb", "\xa9nam"
        case "asf":
            return "WM/Genre", "Author", "WM/AlbumTitle", "Title"
        case "flac" | "ogg" | "ape":
            return "genre", "artist", "album", "title"


def _texts(tags: Any, key: str) -> list[str]:
    """List the values of one field; APEv2 keeps several in one text, parted by NUL."""
    value = tags.get(key, [])
    values = value if isinstance(value, list) else str(value).split("\0")
    return [str(text).strip() for text in values]


def _credit(texts: Iterable[str]) -> str | None:
    return "; ".join(text for text in texts if text) or None


def _others(audio: Any, kind: TagFormat, path: Path) -> list[str]:
    tags: Any = audio.tags
    match kind:
        case "flac":
            pictures = [
                f"{block.code} {block.write()!r}"
                for block in audio.metadata_blocks
                if block.code not in (1, 4)
            ]
            return sorted(pictures + [f"{key}={text}" for key, text in tags or [] if key.lower() != "genre"])
        case "ogg":
            return sorted(f"{key}={text}" for key, text in tags if key.lower() != "genre")
        case "asf":
            return sorted(
                f"{key} {value.TYPE} {value.language} {value.stream} {value.value!r}"
                for key, value in tags
                if key != "WM/Genre"
            )
    skipped = _keys(kind)[0]
    others = [f"{key} {value!r}" for key, value in (tags or {}).items() if key.lower() != skipped]
    if kind == "ape":
        with path.open("rb") as file:
            others.append(f"ID3v1 {find_id3v1(file)[:-1]!r}")
    return sorted(others)


# ID3 around bare streams: MP3, AAC, TrueAudio


def _id3_view(path: Path) -> TagView:
    with path.open("rb") as file:
        tag = load_id3(file, with_v1=True) or ID3()
        v1 = find_id3v1(file)
    ape = _load_ape(path)
    genres = id3_genres(tag) or [text for text in _texts(ape, "genre") if text]
    apes = [f"APE {key} {value!r}" for key, value in ape.items() if key.lower() != "genre"]
    others = [*_id3_others(tag), *apes, f"ID3v1 {v1[:-1]!r}"]
    return TagView(genres, _id3_credits(tag), sorted(others))


def _load_ape(path: Path) -> Any:
    """Read the APEv2 tag that some MP3 files bear behind the audio; empty if there is none."""
    with suppress(APENoHeaderError):
        return APEv2(path)
    return {}


def _id3_credits(tag: ID3) -> Credits:
    artist, album, title = (
        _credit(str(text).strip() for frame in tag.getall(key) for text in frame.text)
        for key in _keys("id3")[1:]
    )
    return Credits(artist, album, title)


def _id3_others(tag: ID3) -> list[str]:
    """Spell all frames but the genre, leaving out the encoding, which ID3v2.3 may have to change."""
    frames = [
        f"{key} { {name: value for name, value in vars(frame).items() if name != 'encoding'}!r}"
        for key, frame in tag.items()
        if frame.FrameID != "TCON"
    ]
    return frames + [repr(bytes(frame)) for frame in tag.unknown_frames]


def _write_id3_file(source: Path, draft: Path, genres: Sequence[str]) -> None:
    """Put the new tag before the stream, and keep ID3v1 and APEv2 tags in step where there are any."""
    with source.open("rb") as old, draft.open("wb") as new:
        size = end_of_leading_tags(old, first_only=True)
        tag = load_id3(old, with_v1=size == 0)
        old.seek(0)
        block = old.read(size)
        if block or genres:
            new.write(id3_with_genres(block, tag, genres))
        old.seek(size)
        shutil.copyfileobj(old, new, 1 << 20)
    ape = _load_ape(draft)
    if "genre" in ape:
        if genres:
            ape["genre"] = list(genres)
        else:
            del ape["genre"]
        ape.save()
    _put_back_id3v1(source, draft, genres)


def _put_back_id3v1(source: Path, draft: Path, genres: Sequence[str]) -> None:
    """End `draft` with the ID3v1 tag of `source`, which mutagen's APEv2 cuts off."""
    with source.open("rb") as file:
        v1 = find_id3v1(file)
    with draft.open("rb+") as file:
        file.seek(-len(find_id3v1(file)), 2)
        file.write(id3v1_with_genres(v1, genres))


# Chunks: WAV with ID3 and INFO, AIFF with ID3


def _chunk_view(path: Path) -> TagView:
    with path.open("rb") as file:
        chunks = list_chunks(file)
        tag = _chunk_id3(file, chunks) or ID3()
        entries = [
            entry
            for chunk in chunks
            if _is_info(file, chunk)
            for entry in info_entries(read_chunk(file, chunk))
        ]
        others = [
            f"{chunk.id!r} {chunk.size} {hashlib.sha256(read_chunk(file, chunk)).hexdigest()}"
            for chunk in chunks
            if not (_is_id3(chunk) or _is_info(file, chunk) or chunk.id in (b"data", b"SSND"))
        ]
    info = {name: _info_text(text) for name, text in entries}
    genres = id3_genres(tag) or [text.strip() for text in info.get(b"IGNR", "").split(";") if text.strip()]
    of_id3 = _id3_credits(tag)
    return TagView(
        genres,
        Credits(
            of_id3.artist or info.get(b"IART") or None,
            of_id3.album or info.get(b"IPRD") or None,
            of_id3.title or info.get(b"INAM") or None,
        ),
        others + sorted(_id3_others(tag)) + [repr(entry) for entry in entries if entry[0] != b"IGNR"],
    )


def _info_text(text: bytes) -> str:
    text = text.split(b"\0")[0]
    try:
        return text.decode().strip()
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace").strip()


def _is_id3(chunk: Chunk) -> bool:
    return chunk.id.upper() == b"ID3 "


def _is_info(file: BinaryIO, chunk: Chunk) -> bool:
    if chunk.content is not None:
        return False
    file.seek(chunk.start)
    return chunk.id == b"LIST" and file.read(4) == b"INFO"


def _chunk_id3(file: BinaryIO, chunks: Sequence[Chunk]) -> ID3 | None:
    """Read the first ID3 chunk, which is the one that readers take."""
    for chunk in chunks:
        if _is_id3(chunk):
            return load_id3(BytesIO(read_chunk(file, chunk)))
    return None


def _write_chunk_file(source: Path, draft: Path, genres: Sequence[str], kind: TagFormat) -> None:
    """Exchange the ID3 chunk, and in a WAV the INFO chunk too: Windows reads no other."""
    with source.open("rb") as file:
        chunks = _with_id3(file, list_chunks(file), genres, kind)
        if kind == "riff":
            chunks = _with_info(file, chunks, genres)
        copy_chunks(file, draft, chunks)


def _with_id3(file: BinaryIO, chunks: list[Chunk], genres: Sequence[str], kind: TagFormat) -> list[Chunk]:
    place = next((number for number, chunk in enumerate(chunks) if _is_id3(chunk)), None)
    if place is None:
        name, block = (b"id3 " if kind == "riff" else b"ID3 "), b""
        place = len(chunks)
    else:
        name, block = chunks[place].id, read_chunk(file, chunks[place])
    content = id3_with_genres(block, _chunk_id3(file, chunks), genres)
    return [*chunks[:place], *([new_chunk(name, content)] if content else []), *chunks[place + 1 :]]


def _with_info(file: BinaryIO, chunks: list[Chunk], genres: Sequence[str]) -> list[Chunk]:
    """Put the genres into the first INFO chunk, as one text: INFO knows no several values.

    The text is UTF-8, as ffmpeg and taglib read it; the standard leaves the encoding open.
    """
    text = "; ".join(genres).encode() + b"\0" if genres else b""
    result = []
    for chunk in chunks:
        if _is_info(file, chunk):
            entries = _entries_with_genre(info_entries(read_chunk(file, chunk)), text)
            result.append(new_chunk(b"LIST", info_content(entries)))
            text = b""  # said once
        else:
            result.append(chunk)
    return result if not text else [*result, new_chunk(b"LIST", info_content([(b"IGNR", text)]))]


def _entries_with_genre(entries: Sequence[tuple[bytes, bytes]], text: bytes) -> list[tuple[bytes, bytes]]:
    names = [name for name, _ in entries]
    place = names.index(b"IGNR") if b"IGNR" in names else len(names)
    others = [entry for entry in entries if entry[0] != b"IGNR"]
    return [*others[:place], (b"IGNR", text), *others[place:]] if text else others
