"""The tags of a file, for a person to read: each thing once, under its name, in one short line."""

import base64
import hashlib
import shutil
import struct
from pathlib import Path

import pytest
from mutagen.apev2 import APEv2, APEValue
from mutagen.asf import ASF
from mutagen.flac import FLAC, Picture
from mutagen.id3 import CHAP, COMM, CTOC, ID3, PRIV, SYLT, TIPL, TXXX, UFID, USLT
from mutagen.mp4 import MP4
from mutagen.oggvorbis import OggVorbis

from store.errors import BadInput
from store.tags.all_fields import read_fields
from store.tags.write import copy_with_genres
from tests.support.tagged_files import KINDS, PICTURE

HOSTILE = Path("../shared/data/hostile")
GENRES = ["Old-Time / Historic", "Électronique"]
NOTES = {"GENRE_CONFIDENCE": "0.87", "GENRE_MODEL": "v1"}
SUM = f"135 bytes ({hashlib.sha256(PICTURE).hexdigest()[:8]})"
ENCODER = "Lavf"
OTHERS = {  # beside genre, artist, title and notes; of the encoder's name the start
    "bare.mp3": {},
    **{
        kind: {"APIC": [f"image/png, {SUM}"]} for kind in ("v23.mp3", "v24.mp3", "music.aac", "music.aiff")
    },
    "v22.mp3": {"APIC": [f"PNG, {SUM}"]},
    "v1.mp3": {"COMM:ID3v1 Comment:eng": ["a comment"], "TDRC": ["1999"]},
    "ape.mp3": {
        "APEv2:Artist": ["Ann"], "APEv2:genre": ["Old-Time / Historic; Électronique"], "APEv2:Title": ["Before"],
    },
    "music.flac": {"encoder": [ENCODER], "picture": [f"a picture, {SUM}"]},
    "music.opus": {"encoder": [ENCODER], "picture": [f"{base64.b64encode(PICTURE).decode()}"]},
    "music.ogg": {"encoder": [ENCODER], "picture": [f"{base64.b64encode(PICTURE).decode()}"]},
    "music.m4a": {"©too": [ENCODER], "covr": [SUM]},
    "music.wma": {"WM/EncodingSettings": [ENCODER], "WM/Picture": [SUM]},
    "music.wav": {
        "APIC": [f"image/png, {SUM}"], "INFO:ISFT": [ENCODER], "INFO:IGNR": ["Old-Time / Historic; Électronique"],
    },
    "music.wv": {"encoder": [ENCODER], "picture": [f"{base64.b64encode(PICTURE).decode()}"]},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_fields_of_every_format_have_plain_names(kind, originals, tmp_path):
    copy_with_genres(originals / kind, tmp_path / kind, GENRES, custom_tags=NOTES)
    fields = read_fields(tmp_path / kind)
    named = {"genre": GENRES, **{name: [text] for name, text in NOTES.items()}}
    named |= {"title": ["Before"]} if kind not in ("bare.mp3", "ape.mp3") else {}
    named |= {"artist": ["Ann"]} if kind not in ("bare.mp3", "ape.mp3", "v22.mp3") else {}
    found = {
        name: [ENCODER if text.startswith(ENCODER) else text for text in texts]
        for name, texts in fields.items()
    }
    assert found == named | OTHERS[kind]
    assert next(iter(fields)) == "genre"


def test_frames_about_something_say_of_what(originals, tmp_path):
    track = Path(shutil.copy(originals / "v24.mp3", tmp_path))
    tag = ID3(track)
    for frame in (
        TXXX(encoding=3, desc="MOOD", text=["blue", "grey"]),
        TXXX(encoding=3, desc="GENRE_OF_MINE", text="kept"),
        COMM(encoding=3, lang="eng", desc="", text="has GENRE_MODEL in it"),
        USLT(encoding=3, lang="deu", desc="", text="la\nla " * 100),
        SYLT(encoding=0, lang="eng", format=2, type=1, desc="", text=[("la", 0), ("le", 500)]),
        UFID(owner="http://musicbrainz.org", data=b"abc-1"),
        PRIV(owner="PeakValue", data=b"\xff\0\0"),
        CTOC(element_id="toc", flags=3, child_element_ids=["a"], sub_frames=[]),
        CHAP(element_id="a", start_time=0, end_time=1500, sub_frames=[]),
        TIPL(encoding=3, people=[["producer", "Bob"]]),
    ):
        tag.add(frame)
    tag.save(track)
    fields = read_fields(track)
    del fields["title"], fields["artist"], fields["APIC"]
    assert fields == {
        "TXXX:MOOD": ["blue", "grey"],
        "TXXX:GENRE_OF_MINE": ["kept"],
        "COMM:eng": ["has GENRE_MODEL in it"],
        "USLT:deu": [("la la " * 100)[:200] + "… (599 characters)"],
        "SYLT:eng": ["la le"],
        "UFID:http://musicbrainz.org": ["abc-1"],
        "PRIV:PeakValue": [f"3 bytes ({hashlib.sha256(bytes([255, 0, 0])).hexdigest()[:8]})"],
        "CTOC:toc": ["a"],
        "CHAP:a": ["0.000 s to 1.500 s"],
        "TIPL": ["producer, Bob"],
    }


def test_pictures_in_comments_are_described_briefly(originals, tmp_path):
    track = Path(shutil.copy(originals / "music.ogg", tmp_path))
    picture = Picture()
    picture.data, picture.mime = PICTURE * 9, "image/png"
    audio = OggVorbis(track)
    audio["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()] * 2
    audio["coverart"] = [base64.b64encode(PICTURE * 9).decode()]
    audio["lyrics"] = ["a" * 201]
    audio.save()
    fields = read_fields(track)
    sum_of = f"1,215 bytes ({hashlib.sha256(PICTURE * 9).hexdigest()[:8]})"
    assert fields["metadata_block_picture"] == [f"image/png, {sum_of}"] * 2
    assert fields["coverart"] == [sum_of]
    assert fields["lyrics"] == ["a" * 200 + "… (201 characters)"]


def test_values_of_every_type_are_spelt(originals, tmp_path):
    for kind in ("music.m4a", "music.wma", "music.wv", "music.flac"):
        shutil.copy(originals / kind, tmp_path)
    mp4 = MP4(tmp_path / "music.m4a")
    mp4["trkn"], mp4["cpil"], mp4["tmpo"] = [(3, 9)], True, [120]
    mp4["----:com.apple.iTunes:MOOD"], mp4["----:org.example:x"] = [b"bl\xc3\xa4"], [b"\xff\0"]
    mp4.save()
    fields = read_fields(mp4.filename)
    assert [fields[name] for name in ("trkn", "cpil", "tmpo", "MOOD")] == [
        ["3, 9"],
        ["yes"],
        ["120"],
        ["blä"],
    ]
    assert fields["org.example:x"][0].startswith("2 bytes (")
    asf = ASF(tmp_path / "music.wma")
    asf["odd"], asf["Copyright"] = [True, 7, "x"], [""]
    asf.save()
    assert read_fields(asf.filename)["odd"] == ["yes", "7", "x"]
    assert "Copyright" not in read_fields(asf.filename)
    ape = APEv2(tmp_path / "music.wv")
    ape["Related"], ape["Cover Art (Front)"] = APEValue("http://x", 2), APEValue(b"a.png\0" + PICTURE, 1)
    ape["Mood"] = ["blue", "grey"]
    ape.save(tmp_path / "music.wv")
    fields = read_fields(tmp_path / "music.wv")
    assert [fields["Related"], fields["Mood"]] == [["http://x"], ["blue; grey"]]
    assert fields["Cover Art (Front)"][0].startswith("141 bytes (")
    flac = FLAC(tmp_path / "music.flac")
    flac["ARTIST"] = ["Ann", "Bob"]
    flac.save()
    assert read_fields(flac.filename)["artist"] == ["Ann; Bob"]
    assert "ARTIST" not in read_fields(flac.filename)


def test_an_unknown_frame_is_listed(originals, tmp_path):
    stranger = b"XYZZ\0\0\0\3\0\0\0\xffx"
    track = tmp_path / "song.mp3"
    head = b"ID3\4\0\0\0\0\0" + struct.pack("B", len(stranger))
    track.write_bytes(head + stranger + (originals / "bare.mp3").read_bytes())
    assert list(read_fields(track)) == ["unknown frame"]


def test_what_is_no_audio_is_refused_by_name(tmp_path):
    (tmp_path / "song.mp3").write_bytes(b"<html>")
    with pytest.raises(BadInput, match=r"song\.mp3: "):
        read_fields(tmp_path / "song.mp3")


def test_every_hostile_file_is_listed_in_short_lines_or_refused(need):
    need(HOSTILE.is_dir(), "../shared/data/hostile is not here")
    described = 0
    for path in sorted(path for path in HOSTILE.rglob("*") if path.is_file()):
        try:
            fields = read_fields(path)
        except BadInput:
            continue
        described += 1
        for name, texts in fields.items():
            assert name
            assert texts
            for text in texts:
                assert text
                assert "\n" not in text
                assert "b'" not in text
                if name not in ("genre", "artist", "album", "title"):
                    assert len(text) < 230
    assert described > 150
