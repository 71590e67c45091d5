import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from store.tags.genre_map import GenreMap, parse_genre_map
from store.tags.policy import TagPolicy, custom_tags_to_write, keep_reason, new_genres, unchanged_reason
from store.tags.vocabulary.spelling import spelling_key
from tests.support.genre_maps import MAP, good_names, maps, names

FILL, REPLACE, APPEND = (TagPolicy(policy=way) for way in ("fill", "replace", "append"))
lists = st.lists(names, max_size=5).map(tuple)
predicted_lists = st.lists(good_names, max_size=4).map(tuple)
policies = st.builds(
    TagPolicy,
    policy=st.sampled_from(["fill", "replace", "append"]),
    never_touch=st.lists(good_names, max_size=1).map(tuple),
    respell=st.booleans(),
)


@pytest.mark.parametrize(
    ("policy", "old", "predicted", "new"),
    [
        (FILL, (), ("Rock", "Punk"), ("Rock", "Punk")),
        (FILL, ("",), ("Rock",), ("Rock",)),
        (FILL, ("Ska",), ("Rock",), None),
        (REPLACE, ("Ska",), ("Rock",), ("Rock",)),
        (REPLACE, ("Rock",), ("Rock",), None),
        (REPLACE, ("hip hop",), ("Hip-Hop",), None),
        (REPLACE, ("hip hop", "HipHop"), ("Hip-Hop",), None),
        (REPLACE, ("Punk", "Rock"), ("Rock", "Punk"), ("Rock", "Punk")),
        (REPLACE, ("Ska",), (), None),
        (APPEND, ("Ska", "Mine"), ("Rock", "Ska"), ("Ska", "Mine", "Rock")),
        (APPEND, ("HIPHOP",), ("Hip-Hop",), None),
        (APPEND, (), ("Rock",), ("Rock",)),
        (APPEND, ("", "Ska"), ("Rock",), ("Ska", "Rock")),
        (APPEND, ("", "Ska"), ("Ska",), None),
        (APPEND, ("Ska",), (), None),
    ],
)
def test_what_a_file_is_to_have(policy, old, predicted, new):
    assert new_genres(old, predicted, policy) == new


@pytest.mark.parametrize(
    ("way", "old", "new"),
    [
        ("replace", ("hip hop",), ("Hip-Hop",)),
        ("replace", ("Hip-Hop",), None),
        ("append", ("Ska", "hip hop", "HipHop"), ("Ska", "Hip-Hop")),
        ("append", ("Ska", "Hip-Hop"), None),
        ("fill", ("hip hop",), None),
    ],
)
def test_spelling_alone_is_changed_on_request(way, old, new):
    assert new_genres(old, ("Hip-Hop",), TagPolicy(policy=way, respell=True)) == new


@given(old=lists, predicted=predicted_lists, policy=policies, genre_map=maps())
@example(
    old=("hip hop",),
    predicted=("Hip-Hop",),
    policy=TagPolicy(policy="append", respell=True),
    genre_map=GenreMap(),
)
def test_twice_is_once(old, predicted, policy, genre_map):
    once = new_genres(old, predicted, policy, genre_map)
    if once is None:
        reason, _ = unchanged_reason(old, predicted, policy, genre_map)
        assert reason in ("has-genre", "protected", "mapped-to-nothing")
        return
    assert once != old
    assert all(name.strip() for name in once), "blank values are not kept"
    assert new_genres(once, predicted, policy, genre_map) is None


@given(old=lists, predicted=predicted_lists, policy=policies, genre_map=maps())
def test_append_keeps_all_there_is_in_its_order(old, predicted, policy, genre_map):
    policy = policy.model_copy(update={"policy": "append", "respell": False})
    new = new_genres(old, predicted, policy, genre_map)
    if new is not None:
        renamed = genre_map.renamed(predicted)
        old = tuple(name for name in old if name.strip() and spelling_key(name) not in renamed)
        assert [name for name in new if name in old][: len(old)] == [*old]
        if not renamed:
            assert new[: len(old)] == old
            added = [genre_map.key(name) for name in new[len(old) :]]
            assert len({*added}) == len(added)
            assert not {*added} & {genre_map.key(name) for name in old}


@given(
    old=lists.filter(lambda old: any(name.strip() for name in old)),
    predicted=predicted_lists,
    genre_map=maps(),
)
def test_fill_never_changes_a_file_that_has_a_genre(old, predicted, genre_map):
    for respell in (False, True):
        assert new_genres(old, predicted, TagPolicy(respell=respell), genre_map) is None
    assert keep_reason(old, FILL, genre_map) == ("has-genre", "; ".join(old))


@given(old=lists, predicted=predicted_lists, policy=policies, genre_map=maps(), place=st.integers(0, 5))
def test_a_protected_file_never_changes(old, predicted, policy, genre_map, place):
    policy = policy.model_copy(update={"never_touch": ("Audio Book",)})
    old = (*old[:place], "AUDIOBOOK", *old[place:])
    assert new_genres(old, predicted, policy, genre_map) is None
    reason, detail = keep_reason(old, policy, genre_map)
    assert reason == "protected"
    assert "AUDIOBOOK" in detail


def test_protection_knows_the_owner_s_spellings():
    genre_map = GenreMap(spellings={"Hörspiel": "Audiobook"})
    policy = TagPolicy(policy="replace", never_touch=("audio-book",))
    assert keep_reason(("HÖRSPIEL",), policy, genre_map) == ("protected", "HÖRSPIEL")
    assert keep_reason(("HÖRSPIEL",), policy) is None


def test_a_protected_genre_must_be_a_name():
    for name in ("", " ", "a\0b"):
        with pytest.raises(ValidationError, match="wanted printable text"):
            TagPolicy(never_touch=(name,))


def test_the_owner_s_names_are_written():
    genre_map = parse_genre_map(MAP, "genres.toml", ("Hip-Hop", "Metal", "Spoken", "Rock"))
    assert new_genres((), ("Hip-Hop", "Metal", "Spoken", "Ska"), FILL, genre_map) == (
        "Rap",
        "Rock",
        "Metal",
        "Ska",
    )
    assert new_genres((), ("Rock", "Metal"), FILL, genre_map) == ("Rock", "Metal")
    assert new_genres(("Hard Rock",), ("Rock",), APPEND, genre_map) is None
    assert new_genres(("Hard Rock", "Drum n Bass"), ("Ska",), APPEND, genre_map) == (
        "Hard Rock",
        "Drum n Bass",
        "Ska",
    )
    respell = TagPolicy(policy="append", respell=True)
    assert new_genres(("Hard Rock", "Drum n Bass"), ("Ska",), respell, genre_map) == (
        "Rock",
        "Drum & Bass",
        "Ska",
    )
    assert new_genres(("Rap",), ("Hip-Hop",), REPLACE, genre_map) is None
    assert new_genres((), ("Spoken",), REPLACE, genre_map) is None
    assert unchanged_reason((), ("Spoken",), REPLACE, genre_map) == ("mapped-to-nothing", "Spoken")


@pytest.mark.parametrize(
    ("is_written", "old", "written"),
    [
        ("never", {}, {}),
        ("fill", {}, {"GENRE_CONFIDENCE": "0.87", "GENRE_MODEL": "v2"}),
        ("fill", {"GENRE_CONFIDENCE": "0.10"}, {"GENRE_MODEL": "v2"}),
        ("replace", {"GENRE_CONFIDENCE": "0.10", "GENRE_MODEL": "v2"}, {"GENRE_CONFIDENCE": "0.87"}),
    ],
)
def test_custom_fields_are_written_on_request(is_written, old, written):
    policy = TagPolicy(confidence_field=is_written, model_field=is_written)
    assert custom_tags_to_write(0.8712, "v2", old, policy) == written
    assert "GENRE_CONFIDENCE" not in custom_tags_to_write(None, "v2", old, policy)


JOINED = [
    "Audiobook; Comedy",
    "Audiobook/Comedy",
    "Audiobook|Comedy",
    "Comedy, Audiobook",
    "Comedy\\\\Audiobook",
]


@pytest.mark.parametrize("text", JOINED)
def test_joined_genres_are_compared_one_by_one(text):
    for policy in (REPLACE, APPEND):
        guarded = policy.model_copy(update={"never_touch": ("audio book",)})
        assert keep_reason((text,), guarded) == ("protected", text)
        assert new_genres((text,), ("Comedy",), APPEND) is None
    assert new_genres((text,), ("Rock",), APPEND) == (text, "Rock")
    assert new_genres((text,), ("Rock",), REPLACE) == ("Rock",)


def test_a_separator_within_a_name_of_the_model_separates_nothing():
    genre_map = GenreMap(known=("Old-Time / Historic", "Rock", "Pop"))
    historic = ("Old-Time / Historic",)
    assert new_genres(historic, historic, REPLACE, genre_map) is None
    assert new_genres(("Rock/Pop",), ("Rock", "Pop"), REPLACE, genre_map) is None
    assert new_genres(("Rock; Pop",), ("Rock", "Pop"), REPLACE, genre_map) is None
    assert new_genres(("Rock; Pop",), ("Pop", "Rock"), REPLACE, genre_map) == ("Pop", "Rock")
    assert new_genres(("Rock; Old-Time / Historic",), ("Rock", *historic), REPLACE, genre_map) is None


@pytest.mark.parametrize("text", ["Unknown", "other", "<unknown>", "genre", "N/A", "Unknown; Other", " "])
def test_a_placeholder_is_no_genre(text):
    assert new_genres((text,), ("Rock",), FILL) == ("Rock",)
    assert new_genres((text,), ("Rock",), APPEND) == ("Rock",)
    assert new_genres((text, "Ska"), ("Rock",), FILL) is None
    assert (
        keep_reason((text,), TagPolicy(never_touch=("Other", "Unknown", "Genre", "N/A")))
        or text in " <unknown>"
    )


def test_which_words_are_placeholders_can_be_set():
    policy = TagPolicy(placeholders=("Musik",))
    assert new_genres(("Musik",), ("Rock",), policy) == ("Rock",)
    assert new_genres(("Other",), ("Rock",), policy) is None


def test_a_model_s_own_other_is_written_once():
    assert new_genres((), ("Other",), FILL) == ("Other",)
    assert new_genres(("Other",), ("Other",), FILL) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("Electronic",), ("EDM",)),
        (("Ska", "electronic", "Mine"), ("Ska", "EDM", "Mine")),
        (("Electronic", "EDM"), ("EDM",)),
        (("Rock; Electronic",), ("Rock; Electronic", "EDM")),
        (("EDM",), None),
    ],
)
def test_a_name_that_the_map_gives_replaces_the_old_one(old, new):
    genre_map = GenreMap(genres={"Electronic": ("EDM",)}, known=("Electronic", "Rock"))
    assert new_genres(old, ("Electronic",), APPEND, genre_map) == new
    assert new_genres(("Electronic",), ("Rock",), APPEND, genre_map) == ("Electronic", "Rock")


@pytest.mark.parametrize(("alias", "genre"), [("Electronica", "Electronic"), ("R&B/Soul", "Soul-RnB")])
def test_another_name_of_a_genre_is_compared_and_never_written(alias, genre):
    genre_map = GenreMap(known=(genre, "Rock"))
    for policy in (APPEND, REPLACE, TagPolicy(policy="append", respell=True)):
        assert new_genres((alias,), (genre,), policy, genre_map) is None
    assert new_genres((alias,), ("Rock",), APPEND, genre_map) == (alias, "Rock")


def test_two_names_of_the_model_are_two_genres():
    genre_map = GenreMap(known=("Electronic", "Electronica"))
    assert new_genres(("Electronica",), ("Electronic",), REPLACE, genre_map) == ("Electronic",)
    assert new_genres(("Elektronik",), ("Electronic",), REPLACE, genre_map) == ("Electronic",)
