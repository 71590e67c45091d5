"""The Free Music Archive's genre tree."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass

from store.dataset.genre_tree import ancestors
from store.errors import BadInput
from store.fs.files import read_bytes


@dataclass(frozen=True)
class Genre:
    """A node of the genre tree; a root has no parent."""

    genre_id: int
    parent_id: int | None
    title: str


def read_genre_tree(url: str) -> dict[int, Genre]:
    """Read FMA's genres.csv.

    Raises: BadInput if a column is missing, an id is no number, or the parents of a genre do not
        lead to a root.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(read_bytes(url).decode("utf-8-sig")), restval=""))
        tree = {
            int(line["genre_id"]): Genre(int(line["genre_id"]), int(line["parent"]) or None, line["title"])
            for line in lines
        }
    except FileNotFoundError:
        raise BadInput(f"{url}: no such file; wanted FMA's genres; get it from fma_metadata.zip") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        if isinstance(error, BadInput):
            raise  # the archive is truncated
        found = " ".join(str(error).split())
        raise BadInput(
            f"{url}: not a genre tree ({found}); wanted the columns genre_id, parent and title, "
            "numbers in the first two; get it from fma_metadata.zip"
        ) from error
    _check_roots(tree, url)
    return tree


def _check_roots(tree: Mapping[int, Genre], url: str) -> None:
    """Raise BadInput if the parents of a genre do not lead to a root."""
    for genre in tree.values():
        ancestor, steps = genre, 0
        while ancestor.parent_id is not None:
            if ancestor.parent_id not in tree or steps > len(tree):
                raise BadInput(
                    f"{url}: genre {genre.genre_id} ({genre.title}) leads to parent {ancestor.parent_id}, "
                    "and from there to no root; correct the column parent"
                )
            ancestor, steps = tree[ancestor.parent_id], steps + 1


def parents_by_title(tree: Mapping[int, Genre]) -> dict[str, str]:
    """Return the title of each genre's parent by its own title, sorted; roots have none."""
    # Two genres of one title are the same here: a parent that would make one its own ancestor is left out.
    parents: dict[str, str] = {}
    for genre in sorted(tree.values(), key=lambda it: (it.title, it.genre_id)):
        if genre.parent_id is not None:
            parent = tree[genre.parent_id].title
            if genre.title != parent and genre.title not in ancestors(parent, parents):
                parents[genre.title] = parent
    return parents


def parent_ids(tree: Mapping[int, Genre]) -> dict[int, int]:
    """Return the number of each genre's parent by its own number; roots have none."""
    return {genre_id: genre.parent_id for genre_id, genre in tree.items() if genre.parent_id is not None}
