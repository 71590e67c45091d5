import hashlib
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.catalogue.duplicates import (
    LEAF_TRACKS,
    MAX_DURATION_DIFFERENCE_S,
    add_duplicate_groups,
    group_duplicates,
)
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from preprocessing.decode import decode
from preprocessing.mel.fingerprint import (
    MAX_MODULATION_DISTANCE,
    MAX_SPECTRUM_DISTANCE_DB,
    MODULATION,
    MODULATION_OFFSET,
    SPECTRUM,
    STEP_DB,
    Fingerprinter,
    match_fingerprints,
    modulation_norm,
)
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from store.dataset.snapshots import INDEX_SCHEMA
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode


def columns(sha256, digits_TD, durations_s):
    """Lay out what group_duplicates takes; None is null."""
    fingerprints = [None if row is None else np.asarray(row, np.int8).tobytes() for row in digits_TD]
    return (
        pa.chunked_array([pa.array(sha256, pa.binary(32))]),
        pa.chunked_array([pa.array(fingerprints, pa.binary(64))]),
        pa.chunked_array([pa.array(durations_s, pa.float64())]),
    )


def songs(rows, seed=0, lively=12):
    """Fingerprints of so many songs that have nothing in common. Shapes: (T, 64)."""
    digits_TD = np.random.default_rng(seed).normal(0, lively, (rows, 64))
    digits_TD[:, 0] = 0
    return np.clip(np.rint(digits_TD), -127, 127).astype(np.int8)


def names(rows):
    """Hashes of files, as like each other as they could be."""
    return [row.to_bytes(32, "big") for row in range(rows)]


def joined_one_by_one(sha256, digits_TD, durations_s):
    """The same groups by comparing each track with each: the definition."""
    group = list(range(len(sha256)))
    for one in range(len(sha256)):
        for other in range(one):
            same = sha256[one] is not None and sha256[one] == sha256[other]
            if not same and digits_TD[one] is not None and digits_TD[other] is not None:
                known = durations_s[one] is not None and durations_s[other] is not None
                near = known and abs(durations_s[one] - durations_s[other]) <= MAX_DURATION_DIFFERENCE_S
                same = near and match_fingerprints(digits_TD[one][None], digits_TD[other][None])[0]
            if same:
                old, new = max(group[one], group[other]), min(group[one], group[other])
                group = [new if each == old else each for each in group]
    return group


any_track = st.tuples(
    st.none() | st.integers(0, 8),  # the file
    st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)),  # the song, and which copy of it
    st.none() | st.sampled_from([30.0, 31.4, 32.8, 40.0]),
)


@given(tracks=st.lists(any_track, max_size=25))
def test_copies_are_those_of_equal_content_and_those_alike_and_as_long(tracks):
    copies = songs(4)[:, None] + np.rint(np.random.default_rng(1).normal(0, 3.5, (4, 4, 64))).astype(np.int8)
    sha256 = [None if file is None else names(9)[file] for file, _, _ in tracks]
    digits_TD = [None if song is None else copies[song] for _, song, _ in tracks]
    durations_s = [duration for _, _, duration in tracks]
    found = group_duplicates(*columns(sha256, digits_TD, durations_s))
    assert found.tolist() == joined_one_by_one(sha256, digits_TD, durations_s)


@pytest.mark.parametrize("tones", [1, 1_000])
def test_no_pair_is_missed_among_many_leaves_even_at_the_very_limits(tones):
    rng, rows = np.random.default_rng(0), 20 * LEAF_TRACKS  # more than one TILE_TRACKS
    first_TD = songs(rows)
    first_TD[:, SPECTRUM] = songs(tones, seed=1)[rng.integers(0, tones, rows), SPECTRUM]
    # At the limits of what a copy may be, in modulation and for most in spectrum, but for rounding.
    away_TD = rng.normal(size=first_TD.shape)
    for _ in range(20):
        moves_T = (modulation_norm(first_TD) + modulation_norm(first_TD + away_TD)) / 2
        away_TD[:, MODULATION] *= (
            MAX_MODULATION_DISTANCE * (moves_T + MODULATION_OFFSET) / modulation_norm(away_TD)
        )[:, None]
    away_TD[:, : SPECTRUM.stop] = 0
    along_T = rng.integers(SPECTRUM.start, SPECTRUM.stop, rows)
    away_TD[np.arange(rows), along_T] = rng.choice([-1, 0, 1], rows) * (
        MAX_SPECTRUM_DISTANCE_DB // STEP_DB[along_T] + rng.choice([0, 0, 1], rows)
    )
    copy_TD = np.rint(first_TD + away_TD).astype(np.int8)
    is_copy_T = match_fingerprints(first_TD, copy_TD)
    assert 0.2 < is_copy_T.mean() < 0.8
    order = rng.permutation(2 * rows)
    both_TD = np.concatenate([first_TD, copy_TD])[order]
    found = group_duplicates(*columns(names(2 * rows), both_TD, [30.0] * (2 * rows)))
    place = np.argsort(order)
    np.testing.assert_array_equal(found[place[:rows]] == found[place[rows:]], is_copy_T)


def test_copies_of_copies_are_one_group_known_by_its_least_row():
    chain_TD = np.repeat(songs(1), 5, axis=0)
    step = np.random.default_rng(3).choice([-1, 1], 64) * 4
    step[:4] = 0
    chain_TD = np.clip(chain_TD + np.arange(5)[:, None] * step, -127, 127).astype(np.int8)
    assert not match_fingerprints(chain_TD[:1], chain_TD[4:])[0]
    digits_TD = [*songs(2, seed=9), *chain_TD[[3, 1, 4, 0, 2]]]
    found = group_duplicates(*columns([None] * 7, digits_TD, [9.0] * 7))
    assert found.tolist() == [0, 1, 2, 2, 2, 2, 2]


def test_what_is_not_known_is_like_nothing():
    song = songs(1)[0]
    found = group_duplicates(*columns([None] * 4, [None, None, song, song], [30.0, 30.0, 30.0, None]))
    assert found.tolist() == [0, 1, 2, 3]
    assert group_duplicates(*columns([], [], [])).tolist() == []


def test_slices_and_chunks_are_read_where_they_lie():
    digits_TD = songs(3)[[0, 1, 2, 1, 0]]
    sha256, fingerprints, durations_s = columns(names(5), digits_TD, [30.0] * 5)
    chunked = pa.chunked_array([fingerprints.chunk(0)[1:3], fingerprints.chunk(0)[3:]])
    for rest in (fingerprints[1:], chunked):
        assert group_duplicates(sha256[1:], rest, durations_s[1:]).tolist() == [0, 1, 0, 3]


@pytest.mark.parametrize("alike", [True, False])
def test_thousands_of_tracks_that_hardly_move_are_no_burden(alike):
    rows = 12_000  # 72 million pairs: as two numbers each they would be more than a gigabyte
    digits_TD = songs(1, lively=0 if alike else 6).repeat(rows, axis=0)
    if not alike:
        digits_TD[:, MODULATION] = songs(rows, lively=6)[:, MODULATION]
    given_columns = columns([None] * rows, digits_TD, [30.0] * rows)
    tracemalloc.start()
    found = group_duplicates(*given_columns)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.unique(found)) == (1 if alike else rows)
    assert peak_bytes < 64 << 20


def test_the_catalogue_names_the_first_copy_and_nothing_where_a_track_is_alone():
    digits_TD = songs(2)[[0, 1, 0, 1, 1]]
    sha256, fingerprints, durations_s = columns([None] * 5, digits_TD, [30.0, 30.0, 31.0, 32.0, 30.0])
    catalogue = pa.Table.from_pylist([{"track_id": name} for name in "abcde"], schema=CATALOGUE_SCHEMA)
    answers = pa.table({"sha256": sha256, "fingerprint": fingerprints, "decoded_s": durations_s})
    marked = add_duplicate_groups(catalogue, answers)
    assert marked["duplicate_group"].to_pylist() == ["a", "b", "a", None, "b"]
    assert marked.schema == CATALOGUE_SCHEMA
    of_an_old_store = catalogue.drop_columns("duplicate_group")
    assert add_duplicate_groups(of_an_old_store, answers)["duplicate_group"] == marked["duplicate_group"]


def test_a_catalogue_that_was_never_built_has_no_copies():
    catalogue = pa.Table.from_pylist([{"track_id": "a"}, {"track_id": "b"}], schema=CATALOGUE_SCHEMA)
    answers = pa.Table.from_pylist([{}, {}], schema=INDEX_SCHEMA)
    assert add_duplicate_groups(catalogue, answers)["duplicate_group"].null_count == 2
    nothing = add_duplicate_groups(catalogue[:0], answers[:0])
    assert nothing.schema == CATALOGUE_SCHEMA


def test_a_real_copy_is_found_among_real_music(tmp_path):
    encode(tmp_path / "copy.ogg", *CODECS[".ogg"], seconds=60)
    paths = [*sorted(DEMO_TRACK.parent.glob("20000*.mp3")), DEMO_TRACK, tmp_path / "copy.ogg"]
    digits_TD, durations_s, sha256 = [], [], []
    for path in paths:
        wave_S = decode(str(path), sample_rate_hz=22_050)
        fingerprinter = Fingerprinter()
        fingerprinter.add(log_mel(wave_S, MelSettings()))
        digits_TD.append(np.frombuffer(fingerprinter.digest(), np.int8))
        durations_s.append(wave_S.size / 22_050)
        sha256.append(hashlib.sha256(path.read_bytes()).digest())
    found = group_duplicates(*columns(sha256, digits_TD, durations_s))
    assert found.tolist() == [*range(9), 0, 0]
