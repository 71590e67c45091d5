"""All that the tags of a file say, by name, for a person to read or compare."""

from pathlib import Path

import mutagen

from store.tags import BROKEN_TAGS, read_tags

LONGEST_TEXT = 200
NAMED_ELSEWHERE = frozenset({
    "TCON", "TPE1", "TALB", "TIT2", "\xa9gen", "\xa9ART", "\xa9alb", "\xa9nam", "WM/Genre", "Author", "WM/AlbumTitle",
    "Title", "genre", "artist", "album", "title",
})  # fmt: skip

Fields = dict[str, list[str]]


def read_fields(path: Path | str) -> Fields:
    """Give what a file's tags say: genre, artist, album, title and our notes by these names, the rest by their own.

    Raises: BadInput if the file or its tags cannot be read.

    What is no text, pictures say, is told in few words.
    """
    view = read_tags(path)
    named = {"genre": view.genres}
    for name in ("artist", "album", "title"):
        text = getattr(view.credits, name)
        named |= {name: [text]} if text else {}
    return {
        name: texts
        for name, texts in (
            named | {name: [text] for name, text in view.notes.items()} | _others(path)
        ).items()
        if texts
    }


def _others(path: Path | str) -> Fields:
    """Give the fields under the names that the format has for them; none if mutagen knows no more of the file."""
    try:
        audio = mutagen.File(path)
    except BROKEN_TAGS:
        return {}
    found: Fields = {}
    tags = getattr(audio, "tags", None)
    for line in tags.pprint().splitlines() if tags is not None else ():
        name, _, text = line.partition("=")
        if name not in NAMED_ELSEWHERE and name.lower() not in NAMED_ELSEWHERE and "GENRE_" not in line:
            found.setdefault(name, []).append(text[:LONGEST_TEXT])
    pictures = [f"{it.mime}, {len(it.data):,} bytes" for it in getattr(audio, "pictures", [])]
    return found | ({"pictures": pictures} if pictures else {})
