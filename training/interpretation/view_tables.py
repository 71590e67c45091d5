"""The view of a catalogue as rows: typical and odd tracks of each genre, and the neighbours of tracks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.interpretation.neighbours import rank_typical

TYPICAL_COLUMNS = ("genre", "kind", "artist", "title", "typicality", "nearest_genre", "track_id")
NEIGHBOUR_COLUMNS = (
    "track_id", "artist", "title", "genre", "rank", "neighbour", "neighbour_artist", "neighbour_title",
    "neighbour_genre", "distance",
)  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class CatalogueView:
    """A table of VIEW_SCHEMA, and the rows of the catalogue for the same tracks in the same order."""

    view: pa.Table
    catalogue: pa.Table

    def tracks(self) -> list[Row]:
        """Return track_id, artist, title and genre of each track."""
        rows = self.catalogue.select(["track_id", "artist", "title", "genre_top"])
        return list(rows.rename_columns(["track_id", "artist", "title", "genre"]).to_pylist())


def list_typical_tracks(seen: CatalogueView, count: int) -> Iterator[Row]:
    """Yield the most typical and the most odd tracks of each genre, TYPICAL_COLUMNS."""
    tracks = seen.tracks()
    typicality_T = seen.view["typicality"].to_numpy(zero_copy_only=False).astype(np.float64)
    nearest = seen.view["nearest_genre"].to_pylist()
    genre_T = np.array([track["genre"] for track in tracks], object)
    kinds: tuple[Literal["typical", "odd"], ...] = ("typical", "odd")
    for genre in sorted(set(genre_T)):
        for kind, rows in zip(kinds, rank_typical(typicality_T, genre_T == genre, count), strict=True):
            for row in rows:
                about = {"kind": kind, "typicality": float(typicality_T[row]), "nearest_genre": nearest[row]}
                yield tracks[row] | about


def list_neighbours(seen: CatalogueView, track_ids: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the nearest tracks of some tracks, or of all, NEIGHBOUR_COLUMNS."""
    track_of = {track["track_id"]: track for track in seen.tracks()}
    wanted = None if track_ids is None else set(track_ids)
    for row in seen.view.select(["track_id", "neighbours", "distances"]).to_pylist():
        if wanted is not None and row["track_id"] not in wanted:
            continue
        for rank, (neighbour, distance) in enumerate(
            zip(row["neighbours"], row["distances"], strict=True), 1
        ):
            other = track_of[neighbour]
            yield track_of[row["track_id"]] | {
                "rank": rank,
                "neighbour": neighbour,
                "neighbour_artist": other["artist"],
                "neighbour_title": other["title"],
                "neighbour_genre": other["genre"],
                "distance": distance,
            }


def share_of_agreeing_neighbours(seen: CatalogueView) -> float:
    """Return the share of tracks whose nearest track by another artist has their genre.

    Tracks of a genre of a single artist are left out.
    """
    comparable = seen.view.filter(pc.is_valid(seen.view["typicality"]))["track_id"].to_pylist()
    nearest = [row for row in list_neighbours(seen, comparable) if row["rank"] == 1]
    return float(np.mean([row["genre"] == row["neighbour_genre"] for row in nearest])) if nearest else 0.0
