"""Genres in a second place of a file, which some players read instead of the first: seen, and written to agree.

ID3 before FLAC and a second ID3 tag; the iTunes freeform GENRE of an MP4; GENRE and WM/GenreID of a WMA file.
"""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from mutagen.id3 import ID3

from store.tags.id3 import code_of_genre, edit_id3, id3_genres, load_id3, names_in
from store.tags.payload import end_of_leading_tags
from store.tags.schema import TagEdit
from store.tags.vocabulary.spelling import readings, spelling_key

WM_GENRE_ID = "wm/genreid"
SECOND_KEYS = {"mp4": ("----:com.apple.itunes:genre",), "asf": ("genre", WM_GENRE_ID)}  # in lower case


def merge_places(genres: Iterable[str], *others: Iterable[str]) -> list[str]:
    """Return the genres of a first place, and those of others that the first does not contain."""
    merged = list(dict.fromkeys(genres))
    for other in others:
        known = {spelling_key(name) for text in merged for name in readings(text)}
        merged += [name for name in dict.fromkeys(other) if spelling_key(name) not in known]
    return merged


def second_field_genres(kind: str, tags: Any) -> list[str]:
    """Return the genres in the second fields of an MP4 or WMA file."""
    genres = []
    for key in _second_fields(kind, tags):
        for value in tags[key]:
            text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
            genres += names_in(text) if key.lower() == WM_GENRE_ID else [text] if text else []
    return genres


def set_second_fields(kind: str, tags: Any, genres: Sequence[str]) -> None:
    """Set the second fields of an MP4 or WMA file, where they exist, to the genres of the first."""
    for key in _second_fields(kind, tags):
        values: list[Any] = list(genres)
        if kind == "mp4":
            values = [name.encode() for name in genres]
        elif key.lower() == WM_GENRE_ID:
            code = code_of_genre(genres[0]) if genres else None
            values = [] if code is None else [f"({code})"]
        if values:
            tags[key] = values
        else:
            del tags[key]


def _second_fields(kind: str, tags: Any) -> list[str]:
    return [key for key in dict.fromkeys(tags.keys()) if key.lower() in SECOND_KEYS.get(kind, ())]


def read_leading_id3(path: Path, *, skip: int = 0) -> list[ID3]:
    """Return the ID3v2 tags at the start of a file, without the first if `skip` is 1."""
    with path.open("rb") as file:
        tags = [load_id3(BytesIO(block)) for block in _leading_blocks(file, skip)]
    return [tag for tag in tags if tag is not None]


def leading_genres(path: Path, *, skip: int = 0) -> list[str]:
    """Return the genres in the ID3v2 tags at the start of a file, without the first if `skip` is 1."""
    return [name for tag in read_leading_id3(path, skip=skip) for name in id3_genres(tag)]


def edited_leading_tags(file: BinaryIO, edit: TagEdit, *, skip: int = 0) -> bytes:
    """Return the ID3v2 tags at the start of a file, without the first if `skip` is 1, the genres in them edited.

    Raises: BadInput if one cannot be edited without loss.
    """
    result = b""
    for block in _leading_blocks(file, skip):
        tag = load_id3(BytesIO(block))
        if tag is not None and edit.genres is not None and tag.getall("TCON"):
            block = edit_id3(block, tag, TagEdit(edit.genres))
        result += block
    return result


def _leading_blocks(file: BinaryIO, skip: int) -> Iterator[bytes]:
    start = end_of_leading_tags(file, first_only=True) if skip else 0
    end = end_of_leading_tags(file)
    file.seek(start)
    data = file.read(end - start)
    while data:
        size = end_of_leading_tags(BytesIO(data), first_only=True) or len(data)
        yield data[:size]
        data = data[size:]
