import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from store.tags.genre_map import GenreMap, parse_genre_map
from store.tags.policy import TagPolicy, custom_tags_to_write, keep_reason, new_genres, unchanged_reason
from tests.support.genre_maps import MAP, good_names, maps, names

FILL, REPLACE, APPEND = (TagPolicy(policy=way) for way in ("fill", "replace", "append"))
lists = st.lists(names, max_size=5).map(tuple)
told_lists = st.lists(good_names, max_size=4).map(tuple)
policies = st.builds(
    TagPolicy,
    policy=st.sampled_from(["fill", "replace", "append"]),
    never_touch=st.lists(good_names, max_size=1).map(tuple),
    respell=st.booleans(),
)


@pytest.mark.parametrize(
    ("policy", "old", "told", "new"),
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
def test_what_a_file_is_to_have(policy, old, told, new):
    assert new_genres(old, told, policy) == new


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


@given(old=lists, told=told_lists, policy=policies, genre_map=maps())
@example(
    old=("hip hop",), told=("Hip-Hop",), policy=TagPolicy(policy="append", respell=True), genre_map=GenreMap()
)
def test_twice_is_once(old, told, policy, genre_map):
    once = new_genres(old, told, policy, genre_map)
    if once is None:
        reason, _ = unchanged_reason(old, told, policy, genre_map)
        assert reason in ("has-genre", "protected", "mapped-to-nothing")
        return
    assert once != old
    assert all(name.strip() for name in once), "blank values are not kept"
    assert new_genres(once, told, policy, genre_map) is None


@given(old=lists, told=told_lists, policy=policies, genre_map=maps())
def test_append_keeps_all_there_is_in_its_order(old, told, policy, genre_map):
    policy = policy.model_copy(update={"policy": "append", "respell": False})
    new = new_genres(old, told, policy, genre_map)
    if new is not None:
        old = tuple(name for name in old if name.strip())
        assert new[: len(old)] == old
        added = [genre_map.key(name) for name in new[len(old) :]]
        assert len({*added}) == len(added)
        assert not {*added} & {genre_map.key(name) for name in old}


@given(old=lists.filter(lambda old: any(name.strip() for name in old)), told=told_lists, genre_map=maps())
def test_fill_never_changes_a_file_that_has_a_genre(old, told, genre_map):
    for respell in (False, True):
        assert new_genres(old, told, TagPolicy(respell=respell), genre_map) is None
    assert keep_reason(old, FILL, genre_map) == ("has-genre", ", ".join(old))


@given(old=lists, told=told_lists, policy=policies, genre_map=maps(), place=st.integers(0, 5))
def test_a_protected_file_never_changes(old, told, policy, genre_map, place):
    policy = policy.model_copy(update={"never_touch": ("Audio Book",)})
    old = (*old[:place], "AUDIOBOOK", *old[place:])
    assert new_genres(old, told, policy, genre_map) is None
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
    ("wish", "old", "written"),
    [
        ("never", {}, {}),
        ("fill", {}, {"GENRE_CONFIDENCE": "0.87", "GENRE_MODEL": "v2"}),
        ("fill", {"GENRE_CONFIDENCE": "0.10"}, {"GENRE_MODEL": "v2"}),
        ("replace", {"GENRE_CONFIDENCE": "0.10", "GENRE_MODEL": "v2"}, {"GENRE_CONFIDENCE": "0.87"}),
    ],
)
def test_custom_fields_are_written_on_request(wish, old, written):
    policy = TagPolicy(confidence_field=wish, model_field=wish)
    assert custom_tags_to_write(0.8712, "v2", old, policy) == written
    assert "GENRE_CONFIDENCE" not in custom_tags_to_write(None, "v2", old, policy)
