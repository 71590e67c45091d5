"""What a file's tags say, and what they are to say, whatever its format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NOTE_NAMES = ("GENRE_CONFIDENCE", "GENRE_MODEL")  # fields of our own beside the genres


@dataclass(frozen=True)
class Credits:
    """Who made a track, as its tags say; None where they do not."""

    artist: str | None
    album: str | None
    title: str | None


@dataclass(frozen=True)
class TagView:
    """All that a file's tags say: genres, credits, our notes, and the rest, spelt so that it can be compared."""

    genres: list[str]
    credits: Credits
    others: list[str]
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Edit:
    """What a file's tags are to say; all that is not named here stays.

    Genres: None leaves them, () takes them away. Notes, by NOTE_NAMES: None takes one away.
    """

    genres: tuple[str, ...] | None
    notes: Mapping[str, str | None] = field(default_factory=dict)


def credit(texts: Iterable[str]) -> str | None:
    """Make one text of the values of a field; None if they say nothing."""
    return "; ".join(text for text in texts if text) or None
