"""Genres as other programs and people have left them: in odd encodings, as codes, joined, in a second place."""

import struct
from pathlib import Path

import mutagen
import pytest
from mutagen.id3 import ID3, TCON, TIT2
from mutagen.mp4 import MP4FreeForm

from store.errors import BadInput
from store.tags.id3_files import read_id3_tags
from store.tags.write import read_genres, read_tags, write_genres
from tests.support.audio_formats import CODECS, encode

CYRILLIC = "Рок".encode("cp1251")  # as if it were Latin-1


def music(folder: Path, suffix: str) -> Path:
    path = folder / f"song{suffix}"
    encode(path, *CODECS[suffix], seconds=0.2)
    return path


@pytest.fixture
def mp3(tmp_path) -> Path:
    return music(tmp_path, ".mp3")


def frame(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">IH", len(content), 0) + content


def block(*frames: bytes) -> bytes:
    body = b"".join(frames) + bytes(40)
    return b"ID3\3\0\0" + bytes([0, 0, len(body) >> 7, len(body) & 0x7F]) + body


def put_before(path: Path, *blocks: bytes) -> None:
    path.write_bytes(b"".join(blocks) + path.read_bytes())


def test_bytes_of_an_unknown_code_page_stay_when_a_genre_is_added(mp3):
    put_before(mp3, block(frame(b"TCON", b"\0" + CYRILLIC)))
    (old,) = read_genres(mp3)
    write_genres(mp3, [old, "Rock"])
    assert frame(b"TCON", b"\0" + CYRILLIC + b"\0Rock\0") in mp3.read_bytes()
    assert read_genres(mp3) == [old, "Rock"]


def test_what_such_bytes_cannot_stand_beside_is_refused(mp3):
    put_before(mp3, block(frame(b"TCON", b"\0" + CYRILLIC)))
    before = mp3.read_bytes()
    with pytest.raises(
        BadInput, match="is in a single-byte encoding, which the new genres cannot be written in"
    ):
        write_genres(mp3, [*read_genres(mp3), "ロック"])
    assert mp3.read_bytes() == before
    write_genres(mp3, ["ロック"])
    assert read_genres(mp3) == ["ロック"]


@pytest.mark.parametrize(
    ("text", "genres"), [(b"(17)", ["Rock"]), (b"17", ["Rock"]), (b"(17)(18)", ["Rock", "Techno"])]
)
def test_a_code_that_is_kept_stays_a_code(mp3, text, genres):
    put_before(mp3, block(frame(b"TCON", b"\0" + text)))
    assert read_genres(mp3) == genres
    write_genres(mp3, [*genres, "Ska"])
    assert frame(b"TCON", b"\0" + text + b"\0Ska\0") in mp3.read_bytes()
    write_genres(mp3, ["Ska", *genres])
    assert frame(b"TCON", b"\0Ska\0" + text + b"\0") in mp3.read_bytes()


@pytest.mark.parametrize("text", [b"(255)", b"255"])
def test_the_code_255_is_no_genre(mp3, text):
    put_before(mp3, block(frame(b"TCON", b"\0" + text)))
    assert read_genres(mp3) == []


def test_a_second_id3_tag_is_seen_and_agrees_after(mp3):
    second = block(frame(b"TIT2", b"\0Second"), frame(b"TCON", b"\0Jazz"))
    put_before(mp3, block(frame(b"TIT2", b"\0First"), frame(b"TCON", b"\0Blues")), second)
    assert read_genres(mp3) == ["Blues", "Jazz"]
    write_genres(mp3, ["Ska"])
    data = mp3.read_bytes()
    assert data.count(frame(b"TCON", b"\0Ska\0")) == 2
    assert frame(b"TIT2", b"\0Second") in data
    assert read_genres(mp3) == ["Ska"]
    assert str(read_id3_tags(mp3)[0]["TIT2"]) == "First"


def test_id3_before_flac_is_seen_and_agrees_after(tmp_path):
    flac = music(tmp_path, ".flac")
    put_before(flac, block(frame(b"TIT2", b"\0Title"), frame(b"TCON", b"\0Blues")))
    assert read_genres(flac) == ["Blues"]
    write_genres(flac, ["Blues", "Ska"])
    assert read_genres(flac) == ["Blues", "Ska"]
    assert mutagen.File(flac)["genre"] == ["Blues", "Ska"]
    before = ID3(flac)
    assert before["TCON"].text == ["Blues", "Ska"]
    assert before["TIT2"].text == ["Title"]


def test_a_freeform_genre_of_mp4_is_seen_and_agrees_after(tmp_path):
    song = music(tmp_path, ".m4a")
    audio = mutagen.File(song)
    audio["----:com.apple.iTunes:GENRE"] = [MP4FreeForm(b"Blues")]
    audio.save()
    assert read_genres(song) == ["Blues"]
    write_genres(song, ["Blues", "Ska"])
    audio = mutagen.File(song)
    assert [bytes(value) for value in audio["----:com.apple.iTunes:GENRE"]] == [b"Blues", b"Ska"]
    assert audio["\xa9gen"] == ["Blues", "Ska"]
    assert not any("GENRE" in it for it in read_tags(song).other_fields)


@pytest.mark.parametrize(("key", "value"), [("GENRE", "Blues"), ("WM/GenreID", "(0)"), ("Genre", "Blues")])
def test_other_genre_fields_of_wma_are_seen_and_agree_after(tmp_path, key, value):
    song = music(tmp_path, ".wma")
    audio = mutagen.File(song)
    audio[key] = [value]
    audio.save()
    assert read_genres(song) == ["Blues"]
    for genres in (["Ska", "Mine"], ["Mine"]):
        write_genres(song, genres)
        assert read_genres(song) == genres
        assert [str(it) for it in mutagen.File(song)["WM/Genre"]] == genres


def test_a_joined_text_is_one_value_and_stays(mp3):
    tag = ID3()
    tag.add(TIT2(encoding=3, text="x"))
    tag.add(TCON(encoding=3, text="Rock; Pop"))
    tag.save(mp3)
    write_genres(mp3, ["Rock; Pop", "Ska"])
    assert ID3(mp3)["TCON"].text == ["Rock; Pop", "Ska"]


def test_spaces_around_a_value_that_is_kept_stay(tmp_path):
    flac = music(tmp_path, ".flac")
    audio = mutagen.File(flac)
    audio["genre"] = [" Blues "]
    audio.save()
    write_genres(flac, ["Blues", "Ska"])
    assert mutagen.File(flac)["genre"] == [" Blues ", "Ska"]


def test_an_info_genre_in_an_unknown_encoding_is_left_alone(tmp_path):
    wav = music(tmp_path, ".wav")
    data = wav.read_bytes()
    entry = b"IGNR" + struct.pack("<I", 4) + CYRILLIC + b"\0"
    chunk = b"LIST" + struct.pack("<I", 4 + len(entry)) + b"INFO" + entry
    total = struct.pack("<I", len(data) - 8 + len(chunk))
    wav.write_bytes(data[:4] + total + data[8:] + chunk)
    (old,) = read_genres(wav)
    with pytest.raises(BadInput, match="in an unknown encoding"):
        write_genres(wav, [old, "Rock"])
    write_genres(wav, ["Rock"])
    assert read_genres(wav) == ["Rock"]
