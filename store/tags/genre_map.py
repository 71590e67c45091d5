"""The owner's names for genres: how to write those of the model, and which spellings mean the same genre.

[genres]                        # genre of the model = genre that is written
"Hip-Hop" = "Rap"
"Metal" = ["Rock", "Metal"]     # several, in this order
"Spoken" = []                   # never written
[spellings]                     # spelling in files = the genre that it means
"drum n bass" = "Drum & Bass"
"""

import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, Field, model_validator

from store.errors import BadInput, first_line
from store.fs.files import read_bytes
from store.tags.vocabulary.aliases import alias_groups
from store.tags.vocabulary.spelling import readings, spelling_key, split_strong, split_weak

Names = tuple[str, ...]


class GenreMap(BaseModel, frozen=True, extra="forbid"):
    """The owner's names, by spelling-insensitive keys; an empty map changes no name."""

    genres: dict[str, Names] = Field({}, description="Model's name to those written")
    spellings: dict[str, str] = Field({}, description="Other spelling to the name it stands for")
    known: Names = Field(
        (), description="Genres of the model, and the owner's own: never one for their aliases"
    )

    @model_validator(mode="after")
    def _one_meaning(self) -> "GenreMap":
        _refuse_contradictions("the map", self.genres, self.spellings)
        return self

    def key(self, name: str) -> str:
        """Return the key of a genre: two names have the same key if and only if they mean the same genre.

        The aliases of the shipped list count, but two names of the model or of the map are always two genres.
        """
        key = self.spelled_key(name)
        if key in self._own:
            return key
        group = alias_groups().get(key, (key,))
        own = [alias for alias in group if alias in self._own]
        return own[0] if len(own) == 1 else key if own else group[0]

    def spelled_key(self, name: str) -> str:
        """Return the key of a genre without the shipped list: names of the same key are spellings of one name."""
        return spelling_key(self.preferred_name(name))

    def keys_in(self, text: str) -> set[str]:
        """Return the keys of all genres that a text of a file may be read as; several may be joined in it."""
        return {self.key(name) for name in readings(text)}

    def values(self, text: str, wanted: Collection[str]) -> list[str]:
        """Return the keys of the genres in a text, in order; `wanted` keys decide whether a "/" separates two."""
        if self.key(text) in wanted:
            return [self.key(text)]
        keys = []
        for part in split_strong(text):
            parts = [self.key(name) for name in split_weak(part)]
            keys += [self.key(part)] if self.key(part) in wanted or not set(parts) <= set(wanted) else parts
        return keys

    def preferred_name(self, name: str) -> str:
        """Return a genre in the owner's spelling, or as it is if the map has none."""
        return self._name_of.get(spelling_key(name), name)

    def map_genres(self, predicted: Sequence[str]) -> Names:
        """Return the genres to write for predicted ones, in their order."""
        written = (name for genre in predicted for name in self._names_of.get(spelling_key(genre), (genre,)))
        return tuple(self.preferred_name(name) for name in written)

    def renamed(self, predicted: Sequence[str]) -> dict[str, Names]:
        """Return the names that replace those predicted genres that the map renames, by their spelling keys."""
        return {
            spelling_key(genre): names
            for genre in predicted
            if (names := self.map_genres([genre]))
            and spelling_key(genre) not in {spelling_key(name) for name in names}
        }

    @property
    def names(self) -> Names:
        """The genres that the model or the map can give a file."""
        return tuple(dict.fromkeys((*self.known, *self.map_genres(self.known), *self._written)))

    @cached_property
    def _names_of(self) -> dict[str, Names]:
        return {spelling_key(genre): names for genre, names in self.genres.items()}

    @cached_property
    def _written(self) -> Names:
        return (*(name for names in self.genres.values() for name in names), *self.spellings.values())

    @cached_property
    def _own(self) -> set[str]:
        """The spelling keys of the genres that are never one with another of them."""
        return {self.spelled_key(name) for name in (*self.known, *self.genres, *self._written)}

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
        raise BadInput(f"{where}: not TOML in UTF-8 ({first_line(why)}); correct that line") from None
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
    return GenreMap(genres=genres, spellings=spellings, known=tuple(known))


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
