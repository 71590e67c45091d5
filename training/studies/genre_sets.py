"""The genres of a study: tracks of them, pairs and larger sets, and the sub-genres of a top genre."""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from store.dataset.genre_tree import ancestors
from store.errors import BadInput

MAX_NAMES = 12  # in a message
GenreSet = tuple[str, ...]


def check_genres(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raise BadInput for a genre that no track has; the message has the names nearest to it."""
    by_folded = {name.casefold(): name for name in known}
    for genre in wanted:
        if genre in known:
            continue
        near = [by_folded[it] for it in get_close_matches(genre.casefold(), list(by_folded), n=3)]
        some = ", ".join(known[:MAX_NAMES]) + (", ..." if len(known) > MAX_NAMES else "")
        hint = f"did you mean {' or '.join(near)}?" if near else f"the store has {some or 'no genres'}"
        raise BadInput(f"genre {genre!r}: no track with a spectrogram has it; {hint}")


def select_tracks(tracks: pa.Table, genres: Sequence[str] | None = None) -> pa.Table:
    """Return the tracks that have a spectrogram and one of the genres (any, for None) as genre_top."""
    chosen = pc.and_(pc.is_valid(tracks["shard"]), pc.is_valid(tracks["genre_top"]))
    if genres is not None:
        chosen = pc.and_(chosen, pc.is_in(tracks["genre_top"], value_set=pa.array(genres, pa.string())))
    return tracks.filter(chosen)


def draw_tracks(tracks: pa.Table, most: int) -> pa.Table:
    """Return at most so many tracks of each genre_top, by as many artists as possible, in their order."""
    taken: dict[tuple[str, str | None], int] = Counter()
    rows = tracks.select(["track_id", "genre_top", "artist"]).to_pylist()
    ranks = []  # the first track of each artist comes first, then the second of each
    for number, row in enumerate(rows):
        key = (row["genre_top"], row["artist"])
        ranks.append((taken[key], number))
        taken[key] += 1
    kept, counts = [], Counter[str]()
    for _, number in sorted(ranks):
        genre = rows[number]["genre_top"]
        if counts[genre] < most:
            counts[genre] += 1
            kept.append(number)
    return tracks.take(pa.array(sorted(kept), pa.int64()))


def count_tracks(tracks: pa.Table) -> dict[str, int]:
    """Return the number of tracks of each genre_top, those with most first."""
    counts = Counter(tracks["genre_top"].drop_null().to_pylist())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def label_by_sub_genre(tracks: pa.Table, top: str, parents: Mapping[str, str]) -> pa.Table:
    """Replace genre_top by the sub-genre below `top`: the child of it that the track's genres belong to.

    Raises: BadInput if the store has no such genre, or no genre below it.

    A track of several such children, or of none, gets null: it cannot count for one of them.
    """
    children = sorted(name for name, parent in parents.items() if parent == top)
    if not children:
        check_genres([top], sorted(set(parents) | set(parents.values())))
        raise BadInput(f"--within {top}: the store's genre tree has no genre below it")
    labels = []
    for genres in tracks["genres"].to_pylist():
        lines = {it for genre in genres or () for it in (genre, *ancestors(genre, parents))}
        below = [child for child in children if child in lines]
        labels.append(below[0] if len(below) == 1 else None)
    index = tracks.schema.get_field_index("genre_top")
    return tracks.set_column(index, "genre_top", pa.array(labels, pa.string()))


def parse_sets(sets: Sequence[str], known: Sequence[str]) -> list[GenreSet]:
    """Return chosen sets, each a text of names with commas.

    Raises: BadInput for a set of one genre, or an unknown one.
    """
    parsed = []
    for text in sets:
        genres = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if len(genres) < 2:
            raise BadInput(
                f"--sets {text!r}: {len(genres)} genre; a set needs two or more, such as Rock,Jazz"
            )
        check_genres(genres, known)
        parsed.append(tuple(sorted(genres)))
    return parsed


def choose_sets(counts: Mapping[str, int], sizes: Sequence[int]) -> list[GenreSet]:
    """Return all pairs, if 2 is one of the sizes, and for each other size the set of the largest genres."""
    largest = list(counts)
    sets: list[GenreSet] = []
    for size in sorted(sizes):
        if size == 2:
            sets += [tuple(sorted(pair)) for pair in combinations(largest, 2)]
        elif size <= len(largest):
            sets.append(tuple(sorted(largest[:size])))
    return list(dict.fromkeys(sets))
