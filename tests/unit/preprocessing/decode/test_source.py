"""The length that a file states, checked against its bytes."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from preprocessing.decode import decode
from preprocessing.decode.container.mpeg_frames import id3_end
from preprocessing.decode.container.ogg_links import read_links
from preprocessing.decode.container.sniffing import sniff_format
from preprocessing.decode.decoders import decode_blocks
from tests.support.audio_formats import CODECS, DEMO_TRACK, encode

MP3 = DEMO_TRACK.read_bytes()
SECONDS = 24.0


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Excerpts in Ogg, each of three seconds; cut.ogg lacks its last bytes."""
    folder = tmp_path_factory.mktemp("music")
    for suffix in (".opus", ".ogg", ".flac"):
        codec, rate, container = CODECS[suffix]
        encode(folder / f"music{suffix}", codec, rate, container, 3.0)
    encode(folder / "flac.ogg", "flac", 44_100, "ogg", 3.0)
    return folder


def decoded(path: Path) -> tuple[float, bool]:
    """Return the duration of a file and whether its end is missing."""
    result = decode_blocks(list, path, sample_rate_hz=22_050)
    return result.decoded_s, result.is_truncated


def with_statement(mp3: bytes, *, frames: float = 1.0, size: float = 1.0) -> bytes:
    """Change what the Xing frame states, by factors."""
    at = next(it for it in (mp3.find(b"Xing"), mp3.find(b"Info")) if it > 0) + 8
    stated = struct.unpack_from(">II", mp3, at)
    return mp3[:at] + struct.pack(">II", int(stated[0] * frames), int(stated[1] * size)) + mp3[at + 8 :]


@pytest.mark.parametrize("frames", [0.1, 0.5, 0.9, 1.1, 2.0, 10.0])
@pytest.mark.parametrize("copies", [1, 4], ids=["small", "large"])
def test_frames_are_counted_where_their_stated_number_does_not_fit_the_bytes(frames, copies, tmp_path):
    path = tmp_path / "it.mp3"
    whole = MP3 + MP3[id3_end(MP3) :] * (copies - 1)
    path.write_bytes(with_statement(whole, frames=copies * frames, size=copies))
    seconds, is_truncated = decoded(path)
    assert seconds == pytest.approx(copies * SECONDS, abs=0.2 * copies)
    assert not is_truncated


def test_joined_files_are_decoded_to_the_end(tmp_path):
    path = tmp_path / "it.mp3"
    path.write_bytes(MP3 + MP3)
    seconds, is_truncated = decoded(path)
    assert seconds == pytest.approx(2 * SECONDS, abs=0.3)
    assert not is_truncated


def test_a_file_that_was_cut_off_is_as_long_as_it_states(tmp_path):
    path = tmp_path / "it.mp3"
    path.write_bytes(MP3[: len(MP3) * 7 // 10])
    seconds, is_truncated = decoded(path)
    assert seconds == pytest.approx(0.7 * SECONDS, abs=0.3)
    assert is_truncated


# Ogg


@pytest.mark.parametrize("name", ["music.opus", "music.ogg", "flac.ogg"])
def test_a_whole_ogg_is_one_link_and_complete(name, music):
    (link,) = read_links(music / name)
    assert (link.start, link.stop, link.is_complete) == (0, (music / name).stat().st_size, True)
    assert decoded(music / name)[1] is False


@pytest.mark.parametrize("cut", [1, 300, 3_000])
@pytest.mark.parametrize("name", ["music.opus", "music.ogg"])
def test_a_missing_end_is_marked(name, cut, music, tmp_path):
    path = tmp_path / name
    path.write_bytes((music / name).read_bytes()[:-cut])
    assert not read_links(path)[-1].is_complete
    seconds, is_truncated = decoded(path)
    assert 0 < seconds <= 3.0
    assert is_truncated


@pytest.mark.parametrize("suffix", ["wav", "aiff"])
def test_a_missing_end_of_plain_samples_is_marked(suffix, tmp_path):
    path = tmp_path / f"it.{suffix}"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 44_100), 22_050)
    assert decoded(path) == (pytest.approx(2.0), False)
    path.write_bytes(path.read_bytes()[:-22_050])
    assert decoded(path) == (pytest.approx(1.5), True)
    excerpt = decode_blocks(list, path, sample_rate_hz=22_050, start_s=0.5, duration_s=0.5)
    assert not excerpt.is_truncated


@pytest.mark.parametrize(
    "names",
    [
        ("music.ogg", "music.opus"),
        ("music.opus", "music.ogg", "music.opus"),
        ("music.ogg", "music.ogg"),
        ("flac.ogg", "music.opus"),
    ],
    ids="-".join,
)
def test_all_links_of_a_chain_are_decoded(names, music, tmp_path):
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join((music / name).read_bytes() for name in names))
    assert [link.is_complete for link in read_links(path)] == [True] * len(names)
    parts = [decode(str(music / name), sample_rate_hz=22_050) for name in names]
    whole_S = decode(str(path), sample_rate_hz=22_050)
    assert abs(whole_S.size - sum(part.size for part in parts)) <= len(parts)
    np.testing.assert_allclose(whole_S[: parts[0].size - 200], parts[0][:-200], atol=1e-4)
    np.testing.assert_allclose(whole_S[200 - parts[-1].size :], parts[-1][200:], atol=1e-4)
    window_S = decode(str(path), sample_rate_hz=22_050, start_s=2.5, duration_s=1.0)
    np.testing.assert_allclose(window_S.size, 22_050, atol=2)


def test_a_page_after_damage_is_found_again(music, tmp_path):
    data = (music / "music.ogg").read_bytes()
    path = tmp_path / "it.ogg"
    path.write_bytes(data + bytes(200_000) + data)
    assert [link.start for link in read_links(path)] == [0, len(data) + 200_000]


# Other statements


@pytest.mark.parametrize("seconds", [0, 30, 10**9])
def test_a_flac_that_states_no_length_or_an_impossible_one_is_decoded(seconds, music, tmp_path):
    data = bytearray((music / "music.flac").read_bytes())
    total = min(seconds * 22_050, (1 << 36) - 1)
    at = 4 + 4 + 13  # the number of samples has 36 bits
    data[at] = data[at] & 0xF0 | total >> 32
    data[at + 1 : at + 5] = (total & 0xFFFF_FFFF).to_bytes(4, "big")
    path = tmp_path / "it.flac"
    path.write_bytes(data)
    assert decoded(path) == (pytest.approx(decoded(music / "music.flac")[0]), False)


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
def test_a_wav_whose_size_was_never_written_is_decoded(size, tmp_path):
    path = tmp_path / "it.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 22_050), 22_050, subtype="PCM_16")
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:at] + struct.pack("<I", size) + data[at + 4 :])
    assert decoded(path)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("codec", "rate", "container", "kind"), [("ac3", 44_100, "ac3", "ac3"), ("aac", 22_050, "mov", "mp4")]
)
def test_formats_without_a_mark_of_their_own_are_known(codec, rate, container, kind, tmp_path):
    path = tmp_path / "it"
    encode(path, codec, rate, container)
    if container == "mov":  # old QuickTime files have no ftyp box
        path.write_bytes(path.read_bytes().replace(b"ftyp", b"wide", 1))
    assert sniff_format(path.read_bytes()) == kind
    assert decoded(path)[0] == pytest.approx(1.0, abs=0.1)
