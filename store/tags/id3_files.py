"""ID3 before bare streams (MP3, AAC, TrueAudio), and the ID3v1 and APEv2 tags that some of them have at the end."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from mutagen.apev2 import APENoHeaderError, APEv2
from mutagen.id3 import ID3

from store.tags.id3 import (
    edit_id3,
    id3_credits,
    id3_custom_tags,
    id3_genres,
    id3_other_fields,
    id3v1_with_genres,
    load_id3,
    read_id3v1,
)
from store.tags.payload import end_of_leading_tags, start_of_trailing_tags
from store.tags.schema import FileTags, TagEdit
from store.tags.second_places import edited_leading_tags, leading_genres, merge_places, read_leading_id3


def read_id3_file(path: Path) -> FileTags:
    """Read the tags of a file."""
    tag, ape = read_id3_tags(path)
    with path.open("rb") as file:
        v1 = read_id3v1(file)
    genres = merge_places(id3_genres(tag), leading_genres(path, skip=1), ape_values(ape, "genre"))
    seconds = [it for second in read_leading_id3(path, skip=1) for it in id3_other_fields(second)]
    others = [*id3_other_fields(tag), *seconds, *_ape_fields(ape), f"ID3v1 {v1[:-1]!r}"]
    return FileTags(genres, id3_credits(tag), sorted(others), id3_custom_tags(tag))


def read_id3_tags(path: Path) -> tuple[ID3, Any]:
    """Read the ID3 tags of a file as one, and its APEv2 tag; empty where there is none."""
    with path.open("rb") as file:
        tag = load_id3(file, with_v1=True)
    return ID3() if tag is None else tag, _load_ape(path)  # one of unknown frames only is falsy


def _load_ape(path: Path) -> Any:
    """Return the APEv2 tag that some MP3 files have after the audio; empty if there is none."""
    with suppress(APENoHeaderError):
        return APEv2(path)
    return {}


def _ape_fields(ape: Any) -> list[str]:
    return [f"APE {key} {value!r}" for key, value in ape.items() if key.lower() != "genre"]


def write_id3_file(source: Path, draft: Path, edit: TagEdit) -> None:
    """Write the new tag before the stream, and the same genres into ID3v1 and APEv2 tags, if there are any."""
    with source.open("rb") as old, draft.open("wb") as new:
        size = end_of_leading_tags(old, first_only=True)
        tag = load_id3(old, with_v1=size == 0)
        old.seek(0)
        block = old.read(size)
        if block or edit.genres or any(edit.custom_tags.values()):
            new.write(edit_id3(block, tag, edit))
        new.write(edited_leading_tags(old, edit, skip=1))
        old.seek(end_of_leading_tags(old))
        shutil.copyfileobj(old, new, 1 << 20)
    edit_trailing_tags(source, draft, edit)


def read_trailing_tags(path: Path) -> tuple[Any, bytes]:
    """Return the APEv2 and the ID3v1 tag after the audio; empty where there is none."""
    with path.open("rb") as file:
        if start_of_trailing_tags(file) == file.seek(0, 2):
            return {}, b""
        v1 = read_id3v1(file)
    return _load_ape(path), v1


def trailing_fields(path: Path) -> list[str]:
    """Return all in the tags after the audio but the genres."""
    ape, v1 = read_trailing_tags(path)
    return [*_ape_fields(ape), f"ID3v1 {v1[:-1]!r}"]


def edit_trailing_tags(source: Path, draft: Path, edit: TagEdit) -> None:
    """Write the genres into the APEv2 and ID3v1 tags after the audio of `draft`, where there are any."""
    ape, _ = read_trailing_tags(draft)
    if "genre" in ape and edit.genres is not None:
        if edit.genres:
            ape["genre"] = list(edit.genres)
        else:
            del ape["genre"]
        ape.save()
    restore_id3v1(source, draft, edit)


def restore_id3v1(source: Path, draft: Path, edit: TagEdit) -> None:
    """Append the ID3v1 tag of `source` to `draft`: mutagen's APEv2 removes it."""
    with source.open("rb") as file:
        v1 = read_id3v1(file)
    with draft.open("rb+") as file:
        file.seek(-len(read_id3v1(file)), 2)
        file.write(v1 if edit.genres is None else id3v1_with_genres(v1, edit.genres))


def ape_values(tags: Any, key: str) -> list[str]:
    """Return the values of one APEv2 field, which are one text separated by NUL."""
    return [text.strip() for text in str(tags.get(key, "")).split("\0") if text.strip()]
