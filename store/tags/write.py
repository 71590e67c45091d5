"""Genre tags in audio files of every common kind: read, and replaced all or nothing.

Mutagen edits in place, and a crash would leave a broken file. So a copy beside the original is edited, compared
with the original in everything but the genre, and renamed over it.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import mutagen

from store.errors import BadInput
from store.fs.files import replacing
from store.fs.metadata import copy_metadata, is_read_only, is_unchanged
from store.tags.formats import (
    CUSTOM_TAG_NAMES,
    Credits,
    FileTags,
    TagEdit,
    check_editable,
    detect_tag_format,
    parse_tags,
    write_edited_copy,
)
from store.tags.payload import hash_payload

__all__ = ["Credits", "copy_with_genres", "read_credits", "read_genres", "write_genres"]

# What mutagen raises on damaged files, found by damaging some 30,000: its own error; ValueError for text
# that does not decode and negative lengths; IndexError and KeyError for codes outside its tables;
# MemoryError where a length field asks for gigabytes.
BROKEN_TAGS = (mutagen.MutagenError, ValueError, IndexError, KeyError, MemoryError)


def read_genres(path: Path | str) -> list[str]:
    """Return the genres of a file; none if it has no tags.

    Raises: BadInput if the file or its tags cannot be read.
    """
    return read_tags(path).genres


def read_tags(path: Path | str) -> FileTags:
    """Return all tags of a file.

    Raises: BadInput if the file or its tags cannot be read.
    """
    with translate_errors(path):
        real = resolve_audio_file(path)
        return parse_tags(real, detect_tag_format(real))


def read_credits(path: Path | str) -> Credits:
    """Return artist, album and title of a file.

    Raises: BadInput if the file or its tags cannot be read.
    """
    return read_tags(path).credits


def check_taggable(path: Path | str) -> None:
    """Raise BadInput if no edit of a file's tags would leave all else as it is, as far as its headers show.

    Nothing is written. An edit that passes may still be refused: its copy is compared with the file.
    """
    with translate_errors(path):
        real = resolve_audio_file(path)
        kind = detect_tag_format(real)
        check_editable(real, kind)
        parse_tags(real, kind)


def write_genres(path: Path | str, genres: Sequence[str]) -> None:
    """Replace the genres of one file, all or nothing; no genres remove the tag.

    Raises: BadInput, the file untouched, if it cannot be tagged without changing more than the
    genre; PermissionError if it is read-only.

    Owner, mode, times and extended attributes stay; a link is followed to its file.
    """
    with translate_errors(path):
        edit = checked_edit(genres)
        real = resolve_audio_file(path)
        before = real.stat()
        if is_read_only(real, before):
            raise PermissionError(errno.EACCES, "the file is read-only: make it writable to have it tagged")
        with replacing(real) as draft:
            write_tagged_copy(real, draft, edit)
            copy_metadata(real, draft, before)
            if not is_unchanged(before, real.stat()):
                raise BadInput("another program changed the file meanwhile: try again")


def copy_with_genres(
    source: Path | str,
    target: Path | str,
    genres: Sequence[str],
    *,
    custom_tags: Mapping[str, str | None] | None = None,
) -> None:
    """Write a copy of `source` with other genres to `target`, whole or not at all.

    Raises: BadInput if that cannot be done without changing more than the genre, or if both are one file.
    """
    with translate_errors(source):
        edit = checked_edit(genres, custom_tags)
        real, destination = resolve_audio_file(source), Path(target)
        before = real.stat()
        if destination.exists() and destination.samefile(real):
            raise BadInput(f"the copy {destination} would overwrite the original: choose another folder")
        if destination.exists() and not _differ_in_genres_only(real, destination):
            raise BadInput(f"another file exists already: {destination}; choose another folder")
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination) as draft:
            write_tagged_copy(real, draft, edit)
            copy_metadata(real, draft, before, owner="ignore")


def _differ_in_genres_only(one: Path, other: Path) -> bool:
    """Return whether nothing but genres and custom tags is lost if a copy of one file replaces the other."""
    if hash_payload(one) != hash_payload(other):
        return False
    return (
        parse_tags(one, detect_tag_format(one)).other_fields
        == parse_tags(other, detect_tag_format(other)).other_fields
    )


def write_tagged_copy(real: Path, draft: Path, edit: TagEdit) -> FileTags:
    """Write an edited copy of a file to `draft`, verify it, and return the tags of the file.

    Raises: BadInput if more than the edit would change.
    """
    kind = detect_tag_format(real)
    check_editable(real, kind)
    audio_before, before = hash_payload(real), parse_tags(real, kind)
    write_edited_copy(real, draft, edit, kind)
    after = parse_tags(draft, kind)
    if detect_tag_format(draft) != kind or hash_payload(draft) != audio_before:
        raise BadInput("tagging it would change its audio: the file is damaged or of an unusual kind")
    genres = before.genres if edit.genres is None else list(edit.genres)
    if after.genres != genres:
        raise BadInput(f"tagged with {genres}, it would read {after.genres}: the format cannot hold that")
    custom_tags = {
        name: text for name, text in {**before.custom_tags, **edit.custom_tags}.items() if text is not None
    }
    if after.custom_tags != custom_tags:
        raise BadInput(
            f"tagged with {custom_tags}, it would read {after.custom_tags}: the format cannot hold that"
        )
    if after.other_fields != before.other_fields:
        raise BadInput(
            f"tagging it would change other tags: {_first_difference(before.other_fields, after.other_fields)}"
        )
    return before


def _first_difference(before: list[str], after: list[str]) -> str:
    lost = sorted(set(before) - set(after)) or sorted(set(after) - set(before)) or ["their order"]
    return lost[0][:80]


def checked_edit(
    genres: Sequence[str] | None, custom_tags: Mapping[str, str | None] | None = None
) -> TagEdit:
    """Return an edit with each genre once. Raises: BadInput for a text that no tag can contain."""
    for name, text in (custom_tags or {}).items():
        if name not in CUSTOM_TAG_NAMES or (text is not None and not _is_plain(text)):
            raise BadInput(
                f"{name}={text!r} is no custom tag: wanted printable text for one of {CUSTOM_TAG_NAMES}"
            )
    if isinstance(genres, str):
        raise BadInput(f"genres are a list of names; got the text {genres!r}")
    for name in genres or ():
        if not _is_plain(name):
            raise BadInput(f"{name!r} is no genre: wanted printable text without spaces around it")
    return TagEdit(None if genres is None else tuple(dict.fromkeys(genres)), dict(custom_tags or {}))


def _is_plain(text: str) -> bool:
    return text.isprintable() and text == text.strip() != ""


def resolve_audio_file(path: Path | str) -> Path:
    """Return the file that a link leads to. Raises: BadInput if it is a folder, pipe or device."""
    real = Path(os.path.realpath(path))
    if not stat.S_ISREG(real.stat().st_mode):
        raise BadInput("not a file")
    return real


@contextmanager
def translate_errors(path: Path | str) -> Iterator[None]:
    """Translate what is wrong with a file into one line that names it; let a failing disk raise its OSError."""
    try:
        yield
    except BadInput as why:
        raise BadInput(f"{path}: {why}") from None
    except BROKEN_TAGS as why:
        disk = _disk_error(why)
        if disk is not None:
            raise disk from why
        text = " ".join(str(why).split()) or type(why).__name__
        raise BadInput(f"{path}: its tags are damaged, or it is not audio ({text[:200]})") from why
    except OSError as why:
        if why.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            where = Path(why.filename or path)
            where = (
                where.parent if ".part" in where.suffixes else where
            )  # not the draft, which the user does not know
            raise PermissionError(errno.EACCES, f"no permission ({why.strerror})", str(where)) from why
        raise


def _disk_error(error: Exception) -> OSError | None:
    """Return the OSError that mutagen wrapped; None if it only seeked out of range in a damaged file."""
    for cause in (*error.args, error.__cause__, error.__context__):
        if isinstance(cause, OSError) and cause.errno not in (None, errno.EINVAL):
            return cause
    return None
