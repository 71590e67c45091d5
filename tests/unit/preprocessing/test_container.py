from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.container import after_id3, find_mpeg, identify, parse_mpeg, stated_duration_s
from tests.formats import CODECS, DEMO_TRACK, encode

KINDS = {
    ".mp3": "mpeg",
    ".flac": "flac",
    ".opus": "ogg",
    ".ogg": "ogg",
    ".m4a": "mp4",
    ".aac": "aac",
    ".wma": "asf",
    ".wav": "wav",
    ".aiff": "aiff",
    ".wv": "wavpack",
}
HEADER = b"\xff\xfb\x90\x64"  # MPEG 1 layer 3, 128 kbit/s, 44.1 kHz, joint stereo: 417 bytes


def frames(count):
    return (HEADER + bytes(413)) * count


@pytest.mark.parametrize("suffix", CODECS)
def test_every_format_is_known_by_its_first_bytes(suffix, tmp_path):
    codec, rate, container = CODECS[suffix]
    encode(tmp_path / "it", codec, rate, container)
    assert identify((tmp_path / "it").read_bytes()) == KINDS[suffix]


def test_a_frame_header_is_read_as_the_standard_says():
    header = parse_mpeg(HEADER)
    assert (header.size_bytes, header.rate_hz, header.samples, header.side_info_bytes) == (
        417,
        44_100,
        1_152,
        32,
    )
    mono_22k = parse_mpeg(b"\xff\xf3\x80\xc4")  # MPEG 2 layer 3, 64 kbit/s, 22.05 kHz, mono
    assert (mono_22k.size_bytes, mono_22k.rate_hz, mono_22k.samples, mono_22k.side_info_bytes) == (
        208,
        22_050,
        576,
        9,
    )


def test_all_frames_of_a_real_file_follow_one_another():
    data = DEMO_TRACK.read_bytes()
    at, count = after_id3(data) + find_mpeg(data[after_id3(data) :]), 0
    while at < len(data) - 4:
        at += parse_mpeg(data[at : at + 4]).size_bytes
        count += 1
    assert abs(at - len(data)) <= 4
    assert count == pytest.approx(24.0 * 44_100 / 1_152, abs=5)


@given(st.text(max_size=3_000))
def test_no_text_is_audio(text):
    page = f"<html>{text}</html>".encode()
    assert identify(page) is None


@given(junk=st.binary(max_size=200).filter(lambda junk: b"\xff" not in junk and junk[:3] != b"ID3"))
def test_mpeg_audio_is_found_behind_junk(junk):
    assert find_mpeg(junk + frames(3)) == len(junk)


def test_one_lone_header_amid_other_bytes_is_not_audio():
    assert find_mpeg(bytes(50) + HEADER + bytes(2_000)) is None


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=3))
def test_several_id3_tags_are_stepped_over(sizes):
    tags = b"".join(b"ID3\x04\x00\x00" + bytes([0, 0, size >> 7, size & 127]) + bytes(size) for size in sizes)
    assert after_id3(tags + frames(2)) == len(tags)
    assert identify(tags + frames(2)) == "mpeg"


def test_a_tag_longer_than_what_was_read_may_hide_audio():
    assert identify(b"ID3\x04\x00\x00\x00\x7f\x7f\x7f" + bytes(1_000)) == "mpeg"


def test_the_stated_duration_is_that_of_the_xing_header():
    data = DEMO_TRACK.read_bytes()
    assert stated_duration_s(data) == pytest.approx(24.0, abs=0.1)
    assert stated_duration_s(data[:100_000]) == stated_duration_s(data)
    assert stated_duration_s(frames(3)) is None


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data):
    identify(data)
    stated_duration_s(data)
    identify(Path(DEMO_TRACK).read_bytes()[:600] + data)
