"""What a file's tags say, and what they are to say, whatever its format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CUSTOM_TAG_NAMES = ("GENRE_CONFIDENCE", "GENRE_MODEL")  # fields of our own beside the genres


@dataclass(frozen=True)
class Credits:
    """Who made a track, as its tags say; None where they do not."""

    artist: str | None
    album: str | None
    title: str | None


@dataclass(frozen=True)
class FileTags:
    """All that a file's tags say: genres, credits, our notes, and the rest, spelt so that it can be compared."""

    genres: list[str]
    credits: Credits
    other_fields: list[str]
    custom_tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TagEdit:
    """What a file's tags are to say; all that is not named here stays.

    Genres: None leaves them, () takes them away. Notes, by CUSTOM_TAG_NAMES: None takes one away.
    """

    genres: tuple[str, ...] | None
    custom_tags: Mapping[str, str | None] = field(default_factory=dict)


def join_values(texts: Iterable[str]) -> str | None:
    """Make one text of the values of a field; None if they say nothing."""
    return "; ".join(text for text in texts if text) or None
