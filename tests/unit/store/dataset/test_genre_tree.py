import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.dataset.genre_tree import (
    ancestor_indices,
    ancestors,
    genre_parents,
    parents_among,
    with_ancestors,
    with_genre_parents,
)
from store.fs.parquet import read_table, write_table

SCHEMA = pa.schema([("track_id", pa.string())])
PARENTS = {"Post-Punk": "Punk", "Punk": "Rock", "Noise-Rock": "Rock", "Bop": "Jazz"}


def test_a_tree_survives_a_table_on_disk(tmp_path):
    schema = with_genre_parents(SCHEMA.with_metadata({"other": "stays"}), {"Noise-Rock": "Röck"})
    write_table(str(tmp_path / "t.parquet"), pa.table({"track_id": ["a"]}, schema=schema))
    read = read_table(str(tmp_path / "t.parquet")).schema
    assert genre_parents(read) == {"Noise-Rock": "Röck"}
    assert read.metadata[b"other"] == b"stays"


def test_a_source_without_a_tree_has_an_empty_one():
    assert genre_parents(SCHEMA) == {}
    assert with_genre_parents(SCHEMA, {}).metadata is None


def test_ancestors_are_the_nearest_first():
    assert ancestors("Post-Punk", PARENTS) == ["Punk", "Rock"]
    assert ancestors("Rock", PARENTS) == ancestors("Polka", PARENTS) == []
    assert with_ancestors(["Post-Punk", "Bop"], PARENTS) == {"Post-Punk", "Punk", "Rock", "Bop", "Jazz"}
    assert with_ancestors([89], {89: 25, 25: 12}) == {89, 25, 12}


def test_an_ancestor_that_is_not_among_the_genres_is_skipped():
    genres = ["Rock", "Post-Punk", "Bop"]
    assert ancestor_indices(genres, PARENTS) == [(), (0,), ()]
    assert parents_among(genres, PARENTS) == {"Post-Punk": "Rock"}
    assert ancestor_indices([*genres, "Punk"], PARENTS) == [(), (3, 0), (), (0,)]
    assert parents_among([*genres, "Punk"], PARENTS) == {"Post-Punk": "Punk", "Punk": "Rock"}


def test_a_cycle_is_a_bug():
    with pytest.raises(AssertionError, match="the genre tree has a cycle at a"):
        ancestors("a", {"a": "b", "b": "a"})


@given(data=st.data(), size=st.integers(1, 12))
def test_closing_twice_changes_nothing(data, size):
    parents = {
        child: parent for child in range(1, size) if (parent := data.draw(st.integers(0, child))) != child
    }
    closed = with_ancestors(data.draw(st.sets(st.integers(0, size - 1))), parents)
    assert with_ancestors(closed, parents) == closed
    assert all(parents[genre] in closed for genre in closed if genre in parents)


@pytest.mark.parametrize(
    ("genres", "parents"),
    [
        (("Death-Metal", "Krautrock", "Rock"), {"Death-Metal": "Rock", "Krautrock": "Rock"}),
        (("Death-Metal", "Metal", "Rock"), {"Death-Metal": "Metal", "Metal": "Rock"}),
        (("Death-Metal", "Krautrock"), {}),
        (("Polka", "Rock"), {}),
    ],
)
def test_a_genre_has_its_nearest_ancestor_among_the_genres_of_a_model(genres, parents):
    tree = {"Krautrock": "Psych-Rock", "Psych-Rock": "Rock", "Metal": "Rock", "Death-Metal": "Metal"}
    assert parents_among(genres, tree) == parents
