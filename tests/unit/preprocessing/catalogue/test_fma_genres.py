from pathlib import Path

import pytest

from preprocessing.catalogue.fma_genres import Genre, parent_ids, parents_by_title, read_genre_tree
from store.dataset.genre_tree import with_ancestors
from store.errors import BadInput

FMA_GENRES = Path("../shared/data/fma_real/genres.csv")


def test_titles_that_are_there_twice_make_no_genre_its_own_ancestor():
    nodes = [(1, None, "A"), (2, 1, "B"), (3, None, "B"), (4, 3, "A"), (5, 4, "C"), (6, 5, "C")]
    tree = {number: Genre(number, parent, title) for number, parent, title in nodes}
    assert parents_by_title(tree) == {"A": "B", "C": "A"}


def test_fmas_own_genre_tree(need):
    need(FMA_GENRES.is_file(), "../shared/data/fma_real is not here")
    tree = read_genre_tree(str(FMA_GENRES))
    assert len(tree) == 163
    assert sum(genre.parent_id is None for genre in tree.values()) == 16
    assert {tree[each].title for each in with_ancestors([89], parent_ids(tree))} == {
        "Post-Punk",
        "Punk",
        "Rock",
    }
    assert {tree[each].title for each in tree if tree[each].title.startswith("Old-Time")} == {
        "Old-Time / Historic"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genre_id,title\n1,Rock\n", r"not a genre tree \('parent'\); wanted the columns genre_id, parent"),
        ("genre_id,parent,title\none,0,Rock\n", "not a genre tree .*'one'"),
        ("genre_id,parent,title\n1\n", "not a genre tree"),
        ("genre_id,parent,title\n1,2,Punk\n", r"genre 1 \(Punk\) leads to parent 2, .* to no root"),
        ("genre_id,parent,title\n1,2,Punk\n2,1,Rock\n", r"genre 1 \(Punk\) leads to parent \d, .* no root"),
    ],
)
def test_a_genre_tree_that_cannot_be_used_is_bad_input(tmp_path, text, message):
    path = tmp_path / "genres.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"genres\.csv: .*{message}"):
        read_genre_tree(str(path))
