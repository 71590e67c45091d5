"""Tags in chunks: WAV with ID3 and INFO, AIFF with ID3."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from mutagen.id3 import ID3

from store.errors import BadInput
from store.tags.id3 import edit_id3, id3_credits, id3_custom_tags, id3_genres, id3_other_fields, load_id3
from store.tags.riff import (
    AUDIO,
    Chunk,
    build_info,
    copy_chunks,
    list_chunks,
    new_chunk,
    parse_info,
    read_chunk,
)
from store.tags.schema import Credits, FileTags, TagEdit
from store.tags.second_places import merge_places

ChunkFormat = Literal["riff", "aiff"]


def read_wav_aiff_file(path: Path) -> FileTags:
    """Read the tags of a file."""
    with path.open("rb") as file:
        chunks = list_chunks(file)
        tag, entries = _tags_in(file, chunks)
        others = [
            f"{chunk.id!r} {chunk.size} {hashlib.sha256(read_chunk(file, chunk)).hexdigest()}"
            for chunk in chunks
            if not (_is_id3(chunk) or _is_info(file, chunk) or chunk.id in AUDIO)
        ]
    info = {name: _info_text(text) for name, text in entries}
    genres = merge_places(id3_genres(tag), _split(info.get(b"IGNR", "")))
    of_id3 = id3_credits(tag)
    return FileTags(
        genres,
        Credits(
            of_id3.artist or info.get(b"IART") or None,
            of_id3.album or info.get(b"IPRD") or None,
            of_id3.title or info.get(b"INAM") or None,
        ),
        others + sorted(id3_other_fields(tag)) + [repr(entry) for entry in entries if entry[0] != b"IGNR"],
        id3_custom_tags(tag),
    )


def read_wav_aiff_tags(path: Path) -> tuple[ID3, list[tuple[bytes, bytes]]]:
    """Read the ID3 tag of a file, empty if there is none, and the entries of its INFO chunks."""
    with path.open("rb") as file:
        return _tags_in(file, list_chunks(file))


def _tags_in(file: BinaryIO, chunks: Sequence[Chunk]) -> tuple[ID3, list[tuple[bytes, bytes]]]:
    infos = [read_chunk(file, chunk) for chunk in chunks if _is_info(file, chunk)]
    tag = _chunk_id3(file, chunks)
    return ID3() if tag is None else tag, [entry for info in infos for entry in parse_info(info)]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


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


def write_wav_aiff_file(source: Path, draft: Path, edit: TagEdit, kind: ChunkFormat) -> None:
    """Replace the ID3 chunk, and in a WAV the INFO chunk too: Windows reads no other."""
    with source.open("rb") as file:
        chunks = _with_id3(file, list_chunks(file), edit, kind)
        if kind == "riff" and edit.genres is not None:
            chunks = _with_info(file, chunks, edit.genres)
        copy_chunks(file, draft, chunks)


def _with_id3(file: BinaryIO, chunks: list[Chunk], edit: TagEdit, kind: ChunkFormat) -> list[Chunk]:
    index = next((number for number, chunk in enumerate(chunks) if _is_id3(chunk)), None)
    if index is None:
        name, block = (b"id3 " if kind == "riff" else b"ID3 "), b""
        index = len(chunks)
    else:
        name, block = chunks[index].id, read_chunk(file, chunks[index])
    content = edit_id3(block, _chunk_id3(file, chunks), edit)
    return [*chunks[:index], *([new_chunk(name, content)] if content else []), *chunks[index + 1 :]]


def _with_info(file: BinaryIO, chunks: list[Chunk], genres: Sequence[str]) -> list[Chunk]:
    """Return the chunks with the genres in the first INFO chunk, as one text: INFO has no multiple values.

    The text is UTF-8, as ffmpeg and taglib read it; the standard leaves the encoding open.
    """
    text = _info_genres(file, chunks, genres)
    result = []
    for chunk in chunks:
        if _is_info(file, chunk):
            entries = _entries_with_genre(parse_info(read_chunk(file, chunk)), text)
            result.append(new_chunk(b"LIST", build_info(entries)))
            text = b""  # once only
        else:
            result.append(chunk)
    return result if not text else [*result, new_chunk(b"LIST", build_info([(b"IGNR", text)]))]


def _info_genres(file: BinaryIO, chunks: Sequence[Chunk], genres: Sequence[str]) -> bytes:
    """Return the text of the new genres; what the file has keeps its bytes if it is kept.

    Raises: BadInput if it is kept and is not UTF-8: nobody knows its encoding.
    """
    _, entries = _tags_in(file, chunks)
    old = next((content.split(b"\0")[0] for name, content in entries if name == b"IGNR"), b"")
    kept = [name for name in _split(_info_text(old)) if name in genres]
    if kept and not _is_utf_8(old):
        raise BadInput(f"its genre {kept[0]!r} is in an unknown encoding, and to rewrite it could damage it")
    return "; ".join(genres).encode() + b"\0" if genres else b""


def _is_utf_8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _entries_with_genre(entries: Sequence[tuple[bytes, bytes]], text: bytes) -> list[tuple[bytes, bytes]]:
    names = [name for name, _ in entries]
    index = names.index(b"IGNR") if b"IGNR" in names else len(names)
    others = [entry for entry in entries if entry[0] != b"IGNR"]
    return [*others[:index], (b"IGNR", text), *others[index:]] if text else others
