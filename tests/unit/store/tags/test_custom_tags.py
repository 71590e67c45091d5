"""Our notes beside the genres: set, replaced, taken away, kept, and nothing else touched."""

import shutil
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen.flac import FLAC
from mutagen.id3 import ID3
from mutagen.mp4 import MP4

from store.errors import BadInput
from store.tags.schema import CUSTOM_TAG_NAMES, FileTags
from store.tags.write import checked_edit, read_tags, write_genres, write_tagged_copy
from tests.support.audio_hash import audio_hash
from tests.support.tagged_files import id3v1

NOTES = {"GENRE_CONFIDENCE": "0.87", "GENRE_MODEL": "20261127-élan"}
GENRES = ["Old-Time / Historic", "Électronique"]


def edit(track: Path, genres, **custom_tags) -> FileTags:
    """Edit a file in its place; give what its tags say then."""
    draft = track.with_name("draft")
    write_tagged_copy(track, draft, checked_edit(genres, custom_tags))
    draft.replace(track)
    return read_tags(track)


# All formats


def test_notes_come_back_as_written_and_no_other_field_moves(track):
    before = read_tags(track)
    audio = audio_hash(track)
    after = edit(track, GENRES, **NOTES)
    assert (after.genres, after.custom_tags) == (GENRES, NOTES)
    assert (after.credits, after.other_fields) == (before.credits, before.other_fields)
    assert audio_hash(track) == audio


def test_a_note_is_replaced_or_taken_away_alone(track):
    edit(track, GENRES, **NOTES)
    replaced = edit(track, None, GENRE_CONFIDENCE="0.5")
    assert replaced.custom_tags == {**NOTES, "GENRE_CONFIDENCE": "0.5"}
    left = edit(track, None, GENRE_CONFIDENCE=None)
    assert (left.genres, left.custom_tags) == (GENRES, {"GENRE_MODEL": NOTES["GENRE_MODEL"]})
    assert edit(track, None, GENRE_MODEL=None).custom_tags == {}
    assert b"GENRE_" not in track.read_bytes()


def test_an_edit_of_the_genres_alone_keeps_notes(track):
    edit(track, GENRES, **NOTES)
    write_genres(track, ["Rock"])
    assert read_tags(track).custom_tags == NOTES
    write_genres(track, [])
    assert (read_tags(track).genres, read_tags(track).custom_tags) == ([], NOTES)


@pytest.mark.parametrize("genres", [["Old-Time / Historic"], ["Old-Time / Historic", "Folk", "17"]], ids=len)
def test_notes_alone_leave_genres_as_they_are(track, genres):
    write_genres(track, genres)
    before = heads_of(track, "Old-Time / Historic")
    assert before
    assert edit(track, None, **NOTES).genres == genres
    assert heads_of(track, "Old-Time / Historic") == before


def heads_of(track: Path, text: str) -> list[bytes]:
    """Cut out what lies before each text, lengths too, in the encodings that tags have."""
    data = track.read_bytes()
    found = []
    for code in ("latin-1", "utf-16-le"):
        at = data.find(text.encode(code))
        while at >= 0:
            found.append(data[at - 10 : at])
            at = data.find(text.encode(code), at + 1)
    return found


def test_twice_is_once(track):
    edit(track, GENRES, **NOTES)
    once = track.read_bytes()
    edit(track, GENRES, **NOTES)
    assert track.read_bytes() == once
    edit(track, None, **NOTES)
    assert track.read_bytes() == once


def test_taking_away_notes_that_are_not_there_changes_nothing(track):
    write_genres(track, GENRES)  # mutagen has laid out the tag
    before = track.read_bytes()
    edit(track, None, **dict.fromkeys(CUSTOM_TAG_NAMES))
    assert track.read_bytes() == before


note_edits = st.dictionaries(
    st.sampled_from(CUSTOM_TAG_NAMES), st.none() | st.sampled_from(["0.5", "v 1", "日本", "=/;"])
)
genre_edits = st.none() | st.lists(st.sampled_from(["Rock", "17", "Älter", "a; b"]), unique=True, max_size=3)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(genre_edits, note_edits), max_size=5))
def test_any_row_of_edits_ends_in_what_they_say(track, originals, steps):
    shutil.copy(originals / track.name, track)
    start = read_tags(track)
    genres, custom_tags = start.genres, {}
    for new_genres, new_notes in steps:
        genres = genres if new_genres is None else new_genres
        custom_tags = {name: text for name, text in {**custom_tags, **new_notes}.items() if text is not None}
        after = edit(track, new_genres, **new_notes)
        assert (after.genres, after.custom_tags, after.other_fields) == (
            genres,
            custom_tags,
            start.other_fields,
        )


# ID3: tags as others leave them


def frame(name: bytes, content: bytes, *, version: int = 4, flags: bytes = b"\0\0") -> bytes:
    size = len(content)
    spread = [size >> 21 & 0x7F, size >> 14 & 0x7F, size >> 7 & 0x7F, size & 0x7F]
    return name + (bytes(spread) if version == 4 else size.to_bytes(4, "big")) + flags + content


def tag(body: bytes, *, version: int = 4, flags: int = 0) -> bytes:
    size = len(body)
    return b"ID3" + bytes([version, 0, flags, 0, 0, size >> 7, size & 0x7F]) + body


def unsynchronised(data: bytes) -> bytes:
    """Part each 0xFF from what a decoder of audio could take for the rest of its mark."""
    made = bytearray()
    for at, byte in enumerate(data):
        made.append(byte)
        if byte == 0xFF and (at + 1 == len(data) or data[at + 1] == 0 or data[at + 1] >= 0xE0):
            made.append(0)
    return bytes(made)


TITLE = frame(b"TIT2", b"\0Before")
GENRE = frame(b"TCON", b"\0(17)Rock")  # as old programs wrote it
OUR_NOTE = b"\0GENRE_MODEL\0old"
MARKED = b"\1\xff\xfeG\0\xff\xe0"  # UTF-16, and bytes that unsynchronisation parts
WIDE_NOTE = b"\1" + "GENRE_MODEL".encode("utf-16") + b"\0\0" + "\xe9lan".encode("utf-16")
ODD_TAGS = {
    "plain": tag(TITLE + GENRE + frame(b"TXXX", OUR_NOTE)),
    "2.3": tag(
        frame(b"TIT2", b"\0Before", version=3) + GENRE + frame(b"TXXX", OUR_NOTE, version=3), version=3
    ),
    "2.2": tag(
        b"TT2\0\0\x07\0BeforeTCO\0\0\x09\0(17)RockTXX\0\0\x10" + OUR_NOTE, version=2
    ),
    "unsynchronised 2.3": tag(
        unsynchronised(frame(b"TIT2", b"\0Before", version=3) + GENRE + frame(b"TALB", MARKED, version=3)
        + frame(b"TXXX", WIDE_NOTE, version=3)), version=3, flags=0x80,
    ),
    "unsynchronised 2.4": tag(
        TITLE + GENRE + frame(b"TALB", unsynchronised(MARKED), flags=b"\0\x02")
        + frame(b"TXXX", unsynchronised(WIDE_NOTE), flags=b"\0\x02"), flags=0x80,
    ),
    "length before the note": tag(TITLE + GENRE + frame(b"TXXX", b"\0\0\0\x10" + OUR_NOTE, flags=b"\0\x01")),
    "compressed note": tag(
        TITLE + GENRE + frame(b"TXXX", b"\0\0\0\x10" + zlib.compress(OUR_NOTE), flags=b"\0\x09")
    ),
    "compressed note of 2.3": tag(
        frame(b"TIT2", b"\0Before", version=3) + GENRE
        + frame(b"TXXX", b"\0\0\0\x10" + zlib.compress(OUR_NOTE), version=3, flags=b"\0\x80"), version=3,
    ),
    "extended header": tag(b"\0\0\0\x06\x01\0" + TITLE + GENRE + frame(b"TXXX", OUR_NOTE), flags=0x40),
    "wide note": tag(TITLE + GENRE + frame(b"TXXX", WIDE_NOTE)),
    "note twice": tag(TITLE + GENRE + frame(b"TXXX", OUR_NOTE) * 2),
    "note of big ends": tag(
        TITLE + GENRE + frame(b"TXXX", b"\2" + "GENRE_MODEL\0old".encode("utf-16-be"))
    ),
}  # fmt: skip


@pytest.fixture(params=ODD_TAGS)
def odd(request, originals, tmp_path) -> Path:
    """An MP3 with a title, a genre and a note as another program might write them."""
    track = tmp_path / "song.mp3"
    track.write_bytes(ODD_TAGS[request.param] + (originals / "bare.mp3").read_bytes())
    return track


def test_notes_in_odd_tags_are_replaced_and_taken_away(odd):
    before = read_tags(odd)
    assert before.credits.title == "Before"
    assert (before.genres, list(before.custom_tags)) == (["Rock"], ["GENRE_MODEL"])
    after = edit(odd, None, GENRE_MODEL="new")
    assert (after.genres, after.custom_tags, after.other_fields) == (
        ["Rock"],
        {"GENRE_MODEL": "new"},
        before.other_fields,
    )
    assert ID3(odd, translate=False)["TCON"].text == ["(17)Rock"]
    assert [str(it) for it in ID3(odd).getall("TXXX")] == ["new"]
    assert edit(odd, None, GENRE_MODEL=None).custom_tags == {}


def test_notes_in_odd_tags_are_kept(odd):
    before = read_tags(odd)
    after = edit(odd, GENRES)
    assert (after.genres, after.custom_tags, after.other_fields) == (
        GENRES,
        before.custom_tags,
        before.other_fields,
    )


@pytest.mark.parametrize("kind", [name for name in ODD_TAGS if name[0] in "2ue"])
@pytest.mark.parametrize("fault", ["double", "damaged"])
def test_odd_tags_whose_frames_would_get_lost_are_refused(kind, fault, originals, tmp_path):
    """Mutagen drops frames that it cannot read, and makes one of two that are alike."""
    block = ODD_TAGS[kind]
    version, flags = block[3], block[5]
    name, content = (b"COMM", b"\0engd\0x") if fault == "double" else (b"RVRB", b"\1")
    if version == 2:
        content = b"\0engd\0x" if fault == "double" else b"\1"
        more = (
            name.replace(b"COMM", b"COM").replace(b"RVRB", b"REV") + len(content).to_bytes(3, "big") + content
        )
    else:
        more = frame(name, content, version=version)
    track = tmp_path / "song.mp3"
    body = block[10:] + more * (2 if fault == "double" else 1)
    track.write_bytes(tag(body, version=version, flags=flags) + (originals / "bare.mp3").read_bytes())
    before = track.read_bytes()
    if kind == "2.3":
        edit(track, GENRES)  # plain: nothing goes through mutagen
        assert track.read_bytes().count(more) == body.count(more)
        return
    with pytest.raises(BadInput, match="damaged or double frames"):
        edit(track, GENRES)
    assert track.read_bytes() == before


def test_fields_of_others_that_are_called_alike_stay(originals, tmp_path):
    strangers = [
        b"\0genre_model\0a",
        b"\0GENRE_MODEL2\0b",
        b"\0\0GENRE_MODEL",
        b"\7GENRE_MODEL\0c",
        b"\0",
        b"",
    ]
    body = b"".join(frame(b"TXXX", content) for content in strangers)
    track = tmp_path / "song.mp3"
    track.write_bytes(tag(body) + (originals / "bare.mp3").read_bytes())
    assert read_tags(track).custom_tags == {}
    edit(track, None, **NOTES)
    assert track.read_bytes()[10:].startswith(body)
    edit(track, None, **dict.fromkeys(CUSTOM_TAG_NAMES))
    assert track.read_bytes()[10:].startswith(body + b"\0" * 50)


def test_notes_alone_leave_id3v1_and_apev2_as_they_are(originals, tmp_path):
    track = tmp_path / "song.mp3"
    v1 = id3v1(b"Before", b"a comment", 17)
    track.write_bytes((originals / "ape.mp3").read_bytes() + v1)
    trailing = track.read_bytes()[len((originals / "bare.mp3").read_bytes()) :]
    after = edit(track, None, **NOTES)
    assert (after.genres, after.custom_tags) == (["Rock", "Noise"], NOTES)
    assert track.read_bytes().endswith(trailing)
    assert ID3(track)["TCON"].text == ["Rock"]  # some readers look no further than the new tag
    taken = edit(track, None, **dict.fromkeys(NOTES))
    assert (taken.genres, taken.custom_tags) == (["Rock", "Noise"], {})
    assert track.read_bytes().endswith(trailing)


def test_taking_away_notes_makes_no_tag(originals, tmp_path):
    for kind in ("bare.mp3", "v1.mp3", "ape.mp3"):
        track = Path(shutil.copy(originals / kind, tmp_path))
        edit(track, None, **dict.fromkeys(NOTES))
        assert track.read_bytes() == (originals / kind).read_bytes()


# Chunks


def test_notes_alone_leave_the_info_chunk_as_it_is(originals, tmp_path):
    track = tmp_path / "song.wav"
    entries = (
        b"IGNR" + struct.pack("<I", 14) + b"Noise ; Drone\0" + b"ISFT" + struct.pack("<I", 3) + b"me\0\0"
    )
    info = b"LIST" + struct.pack("<I", 4 + len(entries)) + b"INFO" + entries
    data = (originals / "music.wav").read_bytes()
    track.write_bytes(b"RIFF" + struct.pack("<I", len(data) + len(info) - 8) + data[8:] + info)
    after = edit(track, None, **NOTES)
    assert (after.genres, after.custom_tags) == (["Noise", "Drone"], NOTES)
    assert info in track.read_bytes()
    taken = edit(track, None, **dict.fromkeys(NOTES))
    assert (taken.genres, taken.custom_tags) == (["Noise", "Drone"], {})


# Other formats: what is not a note is none


def test_a_vorbis_note_of_several_values_or_other_case_is_one_note(originals, tmp_path):
    track = Path(shutil.copy(originals / "music.flac", tmp_path))
    audio = FLAC(track)
    audio["genre_model"] = ["a", "b"]
    audio.save()
    assert read_tags(track).custom_tags == {"GENRE_MODEL": "a"}
    write_genres(track, GENRES)
    assert FLAC(track)["GENRE_MODEL"] == ["a", "b"]
    assert edit(track, None, GENRE_MODEL="c").custom_tags == {"GENRE_MODEL": "c"}
    assert FLAC(track)["GENRE_MODEL"] == ["c"]


def test_mp4_notes_of_another_program_stay(originals, tmp_path):
    track = Path(shutil.copy(originals / "music.m4a", tmp_path))
    audio = MP4(track)
    audio["----:org.example:GENRE_MODEL"] = [b"theirs"]
    audio.save()
    assert edit(track, None, **NOTES).custom_tags == NOTES
    assert edit(track, None, **dict.fromkeys(NOTES)).custom_tags == {}
    assert MP4(track)["----:org.example:GENRE_MODEL"] == [b"theirs"]
