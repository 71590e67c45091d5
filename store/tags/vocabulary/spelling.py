"""Genres as texts: what all spellings of one have in common, and the genres that one text joins."""

import re
import unicodedata

STRONG_SEPARATORS = re.compile(r"[;|\\\0\uff1b]|//")  # occur in no genre's name
WEAK_SEPARATORS = re.compile(
    r"[/,\u3001\uff0c]"
)  # occur in names too: "Old-Time / Historic", "Big Band/Swing"


def spelling_key(name: str) -> str:
    """Return what all spellings of a genre have in common: its letters and digits, "&" as "and".

    A name of neither is its own key, else "???" and "!!!" would be one genre.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    letters = plain.replace("&", " and ")
    # Marks are part of letters in scripts that have no composed ones.
    return "".join(sign for sign in letters if unicodedata.category(sign)[0] in "LNM") or plain.strip()


def split_strong(text: str) -> list[str]:
    """Split a text at separators that occur in no name of a genre."""
    return _parts(STRONG_SEPARATORS, text)


def split_weak(text: str) -> list[str]:
    """Split a text at separators that occur in names of genres too."""
    return _parts(WEAK_SEPARATORS, text)


def readings(text: str) -> list[str]:
    """Return every genre that a text may be read as: itself, and its parts at all separators."""
    found = [text.strip()]
    for part in split_strong(text):
        found += [part, *split_weak(part)]
    return list(dict.fromkeys(name for name in found if name))


def without_separators(name: str) -> str:
    """Return a name that media servers do not split, "&" in the place of separators."""
    parts = [part.strip(" &") for one in split_strong(name) for part in split_weak(one)]
    return " & ".join(part for part in parts if part)


def is_split_by_servers(name: str) -> bool:
    """Return whether media servers, which split at the usual separators, read more than one genre in a name."""
    return bool(STRONG_SEPARATORS.search(name) or WEAK_SEPARATORS.search(name))


def _parts(separators: re.Pattern[str], text: str) -> list[str]:
    # "Folk, World, & Country" lists three genres, and none of them is "& Country".
    return [part for each in separators.split(text) if (part := each.strip().removeprefix("&").strip())]
