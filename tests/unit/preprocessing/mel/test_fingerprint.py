import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.decode import decode
from preprocessing.mel.fingerprint import (
    FINGERPRINT_BYTES,
    MAX_MODULATION_DISTANCE,
    MAX_SPECTRUM_DISTANCE_DB,
    Fingerprinter,
    fingerprint_distances,
    match_fingerprints,
)
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode

MEL = MelSettings()
MUSIC = [path for path in sorted(DEMO_TRACK.parent.glob("*.mp3")) if path.stat().st_size > 100_000]
digits = st.lists(st.integers(-127, 127), min_size=FINGERPRINT_BYTES, max_size=FINGERPRINT_BYTES)


def digits_of(*blocks):
    """Shapes: (F_i, M) ... -> (1, 64)."""
    fingerprinter = Fingerprinter()
    for mel_FM in blocks:
        fingerprinter.add(mel_FM)
    return np.frombuffer(fingerprinter.digest(), np.int8)[None]


def of_wave(wave_S):
    return digits_of(log_mel(wave_S.astype(np.float32), MEL))


def noise_mel(frames, bands=32, seed=0):
    """Something that moves: noise that is loud and soft in turns."""
    rng = np.random.default_rng(seed)
    swell_F = 10 * np.sin(np.cumsum(rng.normal(0, 20 / frames, frames)))
    return (rng.normal(-30, 5, (frames, bands)) + swell_F[:, None]).astype(np.float32)


def silence(seconds):
    return np.zeros(int(seconds * MEL.sample_rate_hz), np.float32)


def sine(hz, seconds=8):
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * MEL.sample_rate_hz)) / MEL.sample_rate_hz)


@pytest.fixture(scope="module")
def song():
    return decode(str(DEMO_TRACK), sample_rate_hz=MEL.sample_rate_hz)


@pytest.mark.parametrize("suffix", sorted(set(CODECS) - {".wav"}))
def test_another_encoding_of_a_song_is_like_it(tmp_path, song, suffix):
    copy = tmp_path / f"copy{suffix}"
    encode(copy, *CODECS[suffix], seconds=60)
    again_S = decode(str(copy), sample_rate_hz=MEL.sample_rate_hz)
    assert match_fingerprints(of_wave(song), of_wave(again_S)).all()


@pytest.mark.parametrize(("before_s", "after_s"), [(0.4, 0), (0, 0.4), (0.3, 0.3)])
def test_padding_and_level_change_next_to_nothing(song, before_s, after_s):
    padded_S = np.concatenate([silence(before_s), 0.1 * song, silence(after_s)])
    tone_apart_db, movement_apart = fingerprint_distances(of_wave(song), of_wave(padded_S))
    assert tone_apart_db[0] < MAX_SPECTRUM_DISTANCE_DB / 3
    assert movement_apart[0] < MAX_MODULATION_DISTANCE / 2


def test_a_song_that_starts_a_little_later_is_like_it(song):
    assert match_fingerprints(of_wave(song), of_wave(song[int(0.25 * MEL.sample_rate_hz) :])).all()


def test_no_two_songs_are_alike_not_even_of_one_artist():
    songs = [of_wave(decode(str(path), sample_rate_hz=MEL.sample_rate_hz)) for path in MUSIC]
    assert len(songs) == 48
    first, second = (np.concatenate(side) for side in zip(*combinations(songs, 2), strict=True))
    assert not match_fingerprints(first, second).any()
    assert fingerprint_distances(first, second)[1].min() > 1.5 * MAX_MODULATION_DISTANCE
    used = abs(np.concatenate(songs)[:, 1:].astype(int))
    assert 5 < used.mean() < 20  # neither lost in rounding
    assert (used == 127).mean() < 0.01  # nor cut


def test_drones_differ_by_pitch_and_noises_by_how_they_move():
    assert not match_fingerprints(of_wave(sine(300)), of_wave(sine(3_000)))[0]
    assert match_fingerprints(of_wave(sine(300)), of_wave(0.2 * sine(300, seconds=8.4)))[0]
    first_S, second_S = np.random.default_rng(0).normal(0, 0.1, (2, 200_000))
    assert not match_fingerprints(of_wave(first_S), of_wave(second_S))[0]
    assert match_fingerprints(of_wave(first_S), of_wave(0.5 * first_S + 0.001 * second_S))[0]


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 3_000), max_size=8))
def test_it_does_not_matter_where_blocks_are_cut(cuts):
    mel_FM = noise_mel(3_000)
    parts = np.split(mel_FM, sorted(cuts))
    np.testing.assert_array_equal(digits_of(*parts), digits_of(mel_FM))


@settings(max_examples=30, deadline=None)
@given(gain_db=st.floats(-50, 20))
def test_the_level_is_left_out(gain_db):
    mel_FM = noise_mel(500)
    louder_FM = mel_FM + np.float32(gain_db)
    assert abs(digits_of(louder_FM).astype(int) - digits_of(mel_FM)).max() <= 1


@pytest.mark.parametrize("times", [2, 16, 60])
def test_joined_cells_of_a_long_track_equal_single_cells_of_a_short_one(times):
    mel_FM = noise_mel(2_000, bands=8)
    slow_FM = np.repeat(mel_FM[::2], 2 * times, axis=0)
    assert abs(digits_of(slow_FM).astype(int) - digits_of(mel_FM)).max() <= 2


def test_five_hours_need_less_than_a_mebibyte():
    fingerprinter, block_FM = Fingerprinter(), noise_mel(4_096, bands=128)
    tracemalloc.start()
    for _ in range(190):  # 778,240 frames
        fingerprinter.add(block_FM)
    fingerprinter.digest()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(0, 40), bands=st.integers(8, 512))
def test_any_number_of_bands_and_frames_gives_64_bytes(frames, bands):
    fingerprinter = Fingerprinter()
    fingerprinter.add(noise_mel(frames, bands) if frames else np.empty((0, bands), np.float32))
    digest = fingerprinter.digest()
    assert len(digest) == FINGERPRINT_BYTES
    assert digest[0] == 0
    assert fingerprinter.digest() == digest


def test_silence_and_nothing_have_no_movement():
    assert not digits_of(np.full((300, 128), -100, np.float32)).any()
    assert not digits_of().any()


def test_a_break_may_be_silent_or_hiss(song):
    gap = slice(len(song) // 3, len(song) // 3 + 4 * MEL.sample_rate_hz)
    silent, hissing = song.copy(), song.copy()
    silent[gap] = 0
    hissing[gap] = np.random.default_rng(0).normal(0, 1e-3, 4 * MEL.sample_rate_hz)
    assert fingerprint_distances(of_wave(silent), of_wave(hissing))[1] < 0.05
    assert not match_fingerprints(of_wave(silent), of_wave(song)).any()


def test_what_is_too_much_for_a_digit_is_cut_and_not_turned_round():
    part_FM = np.full((300, 64), -10, np.float32)
    digits_D = digits_of(part_FM, part_FM - 40, part_FM - 40, part_FM)[0]
    assert digits_D.max() == 127
    shallow_D = digits_of(part_FM, part_FM - 10, part_FM - 10, part_FM)[0]
    np.testing.assert_array_equal(np.sign(digits_D), np.sign(shallow_D))


@pytest.mark.parametrize("bands", [64, 96])
def test_fewer_bands_tell_about_the_same(song, bands):
    coarse = digits_of(log_mel(song, MelSettings(bands=bands)))
    assert match_fingerprints(of_wave(song), coarse).all()


@given(first=digits, second=digits)
def test_distances_are_the_same_both_ways_and_none_from_itself(first, second):
    first_PD, second_PD = np.array([first], np.int8), np.array([second], np.int8)
    there, back = fingerprint_distances(first_PD, second_PD), fingerprint_distances(second_PD, first_PD)
    np.testing.assert_array_equal(there, back)  # squares and sums are the same numbers both ways
    np.testing.assert_array_equal(fingerprint_distances(first_PD, first_PD), 0)
    assert match_fingerprints(first_PD, first_PD)[0]
