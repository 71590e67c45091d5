from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from preprocessing.catalogue.settings import CatalogueSettings, SplitSettings
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA, read_catalogue
from preprocessing.catalogue.splits import (
    SPLITS,
    assign_artist_folds,
    find_cross_split_duplicates,
    group_tracks,
    resolve_split_mode,
    split_by_artist,
    split_tracks,
)
from store.errors import BadInput

EMOTIFY = Path("../shared/data/emotify_fma")
ARTIST = SplitSettings(mode="artist")

Track = tuple[str | None, str | None, str | None]  # artist, album, genre_top

maybe_a_name = st.none() | st.sampled_from("abcdef")
any_tracks = st.lists(st.tuples(maybe_a_name, maybe_a_name, st.sampled_from(["Rock", None])), max_size=40)
# For each genre, how many tracks each of its artists made.
artist_sizes = st.lists(st.lists(st.integers(1, 9), min_size=5, max_size=30), min_size=1, max_size=4)


def catalogue(tracks: list[Track]) -> pa.Table:
    rows = [
        {"track_id": f"{number:04d}", "artist": artist, "album": album, "genre_top": genre}
        for number, (artist, album, genre) in enumerate(tracks)
    ]
    return pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)


def tracks_of(sizes: list[list[int]]) -> list[Track]:
    return [
        (f"artist {genre}-{artist}", f"album {number % 2}", f"genre {genre}")
        for genre, counts in enumerate(sizes)
        for artist, count in enumerate(counts)
        for number in range(count)
    ]


def with_column(table: pa.Table, name: str, values: list[str | None]) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))


def by_track(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["track_id"].to_pylist(), table["split"].to_pylist(), strict=True))


@given(tracks=any_tracks, seed=st.integers(0, 5))
def test_every_track_gets_a_split_and_no_artist_two(tracks, seed):
    table = catalogue(tracks)
    try:
        splits = split_by_artist(table, SplitSettings(seed=seed))["split"].to_pylist()
    except BadInput:
        assume(False)
    splits_of_artist = defaultdict(set)
    for (artist, _, _), split in zip(tracks, splits, strict=True):
        assert split in {"training", "validation", "test"}
        splits_of_artist[artist].add(split)
    assert all(len(found) == 1 for artist, found in splits_of_artist.items() if artist)


@given(sizes=artist_sizes, seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows(sizes, seed, order):
    table = catalogue(tracks_of(sizes))
    rows = list(range(len(table)))
    order.shuffle(rows)
    settings = SplitSettings(seed=seed)
    assert by_track(split_by_artist(table.take(rows), settings)) == by_track(split_by_artist(table, settings))


def test_another_seed_gives_another_split():
    table = catalogue(tracks_of([[3] * 20] * 2))
    drawn = [by_track(split_by_artist(table, SplitSettings(seed=seed))) for seed in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]


@given(sizes=artist_sizes, validation=st.sampled_from([0.0, 0.1, 0.3]), test=st.sampled_from([0.1, 0.25]))
def test_each_genre_is_in_each_split_and_near_its_share(sizes, validation, test):
    tracks = tracks_of(sizes)
    settings = SplitSettings(validation_share=validation, test_share=test)
    splits = split_by_artist(catalogue(tracks), settings)["split"].to_pylist()
    found = Counter((genre, split) for (_, _, genre), split in zip(tracks, splits, strict=True))
    shares = {"training": 1 - validation - test, "validation": validation, "test": test}
    for number, counts in enumerate(sizes):
        for split, share in shares.items():
            tracks_there = found[f"genre {number}", split]
            assert (tracks_there > 0) == (share > 0)
            # No artist is cut in two: two splits may be over by the largest artist, so the third lacks both.
            assert abs(tracks_there - share * sum(counts)) <= 2 * max(counts)


@given(sizes=artist_sizes, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_folds_share_no_artist_and_are_balanced(sizes, folds, seed):
    tracks = tracks_of(sizes)
    numbers = assign_artist_folds(catalogue(tracks), folds, seed)
    folds_of_artist = defaultdict(set)
    for (artist, _, _), number in zip(tracks, numbers, strict=True):
        folds_of_artist[artist].add(number)
    assert all(len(found) == 1 for found in folds_of_artist.values())
    for genre, counts in enumerate(sizes):
        of_genre = [track[2] == f"genre {genre}" for track in tracks]
        held = np.bincount(numbers[of_genre], minlength=folds)
        assert held.min() > 0
        assert held.max() - held.min() <= max(counts)


def test_artists_of_several_genres_leave_every_genre_in_every_split():
    genres_of = {"a": "xyz", "b": "xy", "c": "yz", "d": "xz", "e": "z", "f": "x", "g": "y"}
    tracks: list[Track] = [(artist, None, genre) for artist, genres in genres_of.items() for genre in genres]
    for seed in range(20):
        split = split_by_artist(catalogue(tracks), SplitSettings(seed=seed))
        assert len(set(zip(split["genre_top"].to_pylist(), split["split"].to_pylist(), strict=True))) == 9


def test_another_drawing_is_tried_when_artists_of_several_genres_come_out_badly():
    genres_of = {"a": "stv", "b": "stw", "c": "vw", "d": "svw", "e": "tvw", "f": "t"}
    tracks: list[Track] = [(artist, None, genre) for artist, genres in genres_of.items() for genre in genres]
    split = split_by_artist(catalogue(tracks), ARTIST)  # seed 0: the first drawing leaves a genre out
    assert len(set(zip(split["genre_top"].to_pylist(), split["split"].to_pylist(), strict=True))) == 12


def test_genres_that_no_drawing_can_part_are_named():
    # The Fano plane: every three colours leave some line without one of them.
    lines = ["abc", "ade", "afg", "bdf", "beg", "cdg", "cef"]
    tracks: list[Track] = [(artist, None, f"genre {line}") for line in lines for artist in line]
    with pytest.raises(BadInput, match=r"genre 'genre \w+': its artists play other genres too.*split\.mode"):
        split_by_artist(catalogue(tracks), ARTIST)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (("a", "x", None), ("a", "y", None), True),
        (("Björk", None, None), ("  BJÖRK ", None, None), True),
        (("Sigur  Rós", None, None), ("Sigur Ro\u0301s", None, None), True),
        (("a", "x", None), ("b", "x", None), False),
        ((None, "x", None), (None, "x", None), True),
        ((None, "x", None), ("a", "x", None), True),
        ((None, None, None), (None, None, None), False),
    ],
)
def test_tracks_of_an_artist_or_an_album_stay_together(first, second, together):
    groups = group_tracks(catalogue([first, second]))
    assert (groups[0] == groups[1]) == together


def test_an_album_title_of_two_artists_joins_neither():
    groups = group_tracks(catalogue([("a", "Greatest Hits", None), ("b", "Greatest Hits", None)]))
    assert groups.tolist() == [0, 1]
    groups = group_tracks(
        catalogue([("a", "Hits", None), (None, "Hits", None), ("b", "Hits", None), (None, "Hits", None)])
    )
    assert groups.tolist() == [0, 1, 2, 1]


@given(data=st.data(), tracks=any_tracks, seed=st.integers(0, 5))
def test_copies_of_a_recording_stay_on_one_side(data, tracks, seed):
    copies = data.draw(st.lists(maybe_a_name, min_size=len(tracks), max_size=len(tracks)))
    table = with_column(catalogue(tracks), "duplicate_group", copies)
    try:
        splits = split_by_artist(table, SplitSettings(seed=seed))["split"].to_pylist()
        folds = assign_artist_folds(table, 2, seed).tolist()
    except BadInput:
        assume(False)
    for sides in (splits, folds):
        held = {(copy, side) for copy, side in zip(copies, sides, strict=True) if copy}
        assert len(held) == len({copy for copy, _ in held})


def test_a_copy_joins_the_artists_that_play_it():
    tracks: list[Track] = [("a", None, None), ("b", None, None), ("b", None, None), ("c", None, None)]
    table = with_column(catalogue(tracks), "duplicate_group", ["0000", None, "0000", None])
    assert group_tracks(table).tolist() == [0, 0, 0, 1]
    assert group_tracks(table.drop_columns("duplicate_group")).tolist() == [0, 1, 1, 2]


def test_a_genre_of_too_few_artists_is_bad_input():
    tracks = [*tracks_of([[2] * 5]), ("Solo", None, "Folk"), ("Solo", "x", "Folk")]
    with pytest.raises(BadInput, match=r"'Folk' has 1 artist \(Solo\); .* needs 3; add tracks"):
        split_by_artist(catalogue(tracks), ARTIST)
    with pytest.raises(BadInput, match=r"'Folk' has 1 artist \(Solo\); a split into 5 folds .* needs 5"):
        assign_artist_folds(catalogue(tracks), 5)


def test_no_tracks_get_no_split():
    assert len(split_by_artist(catalogue([]), ARTIST)) == 0


def test_official_splits_are_kept_where_all_three_are_there():
    table = catalogue(tracks_of([[1] * 5]))
    column = table.schema.get_field_index("split")
    official = ["training", "training", "validation", "test", None]
    whole = table.set_column(column, "split", pa.array(official, pa.string()))
    assert split_tracks(whole, SplitSettings())["split"].to_pylist() == official
    without_test = table.set_column(column, "split", pa.array([*official[:3], None, None], pa.string()))
    assert split_tracks(without_test, SplitSettings())["split"].null_count == 0
    assert split_tracks(without_test, SplitSettings(mode="official")) is without_test
    assert split_tracks(whole, SplitSettings(mode="none"))["split"].null_count == 5


@given(
    rows=st.lists(
        st.tuples(st.none() | st.sampled_from(SPLITS), st.none() | st.sampled_from("abcd")), max_size=30
    )
)
def test_of_copies_in_several_official_splits_the_strongest_stay(rows):
    official, copies = [split for split, _ in rows], [copy for _, copy in rows]
    table = with_column(catalogue([("x", None, None)] * len(rows)), "split", official)
    table = with_column(table, "duplicate_group", copies)
    assume(any(official))
    kept = split_tracks(table, SplitSettings(mode="official"))["split"].to_pylist()
    out = find_cross_split_duplicates(table).tolist()
    for row, (split, copy) in enumerate(rows):
        splits_of_copy = [split, *(other for other, its in rows if copy and its == copy)]
        strongest = max(splits_of_copy, key=[None, *SPLITS].index)
        assert kept[row] == (split if split == strongest else None)
        assert (row in out) == (kept[row] != split)


def test_official_splits_of_a_catalogue_without_copies_are_the_very_same():
    table = with_column(catalogue(tracks_of([[1] * 3])), "split", list(SPLITS))
    settings = SplitSettings(mode="official")
    assert split_tracks(table, settings) is table
    older = table.drop_columns("duplicate_group")
    assert split_tracks(older, settings) is older
    assert find_cross_split_duplicates(older).tolist() == []


def test_auto_follows_what_the_catalogue_has():
    plain = catalogue(tracks_of([[1] * 3]))
    assert resolve_split_mode(with_column(plain, "split", list(SPLITS)), SplitSettings()) == "official"
    assert (
        resolve_split_mode(with_column(plain, "split", ["test", None, "training"]), SplitSettings())
        == "artist"
    )
    assert resolve_split_mode(catalogue([("a", None, None)]), SplitSettings()) == "none"
    assert resolve_split_mode(plain, SplitSettings(mode="none")) == "none"


def test_tracks_without_genres_get_no_split_unless_asked():
    table = catalogue([(None, None, None)] * 20)
    assert split_tracks(table, SplitSettings())["split"].null_count == 20
    assert split_tracks(table, ARTIST)["split"].null_count == 0
    with pytest.raises(BadInput, match=r"no official splits; set split\.mode"):
        split_tracks(table, SplitSettings(mode="official"))


def test_something_must_be_left_for_training():
    with pytest.raises(ValueError, match=r"--validation-share 0\.5 and --test-share 0\.5 leave nothing"):
        SplitSettings(validation_share=0.5, test_share=0.5)


def test_real_music_is_split_evenly(need):
    need(EMOTIFY.is_dir(), "../shared/data/emotify_fma is not here")
    table = split_tracks(read_catalogue(str(EMOTIFY), CatalogueSettings()), ARTIST)
    genres = table["genre_top"].to_pylist()
    found = Counter(zip(genres, table["split"].to_pylist(), strict=True))
    assert {found[genre, "test"] for genre in set(genres)} == {8}
    assert {found[genre, "validation"] for genre in set(genres)} == {8}
    numbers = assign_artist_folds(table, 5)
    held = Counter(zip(genres, numbers.tolist(), strict=True))
    assert set(held.values()) <= {14, 15, 16, 17, 18}  # 80 tracks a genre


# A catalogue that grows: which tracks were there before, and the copies that are found only now.
growing = st.lists(
    st.tuples(
        maybe_a_name, maybe_a_name, st.sampled_from(["Rock", None]), st.none() | st.sampled_from("xyz")
    ),
    min_size=3,
    max_size=40,
).flatmap(
    lambda rows: st.tuples(st.just(rows), st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
)


def grown(rows, was_there):
    """Return the catalogue of today, and that of before with its splits."""
    table = with_column(catalogue([row[:3] for row in rows]), "duplicate_group", [row[3] for row in rows])
    before = with_column(table.filter(pa.array(was_there)), "duplicate_group", [None] * sum(was_there))
    try:
        previous = split_by_artist(before, ARTIST)
        split_by_artist(table, ARTIST, previous)
    except BadInput:  # a genre with too few artists, before or since copies joined some
        assume(False)
    return table, previous


@settings(max_examples=50)  # each splits several catalogues
@given(rows_and_flags=growing, seed=st.integers(0, 3))
def test_a_catalogue_that_grows_keeps_its_test_and_leaks_nothing_into_it(rows_and_flags, seed):
    table, previous = grown(*rows_and_flags)
    now = split_by_artist(table, SplitSettings(seed=seed), previous)
    before, after = by_track(previous), by_track(now)
    groups = dict(zip(table["track_id"].to_pylist(), group_tracks(table).tolist(), strict=True))
    splits_of_group = defaultdict(set)
    for track, split in after.items():
        splits_of_group[groups[track]].add(split)
    assert all(len(found - {None}) == 1 for found in splits_of_group.values())
    strength = [None, *SPLITS].index
    for track, split in before.items():
        strongest = max((before[it] for it in before if groups[it] == groups[track]), key=strength)
        assert after[track] == (split if split == strongest else None)
    for track in after.keys() - before.keys():
        assert after[track] is not None


@settings(max_examples=50)
@given(rows_and_flags=growing, order=st.randoms(use_true_random=False))
def test_growth_twice_equals_once_in_any_order_of_rows(rows_and_flags, order):
    table, previous = grown(*rows_and_flags)
    once = split_by_artist(table, ARTIST, previous)
    rows, former_rows = list(range(len(table))), list(range(len(previous)))
    order.shuffle(rows)
    order.shuffle(former_rows)
    assert by_track(
        split_by_artist(table.take(rows), ARTIST, previous.take(pa.array(former_rows, pa.int64())))
    ) == by_track(once)
    assert by_track(split_by_artist(table, ARTIST, once)) == by_track(once)
    shares_of_today = SplitSettings(mode="artist", validation_share=0.0, test_share=0.3, seed=5)
    assert by_track(split_by_artist(table, shares_of_today, once)) == by_track(once)


@settings(max_examples=50)
@given(rows_and_flags=growing)
def test_splits_that_are_not_to_be_kept_are_assigned_again(rows_and_flags):
    table, previous = grown(*rows_and_flags)
    try:
        again = by_track(split_by_artist(table, ARTIST))
    except BadInput:
        assume(False)
    assert by_track(split_by_artist(table, SplitSettings(keep_existing=False), previous)) == again
    assert by_track(split_by_artist(table, ARTIST, previous[:0])) == again


@given(old=artist_sizes, new=st.lists(st.integers(1, 9), min_size=10, max_size=30), seed=st.integers(0, 3))
def test_new_artists_bring_each_genre_near_its_share_again(old, new, seed):
    before = tracks_of([[size for size in counts if size > 0] for counts in old])
    later = [(f"later {number}", None, "genre 0") for number, size in enumerate(new) for _ in range(size)]
    settings = SplitSettings(mode="artist", seed=seed, validation_share=0.2, test_share=0.2)
    previous = split_by_artist(catalogue(before), SplitSettings(mode="artist"))  # a tenth each, then
    table = split_by_artist(catalogue(before + later), settings, previous)
    found = Counter(zip(table["genre_top"].to_pylist(), table["split"].to_pylist(), strict=True))
    was = Counter(zip(previous["genre_top"].to_pylist(), previous["split"].to_pylist(), strict=True))
    total = sum(old[0]) + sum(new)
    for split, share in {"training": 0.6, "validation": 0.2, "test": 0.2}.items():
        low, high = share * total - 2 * 9, max(share * total + 2 * 9, was["genre 0", split])
        assert low - max(0, was["genre 0", "training"] - 0.6 * total) <= found["genre 0", split] <= high


def test_a_track_that_lost_its_split_may_be_learned_from_again_but_never_tested_with():
    pairs = [str(number) for number in range(20)]
    table = catalogue([(f"{kind} {pair}", None, None) for kind in ("tested", "learned") for pair in pairs])
    table = with_column(table, "duplicate_group", pairs * 2)
    previous = with_column(table, "split", ["test"] * 20 + ["training"] * 20)
    linked = split_by_artist(table, ARTIST, previous)
    assert linked["split"].to_pylist() == ["test"] * 20 + [None] * 20
    alone = table.slice(20)  # the test tracks are gone from the source
    assert split_by_artist(alone, ARTIST, linked)["split"].to_pylist() == ["training"] * 20


def test_a_new_genre_of_old_artists_goes_where_they_are():
    before = tracks_of([[2] * 6])
    previous = split_by_artist(catalogue(before), ARTIST)
    of_training = [
        artist
        for artist, split in zip(previous["artist"].to_pylist(), previous["split"].to_pylist(), strict=True)
        if split == "training"
    ]
    later = [(artist, None, "Polka") for artist in dict.fromkeys(of_training)]
    now = split_by_artist(catalogue(before + later), ARTIST, previous)
    polka = now["split"].to_pylist()[len(before) :]
    assert set(polka) == {"training"}, "it cannot be in every split: the rest is assigned"
    with pytest.raises(BadInput, match=r"'Polka' has 1 artist \(New\); .* needs 3"):
        split_by_artist(catalogue([*before, ("New", None, "Polka")]), ARTIST, previous)
