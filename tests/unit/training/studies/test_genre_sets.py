"""The genres of a study."""

import pyarrow as pa
import pytest

from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from store.errors import BadInput
from training.studies.genre_sets import check_genres, choose_sets, draw_tracks, label_by_sub_genre, parse_sets

PARENTS = {"Punk": "Rock", "Metal": "Rock", "Sludge": "Metal", "Be-Bop": "Jazz"}


def test_the_nearest_names_are_suggested():
    with pytest.raises(BadInput, match=r"genre 'hip hop': .*; did you mean Hip-Hop\?"):
        check_genres(["hip hop"], ["Rock", "Hip-Hop", "Jazz"])
    with pytest.raises(BadInput, match="the store has Rock, Jazz"):
        check_genres(["Klezmer"], ["Rock", "Jazz"])


def test_sets_are_all_pairs_and_the_largest_genres():
    counts = {"Rock": 9, "Jazz": 8, "Folk": 7}
    assert choose_sets(counts, (2, 3, 5)) == [
        ("Jazz", "Rock"), ("Folk", "Rock"), ("Folk", "Jazz"), ("Folk", "Jazz", "Rock"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["Rock", "Rock,Rock", " , "])
def test_a_set_of_one_genre_is_refused(text):
    with pytest.raises(BadInput, match="a set needs two or more"):
        parse_sets([text], ["Rock", "Jazz"])


def test_tracks_are_labelled_by_the_sub_genre_that_they_belong_to():
    genres = [["Sludge"], ["Punk", "Rock"], ["Punk", "Metal"], ["Rock"], ["Be-Bop"], None]
    table = pa.Table.from_pylist(
        [{"track_id": str(number), "genres": its} for number, its in enumerate(genres)],
        schema=CATALOGUE_SCHEMA,
    )
    labels = label_by_sub_genre(table, "Rock", PARENTS)["genre_top"].to_pylist()
    assert labels == ["Metal", "Punk", None, None, None, None]
    with pytest.raises(BadInput, match="--within Punk: the store's genre tree has no genre below it"):
        label_by_sub_genre(table, "Punk", PARENTS)


def test_tracks_are_drawn_by_as_many_artists_as_possible():
    rows = [
        {"track_id": str(number), "genre_top": "Rock", "artist": artist}
        for number, artist in enumerate(["a", "a", "a", "b", "c"])
    ]
    drawn = draw_tracks(pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA), 3)
    assert drawn["artist"].to_pylist() == ["a", "b", "c"]
