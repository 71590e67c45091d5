from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.decode import decode
from preprocessing.decode.container import mpeg_duration
from preprocessing.decode.container.mpeg_duration import (
    RESYNC_BYTES,
    read_mpeg_statement,
    scan_mpeg_duration_s,
)
from preprocessing.decode.container.mpeg_frames import (
    MAX_FREE_FORMAT_FRAME_BYTES,
    MAX_MPEG_FRAME_BYTES,
    find_mpeg_frame,
    id3_end,
    parse_mpeg_header,
)
from preprocessing.decode.container.sniffing import sniff_format
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode

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
    assert sniff_format((tmp_path / "it").read_bytes()) == KINDS[suffix]


def test_true_audio_is_known_too(tmp_path):
    encode(tmp_path / "it.tta", "tta", 22050, "tta")
    assert sniff_format((tmp_path / "it.tta").read_bytes()) == "true-audio"
    assert len(decode(str(tmp_path / "it.tta"), sample_rate_hz=22050)) == pytest.approx(22050, abs=2000)


def test_a_frame_header_is_read_as_the_standard_says():
    header = parse_mpeg_header(HEADER)
    assert (header.size_bytes, header.rate_hz, header.samples, header.side_info_bytes) == (
        417,
        44_100,
        1_152,
        32,
    )
    mono_22k = parse_mpeg_header(b"\xff\xf3\x80\xc4")  # MPEG 2 layer 3, 64 kbit/s, 22.05 kHz, mono
    assert (mono_22k.size_bytes, mono_22k.rate_hz, mono_22k.samples, mono_22k.side_info_bytes) == (
        208,
        22_050,
        576,
        9,
    )


def test_all_frames_of_a_real_file_follow_one_another():
    data = DEMO_TRACK.read_bytes()
    at, count = id3_end(data) + find_mpeg_frame(data[id3_end(data) :]), 0
    while at < len(data) - 4:
        at += parse_mpeg_header(data[at : at + 4]).size_bytes
        count += 1
    assert abs(at - len(data)) <= 4
    assert count == pytest.approx(24.0 * 44_100 / 1_152, abs=5)


@given(st.text(max_size=3_000))
def test_no_text_is_audio(text):
    page = f"<html>{text}</html>".encode()
    assert sniff_format(page) is None


@given(junk=st.binary(max_size=200).filter(lambda junk: b"\xff" not in junk and junk[:3] != b"ID3"))
def test_mpeg_audio_is_found_behind_junk(junk):
    assert find_mpeg_frame(junk + frames(3)) == len(junk)


def test_one_lone_header_amid_other_bytes_is_not_audio():
    assert find_mpeg_frame(bytes(50) + HEADER + bytes(2_000)) is None


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=3))
def test_several_id3_tags_are_stepped_over(sizes):
    tags = b"".join(b"ID3\x04\x00\x00" + bytes([0, 0, size >> 7, size & 127]) + bytes(size) for size in sizes)
    assert id3_end(tags + frames(2)) == len(tags)
    assert sniff_format(tags + frames(2)) == "mpeg"


def test_a_tag_longer_than_what_was_read_may_hide_audio():
    assert sniff_format(b"ID3\x04\x00\x00\x00\x7f\x7f\x7f" + bytes(1_000)) == "mpeg"


def test_the_stated_duration_is_that_of_the_xing_header():
    data = DEMO_TRACK.read_bytes()
    assert read_mpeg_statement(data).duration_s == pytest.approx(24.0, abs=0.1)
    assert read_mpeg_statement(data[:100_000]) == read_mpeg_statement(data)
    assert read_mpeg_statement(frames(3)) is None


@given(st.binary(max_size=400))
def test_no_bytes_break_it(data):
    sniff_format(data)
    read_mpeg_statement(data)
    sniff_format(Path(DEMO_TRACK).read_bytes()[:600] + data)


@pytest.mark.parametrize(
    ("four", "size_bytes", "rate_hz", "samples"),
    [
        ("fffb9064", 417, 44_100, 1_152),  # MPEG 1 layer 3, 128 kbit/s
        ("fffb9264", 418, 44_100, 1_152),  # the same, padded
        ("fffde464", 1_152, 48_000, 1_152),  # MPEG 1 layer 2, 384 kbit/s
        ("ffffc464", 384, 48_000, 384),  # MPEG 1 layer 1, 384 kbit/s
        ("ffffc664", 388, 48_000, 384),  # padded: a slot of layer 1 is four bytes
        ("fff5e464", 960, 24_000, 1_152),  # MPEG 2 layer 2, 160 kbit/s
        ("fff7e464", 512, 24_000, 384),  # MPEG 2 layer 1, 256 kbit/s
        ("ffe318c4", 72, 8_000, 576),  # MPEG 2.5 layer 3, 8 kbit/s
        ("ffe5eac4", 2_881, 8_000, 1_152),  # MPEG 2.5 layer 2, 160 kbit/s, padded: the longest of all
    ],
)
def test_each_version_and_layer_has_its_own_tables(four, size_bytes, rate_hz, samples):
    header = parse_mpeg_header(bytes.fromhex(four))
    assert (header.size_bytes, header.rate_hz, header.samples) == (size_bytes, rate_hz, samples)


ALL_HEADERS = [
    four
    for version_and_layer in range(0xE0, 0x100)
    for rates in range(0, 0x100, 2)
    if parse_mpeg_header(four := bytes([0xFF, version_and_layer, rates, 0xC4]))
]


def test_no_frame_is_longer_than_the_longest():
    assert max(parse_mpeg_header(four).size_bytes for four in ALL_HEADERS) == MAX_MPEG_FRAME_BYTES


def run_of(four, count):
    """So many frames of a kind, and how long they play."""
    header = parse_mpeg_header(four)
    return (four + bytes(header.size_bytes - 4)) * count, count * header.samples / header.rate_hz


def counted_s(data, folder, walk_bytes=1 << 22):
    (folder / "it.mp3").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpeg_duration, "SCAN_BLOCK_BYTES", walk_bytes)
        return scan_mpeg_duration_s(folder / "it.mp3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("counted")


no_sync = st.binary(max_size=300).map(lambda junk: junk.replace(b"\xff", b"").removeprefix(b"ID3"))


@given(
    runs=st.lists(
        st.tuples(no_sync, st.sampled_from(ALL_HEADERS), st.integers(2, 12)), min_size=1, max_size=6
    ),
    tail=no_sync,
    walk_bytes=st.integers(10, 20_000),
)
def test_frames_are_counted_whatever_lies_between_them_and_however_they_are_read(
    runs, tail, walk_bytes, folder
):
    data, seconds = b"", 0.0
    for junk, four, count in runs:
        frames, playing_s = run_of(four, count)
        data, seconds = data + junk + frames, seconds + playing_s
    assert counted_s(data + tail, folder, walk_bytes) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "length",
    [
        *range(RESYNC_BYTES - 2 * MAX_MPEG_FRAME_BYTES, RESYNC_BYTES + 100, 577),
        *(3 * RESYNC_BYTES + shift for shift in (-1, 0, 1)),
    ],
)
def test_frames_are_found_behind_junk_longer_than_is_searched_at_once(length, folder):
    longest, seconds = run_of(bytes.fromhex("ffe5eac4"), 3)
    assert counted_s(longest + bytes(length) + longest, folder) == pytest.approx(2 * seconds)


def test_a_file_that_ends_where_a_block_does_is_counted_to_its_end(folder):
    data, seconds = run_of(HEADER, 20)
    for walk_bytes in (len(data), len(data) // 2, len(data) // 4, 417):
        assert counted_s(data, folder, walk_bytes) == pytest.approx(seconds)


def test_a_frame_that_is_cut_off_does_not_play(folder):
    data, seconds = run_of(HEADER, 20)
    assert counted_s(data[:-1], folder) == pytest.approx(seconds * 19 / 20)


@pytest.mark.parametrize(
    "tail",
    [
        b"TAG" + bytes(125),
        b"APETAGEX\xd0\x07\0\0" + bytes(20) + b"\xff\xd8\xff\xe0 a picture" * 90 + b"APETAGEX" + bytes(24),
    ],
)
def test_tags_behind_the_music_do_not_play(tail, folder):
    data, seconds = run_of(HEADER, 9)
    assert counted_s(data + tail, folder) == pytest.approx(seconds)


def test_a_tag_longer_than_a_block_does_not_play_though_it_holds_headers(folder):
    data, seconds = run_of(HEADER, 9)
    tag = b"ID3\x04\x00\x00\x00\x00\x7f\x7f" + run_of(HEADER, 40)[0][: (1 << 14) - 1]
    assert counted_s(tag + data, folder, walk_bytes=500) == pytest.approx(seconds)


def test_what_holds_no_frame_has_no_length(folder):
    assert counted_s(bytes(9_000), folder) is None
    assert counted_s(b"", folder) is None


@pytest.mark.parametrize("number", range(1, 49, 6))
def test_as_many_frames_are_counted_as_ffmpeg_finds_in_real_music(number, folder):
    data = DEMO_TRACK.with_stem(str(200_000 + number)).read_bytes()
    header = data.index(b"Info") if b"Info" in data[:3_000] else data.index(b"Xing")
    data = data[data.index(b"\xff\xfb", header) :]
    seconds = counted_s(data, folder)
    assert counted_s(data, folder, walk_bytes=10_007) == pytest.approx(seconds)
    with av.open(str(folder / "it.mp3")) as file:
        packets = sum(packet.size > 0 for packet in file.demux(audio=0))
    assert seconds == pytest.approx(packets * 1_152 / 44_100)


FREE = b"\xff\xfb\x00\x64"  # MPEG 1 layer 3 of a bit rate that no table lists


@given(size=st.integers(8, MAX_FREE_FORMAT_FRAME_BYTES - 2), padding=st.booleans())
def test_frames_of_a_free_bit_rate_are_mpeg(size, padding):
    second = bytes([*FREE[:2], FREE[2] | padding << 1, FREE[3]])
    assert sniff_format(FREE + bytes(size - 4) + second + bytes(size)) == "mpeg"


def test_a_header_of_a_free_bit_rate_must_come_again_soon():
    assert sniff_format(FREE + bytes(20_000)) is None
    assert sniff_format(FREE + bytes(MAX_FREE_FORMAT_FRAME_BYTES) + FREE) is None
    assert sniff_format(FREE) is None
    listed = HEADER + bytes(200) + HEADER + bytes(500)  # its frames are 417 bytes long, or it is none
    assert sniff_format(listed) is None


@pytest.mark.parametrize("four", ["fffff064", "fffb0c64", "ffeb0064", "fff90064", "aafb0064", "ff1b0064"])
def test_what_no_mpeg_header_may_say_is_no_free_bit_rate_either(four):
    four = bytes.fromhex(four)
    assert sniff_format((four + bytes(500)) * 4) is None


def test_a_free_bit_rate_is_not_counted(folder):
    """Its frames are as long as their encoder likes, so their file states no length."""
    assert counted_s((FREE + bytes(700)) * 50, folder) is None
