"""The map of a catalogue: one HTML page with a point for each track, which loads nothing from outside.

Axes: T tracks.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.tags.vocabulary.printable import mark_invisible
from training.report.formatting import make_environment

MAP_FILE = "map.html"
SIZE = 1_000  # of the map, in units of the drawing
MARGIN = 20
# Okabe & Ito (2008), without the yellow that is faint on white; then the same colours in other shapes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d46", "#7a7a7a")
SHAPES = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",  # circle
    "M-4.5,-4.5h9v9h-9z",  # square
    "M0,-6l5.5,10h-11z",  # triangle
    "M0,-6.5l5,6.5l-5,6.5l-5,-6.5z",  # diamond
)


@dataclass(frozen=True)
class MappedTrack:
    """One track of the map."""

    track_id: str
    artist: str | None
    title: str | None
    genre: str

    @property
    def label(self) -> str:
        """Artist and title, or the id of a track without a title."""
        return f"{self.artist or 'unknown artist'} \N{EN DASH} {self.title}" if self.title else self.track_id


class GenreMark(NamedTuple):
    """The colour and shape of a genre."""

    genre: str
    tracks: int
    colour: str
    shape: int


def render_map(tracks: Sequence[MappedTrack], position_T2: NDArray[np.float64], lede: str) -> bytes:
    """Return the page. The only script that a browser may run on it is its own, by its hash.

    Shapes: (T, 2) from 0 to 1.
    """
    environment = make_environment(lambda value: mark_invisible(value) if type(value) is str else value)
    script = (Path(__file__).parent / "map_page.js").read_text(encoding="utf-8")
    marks = mark_genres(tracks)
    index_of = {mark.genre: index for index, mark in enumerate(marks)}
    points = [
        (track, index_of[track.genre], f"{x:.1f}", f"{y:.1f}")
        for track, (x, y) in zip(tracks, MARGIN + (SIZE - 2 * MARGIN) * position_T2, strict=True)
    ]
    page = environment.get_template("interpretation/map_page.html.j2").render(
        lede=lede,
        marks=marks,
        points=points,
        shapes=SHAPES,
        size=SIZE,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return page.encode()


def mark_genres(tracks: Sequence[MappedTrack]) -> list[GenreMark]:
    """Return a mark for each genre, those with most tracks first."""
    counts = Counter(track.genre for track in tracks)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        GenreMark(genre, count, COLOURS[index % len(COLOURS)], index // len(COLOURS) % len(SHAPES))
        for index, (genre, count) in enumerate(ordered)
    ]
