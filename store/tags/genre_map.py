"""The owner's names for genres: how to write those of the model, and which spellings mean the same genre.

[genres]                        # genre of the model = genre that is written
"Hip-Hop" = "Rap"
"Metal" = ["Rock", "Metal"]     # several, in this order
"Spoken" = []                   # never written
[spellings]                     # spelling in files = the genre that it means
"drum n bass" = "Drum & Bass"
"""

import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field, model_validator

from store.errors import BadInput
from store.fs.files import read_bytes

Names = tuple[str, ...]


def spelling_key(name: str) -> str:
    """Return what all spellings of a genre have in common: its letters and digits, "&" as "and".

    A name of neither is its own key, else "???" and "!!!" would be one genre.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    letters = plain.replace("&", " and ")
    # Marks are part of letters in scripts that have no composed ones.
    return "".join(sign for sign in letters if unicodedata.category(sign)[0] in "LNM") or plain.strip()


class GenreMap(BaseModel, frozen=True, extra="forbid"):
    """The owner's names, by spelling-insensitive keys; an empty map changes no name."""

    genres: dict[str, Names] = Field({}, description="Model's name to those written")
    spellings: dict[str, str] = Field({}, description="Other spelling to the name it stands for")

    @model_validator(mode="after")
    def _one_meaning(self) -> "GenreMap":
        _refuse_contradictions("the map", self.genres, self.spellings)
        return self

    def key(self, name: str) -> str:
        """Return the key of a genre: two names have the same key if and only if they mean the same genre."""
        return spelling_key(self.preferred_name(name))

    def preferred_name(self, name: str) -> str:
        """Return a genre in the owner's spelling, or as it is if the map has none."""
        return self._name_of.get(spelling_key(name), name)

    def map_genres(self, predicted: Sequence[str]) -> Names:
        """Return the genres to write for predicted ones, in their order."""
        written = (name for genre in predicted for name in self._names_of.get(spelling_key(genre), (genre,)))
        return tuple(self.preferred_name(name) for name in written)

    @cached_property
    def _names_of(self) -> dict[str, Names]:
        return {spelling_key(genre): names for genre, names in self.genres.items()}

    @cached_property
    def _name_of(self) -> dict[str, str]:
        return {spelling_key(spelling): name for spelling, name in self.spellings.items()}


def read_genre_map(url: str, known: Sequence[str] = ()) -> GenreMap:
    """Read a map from a TOML file; check its genres against those of the model, `known`, if there are any.

    Raises: BadInput if the file does not exist, or is no valid map.
    """
    try:
        content = read_bytes(url)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadInput(f"{url}: no such file; wanted a map of genres in TOML") from None
    return parse_genre_map(content, url, known)


def parse_genre_map(content: bytes, where: str, known: Sequence[str] = ()) -> GenreMap:
    """Parse the content of a map file; `where` names it in messages. Raises: BadInput."""
    try:
        tables = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as why:
        raise BadInput(
            f"{where}: not TOML in UTF-8 ({str(why).splitlines()[0]}); correct that line"
        ) from None
    for name, table in tables.items():
        if name not in ("genres", "spellings") or not isinstance(table, dict):
            raise BadInput(f"{where}: {name!r}: wanted the tables [genres] and [spellings] only")
    genres = {
        genre: _parse_names(where, genre, value, "a name, a list of names, or [] for one never written")
        for genre, value in tables.get("genres", {}).items()
    }
    spellings = {
        spelling: _parse_names(where, spelling, [value], "a name")[0]
        for spelling, value in tables.get("spellings", {}).items()
    }
    trained = {spelling_key(genre) for genre in known}
    for genre in genres if known else ():
        if spelling_key(genre) not in trained:
            raise BadInput(f"{where}: [genres] {genre!r}: not one of this model's: {', '.join(known)}")
    _refuse_contradictions(where, genres, spellings)
    return GenreMap(genres=genres, spellings=spellings)


def validate_genre_name(name: str) -> None:
    """Raise BadInput if no tag can contain a genre: NUL, for example, separates genres."""
    if not name or name != name.strip() or not name.isprintable():
        raise BadInput(f"{name!r} is no genre: wanted printable text without spaces around it")


def _parse_names(where: str, key: str, value: Any, wanted: str) -> Names:
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise BadInput(f"{where}: {key!r}: found {value!r}; wanted {wanted}")
    return tuple(names)


def _refuse_contradictions(where: str, genres: Mapping[str, Names], spellings: Mapping[str, str]) -> None:
    for table in (genres, spellings):
        first: dict[str, str] = {}
        for name in table:
            twin = first.setdefault(spelling_key(name), name)
            if twin != name:
                raise BadInput(f"{where}: {name!r} and {twin!r} are one genre; keep one of the two lines")
    for name in (*(name for names in genres.values() for name in names), *spellings.values()):
        try:
            validate_genre_name(name)
        except BadInput as why:
            raise BadInput(f"{where}: {why}") from None
    name_of = {spelling_key(spelling): name for spelling, name in spellings.items()}
    for spelling, name in spellings.items():
        last = name_of.get(spelling_key(name), name)
        if last != name:
            raise BadInput(
                f"{where}: [spellings] {spelling!r} is {name!r}, and that is {last!r}; name the last one for both"
            )
