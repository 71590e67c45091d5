"""The owner's names for genres: which of the model's to write how, and which spellings mean one genre.

[genres]                        # what the model says = what is written
"Hip-Hop" = "Rap"
"Metal" = ["Rock", "Metal"]     # several, in this order
"Spoken" = []                   # never written
[spellings]                     # what files have = the genre it is, as it is to be spelt
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
    """Give what all spellings of a genre have in common: its letters and digits, "&" read as "and".

    A name of neither is its own key, else "???" and "!!!" would be one genre.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    spelt = plain.replace("&", " and ")
    # Marks are part of letters in scripts that have no composed ones.
    return "".join(sign for sign in spelt if unicodedata.category(sign)[0] in "LNM") or plain.strip()


class GenreMap(BaseModel, frozen=True, extra="forbid"):
    """The owner's names, by spelling-insensitive keys; an empty map changes no name."""

    genres: dict[str, Names] = Field({}, description="Model's name to those written")
    spellings: dict[str, str] = Field({}, description="Other spelling to the name it stands for")

    @model_validator(mode="after")
    def _one_meaning(self) -> "GenreMap":
        _refuse_contradictions("the map", self.genres, self.spellings)
        return self

    def key(self, name: str) -> str:
        """Tell genres apart: two names have the same key if and only if they mean the same."""
        return spelling_key(self.preferred_name(name))

    def preferred_name(self, name: str) -> str:
        """Spell a genre as the owner does, where the map says how."""
        return self._name_of.get(spelling_key(name), name)

    def map_genres(self, predicted: Sequence[str]) -> Names:
        """Give what is to be written for the model's names, in their order."""
        written = (name for genre in predicted for name in self._names_of.get(spelling_key(genre), (genre,)))
        return tuple(self.preferred_name(name) for name in written)

    @cached_property
    def _names_of(self) -> dict[str, Names]:
        return {spelling_key(genre): names for genre, names in self.genres.items()}

    @cached_property
    def _name_of(self) -> dict[str, str]:
        return {spelling_key(spelling): name for spelling, name in self.spellings.items()}


def read_genre_map(url: str, known: Sequence[str] = ()) -> GenreMap:
    """Read a map from a TOML file; `known` are the model's genres, if they are to be checked.

    Raises: BadInput if there is no such file, or it is no such map.
    """
    try:
        content = read_bytes(url)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadInput(f"{url}: no such file; wanted a map of genres in TOML") from None
    return parse_genre_map(content, url, known)


def parse_genre_map(content: bytes, where: str, known: Sequence[str] = ()) -> GenreMap:
    """Understand the content of a map's file; `where` names it in messages. Raises: BadInput."""
    try:
        tables = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as why:
        raise BadInput(f"{where}: not TOML in UTF-8 ({str(why).splitlines()[0]}); mend that place") from None
    for name, table in tables.items():
        if name not in ("genres", "spellings") or not isinstance(table, dict):
            raise BadInput(f"{where}: {name!r}: wanted the tables [genres] and [spellings] only")
    genres = {
        genre: _names_in(where, genre, value, "a name, a list of names, or [] for one never written")
        for genre, value in tables.get("genres", {}).items()
    }
    spellings = {
        spelling: _names_in(where, spelling, [value], "a name")[0]
        for spelling, value in tables.get("spellings", {}).items()
    }
    learned = {spelling_key(genre) for genre in known}
    for genre in genres if known else ():
        if spelling_key(genre) not in learned:
            raise BadInput(
                f"{where}: [genres] {genre!r}: this model never learned it; it knows {', '.join(known)}"
            )
    _refuse_contradictions(where, genres, spellings)
    return GenreMap(genres=genres, spellings=spellings)


def validate_genre_name(name: str) -> None:
    """Raises: BadInput if a file cannot bear this genre: NUL, for one, stands between genres there."""
    if not name or name != name.strip() or not name.isprintable():
        raise BadInput(f"{name!r} is no genre: wanted printable text without spaces around it")


def _names_in(where: str, key: str, value: Any, wanted: str) -> Names:
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
