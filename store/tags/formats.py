"""The tags of each format of audio file: read them, and write an edited copy.

The format is detected from the content; file names are often wrong.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

import mutagen
from mutagen.aac import AAC
from mutagen.asf import ASF
from mutagen.flac import FLAC
from mutagen.monkeysaudio import MonkeysAudio
from mutagen.mp3 import MP3, MPEGInfo
from mutagen.mp4 import MP4, MP4StreamInfoError
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggtheora import OggTheora
from mutagen.oggvorbis import OggVorbis
from mutagen.optimfrog import OptimFROG
from mutagen.tak import TAK
from mutagen.trueaudio import TrueAudio
from mutagen.wavpack import WavPack

from store.errors import BadInput
from store.tags.containers import asf, mp4
from store.tags.id3 import id3_other_fields, id3v1_genres, read_id3v1
from store.tags.id3_files import (
    ape_values,
    edit_trailing_tags,
    read_id3_file,
    read_trailing_tags,
    restore_id3v1,
    trailing_fields,
    write_id3_file,
)
from store.tags.payload import check_structure, detect_container, end_of_leading_tags, prefixed_container
from store.tags.schema import CUSTOM_TAG_NAMES, Credits, FileTags, TagEdit, join_values
from store.tags.second_places import (
    SECOND_KEYS,
    edited_leading_tags,
    leading_genres,
    merge_places,
    read_leading_id3,
    second_field_genres,
    set_second_fields,
)
from store.tags.vorbis_comments import check_comments
from store.tags.wav_aiff import read_wav_aiff_file, write_wav_aiff_file

__all__ = [
    "CUSTOM_TAG_NAMES",
    "Credits",
    "FileTags",
    "TagEdit",
    "detect_tag_format",
    "parse_tags",
    "write_edited_copy",
]

TagFormat = Literal["id3", "riff", "aiff", "flac", "ogg", "mp4", "asf", "ape"]

# Of layer III; mutagen recognises others by the names of their files.
MP3_STARTS = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
APE_KINDS = [WavPack, MonkeysAudio, OptimFROG, TAK]  # not Musepack: damaged ones hang mutagen 1.48
OGG_KINDS = [OggVorbis, OggOpus, OggFLAC, OggSpeex, OggTheora]


def detect_tag_format(path: Path) -> TagFormat:
    """Return the format of the tags that a file has or can have.

    Raises: BadInput if none is known.
    """
    with path.open("rb") as file:
        container = detect_container(file)
        end = end_of_leading_tags(file)
        file.seek(end)
        start = file.read(4)
        prefixed = prefixed_container(file)
        if container == "raw" and prefixed is None and start[:2] in MP3_STARTS:
            MPEGInfo(file, end)  # all that MP3 would do but read the ID3 tags: half of its time
            return "id3"
    if container != "raw":
        return container
    if prefixed is not None:
        return "id3"
    # ID3 before these has mutagen take them for MP3, TrueAudio unless the file is called .tta.
    if len(start) == 4 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:  # ADTS
        AAC(path)
        return "id3"
    if start == b"TTA1":
        TrueAudio(path)
        return "id3"
    match mutagen.File(path, options=[MP3, *APE_KINDS]):
        case MP3():
            return "id3"
        case None:
            raise BadInput("no tag format is known for this file: is it audio?")
    return "ape"


def parse_tags(path: Path, kind: TagFormat) -> FileTags:
    """Read all tags of a file."""
    match kind:
        case "id3":
            return read_id3_file(path)
        case "riff" | "aiff":
            return read_wav_aiff_file(path)
    audio = open_tags(path, kind)
    tags: Any = audio.tags if audio.tags is not None else {}
    genre_key, *credit_keys = _keys(kind)
    custom_tags = {name: _texts(tags, _custom_tag_key(kind, name)) for name in CUSTOM_TAG_NAMES}
    return FileTags(
        merge_places(_texts(tags, genre_key), *_other_places(path, kind, tags)),
        Credits(*(join_values(_texts(tags, key)) for key in credit_keys)),
        _other_fields(audio, kind, path),
        {name: texts[0] for name, texts in custom_tags.items() if texts},
    )


def _other_places(path: Path, kind: TagFormat, tags: Any) -> list[list[str]]:
    """Return the genres in each other place that players read; in ID3v1, which shortens them, only if it is alone."""
    if kind not in ("flac", "ape"):
        return [second_field_genres(kind, tags)]
    ape, v1 = read_trailing_tags(path)
    places = [leading_genres(path), ape_values(ape, "genre")] if kind == "flac" else []
    return places if any(places) or tags.get("genre") else [id3v1_genres(v1)]


def check_editable(path: Path, kind: TagFormat) -> None:
    """Raise BadInput if no edit of a file's tags would leave its audio and its other tags as they are.

    Nothing is written. An edit may still be refused: its copy is compared with the file.
    """
    check_structure(path)
    if kind == "flac" or kind == "ogg":
        check_comments(path, kind, open_tags(path, kind).tags or [])


def write_edited_copy(source: Path, draft: Path, edit: TagEdit, kind: TagFormat) -> None:
    """Write an edited copy of `source`, which `check_editable` accepts, to `draft`."""
    match kind:
        case "id3":
            write_id3_file(source, draft, edit)
            return
        case "riff" | "aiff":
            write_wav_aiff_file(source, draft, edit, kind)
            return
    _copy(source, draft, edit, kind)
    audio = open_tags(draft, kind)
    if edit.genres is not None:
        _set_genres(audio, kind, edit.genres)
    for name, text in edit.custom_tags.items():
        value = text.encode() if kind == "mp4" and text is not None else text
        _set_field(audio, _custom_tag_key(kind, name), [] if value is None else [value])
    audio.save()
    match kind:
        case "ape":
            restore_id3v1(source, draft, edit)
        case "flac":
            edit_trailing_tags(source, draft, edit)
        case "mp4" | "asf":
            _correct_structure(source, draft, kind)


def _correct_structure(source: Path, draft: Path, kind: Literal["mp4", "asf"]) -> None:
    """Correct what mutagen leaves as it was: offsets in all but the first fragment of an MP4, an ASF file's size."""
    with source.open("rb") as old, draft.open("rb+") as new:
        if kind == "mp4":
            mp4.correct_offsets(old, new)
        else:
            asf.correct_file_size(old, new)


def _copy(source: Path, draft: Path, edit: TagEdit, kind: TagFormat) -> None:
    """Copy a file; of a FLAC file, with the new genres in ID3 tags before it."""
    if kind != "flac":
        shutil.copyfile(source, draft)
        return
    with source.open("rb") as old, draft.open("wb") as new:
        new.write(edited_leading_tags(old, edit))
        old.seek(end_of_leading_tags(old))
        shutil.copyfileobj(old, new, 1 << 20)


def _set_genres(audio: Any, kind: TagFormat, genres: tuple[str, ...]) -> None:
    """Set the genres in all places; those that the file has keep their values, with spaces around them too."""
    key = _keys(kind)[0]
    present = audio.tags.get(key, []) if audio.tags is not None else []
    # A WMA attribute would come back behind the new ones, since mutagen writes it into another block than those.
    texts = present if isinstance(present, list) and kind != "asf" else []
    values = {text.strip(): text for text in texts}
    _set_field(audio, key, [values.get(name, name) for name in genres])
    set_second_fields(kind, audio.tags, genres)


def _set_field(audio: Any, key: str, values: list[Any]) -> None:
    if values:
        audio[key] = values
    elif audio.tags is not None and key in audio.tags:
        del audio[key]


def open_tags(path: Path, kind: TagFormat) -> Any:
    """Open with mutagen a file that is neither a bare stream with ID3 nor in chunks."""
    match kind:
        case "flac":
            return FLAC(path)
        case "mp4":
            try:
                return MP4(path)
            except MP4StreamInfoError as why:
                raise BadInput(f"the description of its audio is of an unknown kind ({why})") from None
        case "asf":
            return ASF(path)
    audio = mutagen.File(path, options=OGG_KINDS if kind == "ogg" else APE_KINDS)
    if audio is None:
        raise BadInput("no tag format is known for this file: is it audio?")
    return audio


def _keys(kind: TagFormat) -> tuple[str, str, str, str]:
    """Return the names of the fields of genre, artist, album and title."""
    match kind:
        case "id3" | "riff" | "aiff":
            return "TCON", "TPE1", "TALB", "TIT2"
        case "mp4":
            return "\xa9gen", "\xa9ART", "\xa9alb", "\xa9nam"
        case "asf":
            return "WM/Genre", "Author", "WM/AlbumTitle", "Title"
        case "flac" | "ogg" | "ape":
            return "genre", "artist", "album", "title"


def edited_fields(kind: TagFormat, *, with_credits: bool = True) -> set[str]:
    """Return the names of the fields of genres, custom tags and credits, in lower case."""
    keys = (*_keys(kind)[: None if with_credits else 1], *SECOND_KEYS.get(kind, ()))
    return {key.lower() for key in (*keys, *(_custom_tag_key(kind, name) for name in CUSTOM_TAG_NAMES))}


def _custom_tag_key(kind: TagFormat, name: str) -> str:
    return f"----:com.apple.iTunes:{name}" if kind == "mp4" else name


def _texts(tags: Any, key: str) -> list[str]:
    """Return the values of one field that are not blank."""
    value = tags.get(key, [])
    if not isinstance(value, list):
        return ape_values(tags, key)
    texts = (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in value)
    return [text.strip() for text in texts if text.strip()]


def _other_fields(audio: Any, kind: TagFormat, path: Path) -> list[str]:
    tags: Any = audio.tags
    edited = edited_fields(kind, with_credits=False)
    match kind:
        case "flac":
            pictures = [
                f"{block.code} {block.write()!r}"
                for block in audio.metadata_blocks
                if block.code not in (1, 4)
            ]
            before = [it for tag in read_leading_id3(path) for it in id3_other_fields(tag)]
            before += trailing_fields(path)
            return sorted(
                before + pictures + [f"{key}={text}" for key, text in tags or [] if key.lower() not in edited]
            )
        case "ogg":
            return sorted(f"{key}={text}" for key, text in tags if key.lower() not in edited)
        case "asf":
            return sorted(
                f"{key} {value.TYPE} {value.language or 0} {value.stream or 0} {value.value!r}"
                for key, value in tags
                if key.lower() not in edited
            )
    others = [f"{key} {value!r}" for key, value in (tags or {}).items() if key.lower() not in edited]
    if kind == "ape":
        with path.open("rb") as file:
            others.append(f"ID3v1 {read_id3v1(file)[:-1]!r}")
    return sorted(others)
