"""The structures that describe the audio count as audio; an ID3 tag before another container does not pass for one."""

import struct
from pathlib import Path

import pytest
from mutagen.apev2 import APEv2
from mutagen.asf import ASF

from store.errors import BadInput
from store.tags.containers.asf import FILE_PROPERTIES
from store.tags.payload import hash_payload
from store.tags.write import check_taggable, read_genres, read_tags, write_genres
from tests.support.audio_formats import CODECS, encode

ID3 = b"ID3\4\0\0\0\0\0\x0fTCON\0\0\0\5\0\0\3Jazz"
STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    for suffix in (".flac", ".wav", ".aiff", ".wma", ".opus", ".wv", ".m4a", ".ogg", ".aac"):
        codec, rate, container = CODECS[suffix]
        encode(folder / f"music{suffix}", codec, rate, container, 0.3)
    return folder


def ape(genre: str) -> bytes:
    """Render an APEv2 tag with its header and footer."""
    item = struct.pack("<II", len(genre), 0) + b"Genre\0" + genre.encode()
    ends = [
        b"APETAGEX" + struct.pack("<IIII", 2000, len(item) + 32, 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    ]
    return ends[0] + item + ends[1]


def flac_with(blocks: list[tuple[int, bytes]], data: bytes) -> bytes:
    extra = b"".join(bytes([kind]) + len(content).to_bytes(3, "big") + content for kind, content in blocks)
    return data[:4] + data[4:42] + extra + data[42:]  # after STREAMINFO


def chunk(order: str, id_: bytes, content: bytes) -> bytes:
    return struct.pack(f"{order}4sI", id_, len(content)) + content


def with_chunk(order: str, added: bytes, data: bytes) -> bytes:
    return data[:4] + struct.pack(f"{order}I", len(data) - 8 + len(added)) + data[8:] + added


@pytest.mark.parametrize(
    ("suffix", "mark", "change"),
    [
        (".flac", b"seek", lambda data: flac_with([(3, b"seek" + bytes(14))], data)),
        (".flac", b"cues", lambda data: flac_with([(5, b"cues" + bytes(392))], data)),
        (".flac", b"app1", lambda data: flac_with([(2, b"app1")], data)),
        (".wav", b"cue!", lambda data: with_chunk("<", chunk("<", b"cue ", b"cue!" + bytes(24)), data)),
        (".wav", b"loop", lambda data: with_chunk("<", chunk("<", b"smpl", b"loop" + bytes(56)), data)),
        (".aiff", b"mark", lambda data: with_chunk(">", chunk(">", b"MARK", b"mark" + bytes(8)), data)),
        (".wma", STREAM, lambda data: data),
        (".wma", FILE_PROPERTIES, lambda data: data),
    ],
    ids=["seek-table", "cue-sheet", "application", "cue", "smpl", "MARK", "stream", "file"],
)
def test_what_describes_the_audio_counts_as_audio(suffix, mark, change, music, tmp_path):
    track = tmp_path / f"track{suffix}"
    data = change((music / f"music{suffix}").read_bytes())
    track.write_bytes(data)
    before = hash_payload(track)
    at = data.index(mark) + len(mark) + (8 if suffix == ".wma" else -1)
    track.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert hash_payload(track) != before


def test_a_wma_file_states_its_new_size(music, tmp_path):
    track = tmp_path / "track.wma"
    data = (music / "music.wma").read_bytes()
    at = data.index(FILE_PROPERTIES) + 24 + 16
    track.write_bytes(data[:at] + struct.pack("<Q", len(data)) + data[at + 8 :])
    write_genres(track, ["N" * 9_000])
    assert struct.unpack_from("<Q", track.read_bytes(), at)[0] == track.stat().st_size > len(data)
    track.write_bytes(data[:at] + struct.pack("<Q", 7) + data[at + 8 :])  # it was wrong, and stays
    write_genres(track, ["N" * 9_000])
    assert struct.unpack_from("<Q", track.read_bytes(), at)[0] == 7


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".opus", "Ogg"),
        (".wav", "WAV"),
        (".aiff", "AIFF"),
        (".wma", "WMA"),
        (".wv", "WavPack"),
        (".m4a", "MP4"),
    ],
)
def test_an_id3_tag_before_another_container_is_read_and_left_alone(suffix, name, music, tmp_path):
    track = tmp_path / f"track{suffix}"
    track.write_bytes(ID3 + (music / f"music{suffix}").read_bytes())
    assert read_tags(track).genres == read_genres(track) == ["Jazz"]
    for attempt in (check_taggable, lambda it: write_genres(it, ["Folk"])):
        with pytest.raises(BadInput, match=f"an ID3 tag precedes its {name} stream"):
            attempt(track)


@pytest.mark.parametrize(
    ("mark", "name"),
    [(b"MPCK", "Musepack"), (b"MP+\x07", "Musepack"), (b"tBaK", "TAK"), (b"OFR ", "OptimFROG")],
)
def test_an_id3_tag_before_audio_that_is_never_tagged_so_is_named(mark, name, tmp_path):
    track = tmp_path / "track.mpc"
    track.write_bytes(ID3 + mark + bytes(1 << 10))
    assert read_genres(track) == ["Jazz"]
    with pytest.raises(BadInput, match=f"an ID3 tag precedes its {name} stream"):
        check_taggable(track)


TRAILING = {"ID3v1": b"TAG" + bytes(124) + b"\x11", "APEv2": ape("Ska")}


@pytest.mark.parametrize("trailing", TRAILING)
@pytest.mark.parametrize("suffix", [".m4a", ".ogg", ".opus", ".wav", ".aiff", ".wma"])
def test_a_tag_after_a_container_that_ends_by_itself_is_left_alone(suffix, trailing, music, tmp_path):
    track = tmp_path / f"track{suffix}"
    track.write_bytes((music / f"music{suffix}").read_bytes() + TRAILING[trailing])
    for attempt in (check_taggable, lambda it: write_genres(it, ["Folk"])):
        with pytest.raises(BadInput, match=r"tags? after (its audio|the end)"):
            attempt(track)


@pytest.mark.parametrize("trailing", ["ID3v1", "APEv2", "both"])
@pytest.mark.parametrize("suffix", [".flac", ".wv", ".aac"])
def test_a_tag_after_a_stream_counts_and_agrees_after_a_write(suffix, trailing, music, tmp_path):
    track = tmp_path / f"track{suffix}"
    plain = (music / f"music{suffix}").read_bytes()
    track.write_bytes(plain)
    write_genres(track, [])
    end = TRAILING.get(trailing, TRAILING["APEv2"] + TRAILING["ID3v1"])
    track.write_bytes(track.read_bytes() + end)
    assert "Ska" in read_genres(track) or read_genres(track) == ["Rock"]
    write_genres(track, ["Jazz"])
    assert read_genres(track) == ["Jazz"]
    content = track.read_bytes()
    assert b"Ska" not in content
    if trailing != "APEv2":
        assert content[-128:] == b"TAG" + bytes(124) + b"\x08"
    if trailing != "ID3v1" or suffix == ".wv":
        assert APEv2(track)["genre"] == "Jazz"
    write_genres(track, [])
    assert read_genres(track) == []


# Sizes that a writer left open


@pytest.mark.parametrize("riff", [0, 36, 0x7FFF_F024, 0xFFFF_FFFF])
@pytest.mark.parametrize("data", [0, 0x7FFF_F000, 0xFFFF_FFFF])
def test_a_streamed_wav_is_tagged_and_finished(riff, data, tmp_path):
    audio = bytes(range(256)) * 40
    form = chunk("<", b"fmt ", struct.pack("<HHIIHH", 1, 1, 22_050, 44_100, 2, 16))
    track = tmp_path / "track.wav"
    track.write_bytes(
        struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", data) + audio
    )
    write_genres(track, ["Folk"])
    assert read_genres(track) == ["Folk"]
    written = track.read_bytes()
    assert written[4:8] == struct.pack("<I", len(written) - 8)
    assert chunk("<", b"data", audio) in written


def test_a_wav_that_is_cut_off_is_not_taken_for_a_streamed_one(music, tmp_path):
    track = tmp_path / "track.wav"
    track.write_bytes((music / "music.wav").read_bytes()[:-1_000])
    with pytest.raises(BadInput, match="cut off or was never finished"):
        write_genres(track, ["Folk"])


def test_two_authors_as_ffmpeg_writes_them_are_no_damage(music, tmp_path):
    """One in the content description, one in the extended one."""
    track = tmp_path / "track.wma"
    track.write_bytes((music / "music.wma").read_bytes())
    audio = ASF(track)
    audio.update({"Author": "Ann", "Auth0r": "Ann"})
    audio.save()
    track.write_bytes(track.read_bytes().replace("Auth0r".encode("utf-16-le"), "Author".encode("utf-16-le")))
    write_genres(track, ["Folk"])
    assert [str(it) for it in ASF(track)["Author"]] == ["Ann", "Ann"]
