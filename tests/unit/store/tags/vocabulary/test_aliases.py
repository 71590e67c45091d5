"""The shipped list of other names: complete enough to be of use, and without wrong merges."""

import csv
from itertools import combinations
from pathlib import Path

import pytest
from mutagen.id3 import TCON

from store.tags.genre_map import GenreMap
from store.tags.vocabulary.aliases import alias_groups
from store.tags.vocabulary.spelling import is_split_by_servers, spelling_key, without_separators

FMA = Path("tests/data/demo_music/fma_metadata/genres.csv")


def merged(names: list[str]) -> set[frozenset[str]]:
    """Return the pairs of names that are compared as equal by their aliases, though they are spelt differently."""
    key = GenreMap().key
    pairs = combinations(dict.fromkeys(names), 2)
    return {frozenset(pair) for pair in pairs if key(pair[0]) == key(pair[1])}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hip hop", "Hip-Hop"),
        ("Hip-Hop/Rap", "Hip-Hop"),
        ("R&B/Soul", "Soul-RnB"),
        ("Electronica", "Electronic"),
        ("R'n'B", "R&B"),
        ("drum'n'bass", "Drum & Bass"),
        ("Weltmusik", "International"),
        ("Klassik", "Classical"),
        ("Rock 'n' Roll", "Rock & Roll"),
        ("Audio Books", "Audiobook"),
    ],
)
def test_names_of_one_genre_have_one_key(one, other):
    assert GenreMap().key(one) == GenreMap().key(other)


def test_no_two_genres_of_fma_are_merged():
    with FMA.open(encoding="utf-8") as file:
        names = [row["title"] for row in csv.DictReader(file)]
    assert len(names) > 100
    assert merged(names) == set()


def test_no_two_genres_of_id3v1_are_merged():
    assert merged(TCON.GENRES) == set()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Rap", "Hip-Hop"),
        ("Soul", "R&B"),
        ("Soul", "R&B/Soul"),
        ("Country", "Country Rock"),
        ("Dub", "Dubstep"),
        ("House", "Deep House"),
        ("Trance", "Psytrance"),
        ("Rock", "Rock & Roll"),
        ("Pop", "Synth Pop"),
        ("Latin", "Latin America"),
        ("Folk", "Folklore"),
        ("Electro", "Electronic"),
        ("Jungle", "Drum & Bass"),
        ("New Age", "New Wave"),
        ("Metal", "Industrial Metal"),
        ("Ambient", "Ambient Electronic"),
        ("Garage", "Garage Rock"),
        ("Gospel", "Christian & Gospel"),
    ],
)
def test_related_genres_stay_two(one, other):
    assert GenreMap().key(one) != GenreMap().key(other)


def test_a_name_stands_in_one_line():
    groups = alias_groups()
    assert all(set(group) <= groups.keys() and groups[group[0]] == group for group in groups.values())


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("Old-Time / Historic", "Old-Time & Historic"),
        ("Big Band/Swing", "Big Band & Swing"),
        ("Folk, World, & Country", "Folk & World & Country"),
    ],
)
def test_a_name_that_servers_split_has_another_that_they_do_not(name, whole):
    assert is_split_by_servers(name)
    assert without_separators(name) == whole
    assert not is_split_by_servers(whole)
    assert not is_split_by_servers("Soul-RnB & Hip-Hop")


def test_a_name_without_separators_is_its_own():
    assert without_separators("Rock") == "Rock"
    assert spelling_key(without_separators("Rock")) == "rock"
