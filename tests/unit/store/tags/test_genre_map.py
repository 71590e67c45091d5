import pickle

import pytest
from hypothesis import given

from store.errors import BadInput
from store.fs.files import write_atomic
from store.tags.genre_map import parse_genre_map, read_genre_map
from store.tags.vocabulary.spelling import spelling_key
from tests.support.genre_maps import MAP, format_genre_map, maps


@pytest.mark.parametrize(
    "spelt",
    [
        ("Hip-Hop", "hip hop", "HIPHOP", "Hip_Hop", " hiphop"),
        ("R&B", "R & B", "r and b", "RandB"),
        ("Été", "E\u0301te\u0301", "été"),
        ("Straße", "STRASSE"),
        ("Drum & Bass", "drum AND bass"),
        ("\uff32\uff4f\uff43\uff4b", "rock"),
    ],
)
def test_spellings_of_one_genre_have_one_key(spelt):
    assert len({spelling_key(name) for name in spelt}) == 1


@pytest.mark.parametrize(
    "pair", [("Rock", "Punk"), ("???", "!!!"), ("Lo-Fi", "Hi-Fi"), ("Pop", "Pop 2"), ("ก", "กิ")]
)
def test_different_genres_have_different_keys(pair):
    assert spelling_key(pair[0]) != spelling_key(pair[1])


@given(genre_map=maps())
def test_a_map_reads_back_as_it_was_written(genre_map):
    again = parse_genre_map(format_genre_map(genre_map).encode(), "genres.toml")
    assert again == genre_map
    assert list(again.genres.items()) == list(genre_map.genres.items())
    assert pickle.loads(pickle.dumps(again)) == genre_map


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[genres", "not TOML in UTF-8"),
        (b'[genres]\n"Rock" = "\xff"', "not TOML in UTF-8"),
        (b"[genre]\nRock = 'x'", "'genre': wanted the tables [genres] and [spellings] only"),
        (b"genres = 3", "'genres': wanted the tables"),
        (
            b"[genres]\nRock = 3",
            "'Rock': found 3; wanted a name, a list of names, or [] for one never written",
        ),
        (b"[genres]\nRock = ['a', 3]", "'Rock': found ['a', 3]; wanted a name"),
        (b"[spellings]\nrawk = ['Rock', 'Pop']", "'rawk': found [['Rock', 'Pop']]"),
        (b"[genres]\nRock = ' '", "' ' is no genre: wanted printable text"),
        (b'[genres]\nRock = "a\\u0000b"', r"'a\x00b' is no genre: wanted printable text"),
        (
            b"[genres]\nPolka = 'x'",
            "[genres] 'Polka': not one of this model's: Rock, Hip-Hop",
        ),
        (b"[genres]\n'Hip-Hop' = 'a'\n'hip hop' = 'b'", "'hip hop' and 'Hip-Hop' are one genre; keep one"),
        (
            b"[spellings]\na = 'b'\nb = 'c'",
            "[spellings] 'a' is 'b', and that is 'c'; name the last one for both",
        ),
    ],
)
def test_a_map_that_cannot_be_is_bad_input_in_one_line(content, said):
    with pytest.raises(BadInput) as caught:
        parse_genre_map(content, "my/genres.toml", ("Rock", "Hip-Hop"))
    message = str(caught.value)
    assert message.startswith("my/genres.toml: ")
    assert said in message
    assert "\n" not in message


def test_a_map_is_read_from_a_file(tmp_path):
    url = f"{tmp_path}/genres.toml"
    with pytest.raises(BadInput, match=r"genres.toml: no such file; wanted a map of genres in TOML"):
        read_genre_map(url)
    write_atomic(url, MAP)
    assert read_genre_map(url).map_genres(["hip hop"]) == ("Rap",)
