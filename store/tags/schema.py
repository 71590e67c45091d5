"""The tags of a file and an edit of them, the same for all formats."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CUSTOM_TAG_NAMES = ("GENRE_CONFIDENCE", "GENRE_MODEL")  # the custom tags, written beside the genres


@dataclass(frozen=True)
class Credits:
    """Artist, album and title of a track; None where its tags have none."""

    artist: str | None
    album: str | None
    title: str | None


@dataclass(frozen=True)
class FileTags:
    """All tags of a file: genres, credits, custom tags, and the other fields, as text that can be compared."""

    genres: list[str]
    credits: Credits
    other_fields: list[str]
    custom_tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TagEdit:
    """A change of a file's tags; all fields that are not named here stay.

    Genres: None keeps them, () removes them. Custom tags, by CUSTOM_TAG_NAMES: None removes one.
    """

    genres: tuple[str, ...] | None
    custom_tags: Mapping[str, str | None] = field(default_factory=dict)


def join_values(texts: Iterable[str]) -> str | None:
    """Return the values of a field as one text; None if all are empty."""
    return "; ".join(text for text in texts if text) or None
