"""Genre maps for tests: drawn by hypothesis, and written as the TOML that an owner would write."""

import json
from collections.abc import Sequence

from hypothesis import strategies as st
from pydantic import ValidationError

from store.tags.genre_map import GenreMap

SPELT = [
    "Hip-Hop",
    "hip hop",
    "HIPHOP",
    "R&B",
    "R and B",
    "Rock",
    "rock ",
    "\uff32\uff4f\uff43\uff4b",
    "Ska",
    "Été",
    "e\u0301te\u0301",
]
names = st.sampled_from(SPELT) | st.text(min_size=1)
good_names = names.map(str.strip).filter(lambda name: name and name.isprintable())
MAP = b"""
[genres]
"Hip-Hop" = "Rap"
Metal = ["Rock", "Metal"]
Spoken = []
[spellings]
"drum n bass" = "Drum & Bass"
"hard rock" = "Rock"
"""


@st.composite
def maps(draw):
    """Draw maps that do not contradict themselves."""
    genres = draw(st.dictionaries(good_names, st.lists(good_names, max_size=3).map(tuple), max_size=4))
    spellings = draw(st.dictionaries(good_names, good_names, max_size=4))
    try:
        return GenreMap(genres=genres, spellings=spellings)
    except ValidationError:
        return GenreMap()


def format_genre_map(genre_map: GenreMap) -> str:
    """Write a map as TOML."""
    lines = ["[genres]"]
    lines += [f"{_quoted(genre)} = {_listed(written)}" for genre, written in genre_map.genres.items()]
    lines += ["", "[spellings]"]
    lines += [f"{_quoted(spelling)} = {_quoted(name)}" for spelling, name in genre_map.spellings.items()]
    return "\n".join(lines) + "\n"


def _listed(written: Sequence[str]) -> str:
    return _quoted(written[0]) if len(written) == 1 else f"[{', '.join(map(_quoted, written))}]"


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
