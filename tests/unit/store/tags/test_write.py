import base64
import errno
import io
import json
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen.apev2 import APEv2
from mutagen.flac import FLAC
from mutagen.id3 import COMM, ID3, TCON
from mutagen.mp4 import MP4
from mutagen.ogg import OggPage

from store.errors import BadInput
from store.tags import write as tags
from store.tags.write import Credits, copy_with_genres, read_credits, read_genres, write_genres
from tests.support.audio_formats import encode
from tests.support.audio_hash import audio_hash
from tests.support.tagged_files import PICTURE, id3v1

HOSTILE = Path("../shared/data/hostile")
GENRES = ["Old-Time / Historic", "Électronique", "17", "日本の音楽"]


@pytest.fixture
def mp3(originals, tmp_path) -> Path:
    return Path(shutil.copy(originals / "v24.mp3", tmp_path / "song.mp3"))


@pytest.fixture
def wav(originals, tmp_path) -> Path:
    return Path(shutil.copy(originals / "music.wav", tmp_path / "song.wav"))


def samples(path: Path) -> np.ndarray:
    with av.open(str(path)) as source:
        return np.concatenate([frame.to_ndarray() for frame in source.decode(audio=0)], axis=1)


# What is asked for is what is read, and nothing else has changed


@pytest.mark.parametrize("genres", [["Rock"], GENRES, ["(17)", "((a))", "RX", "255"], []], ids=len)
def test_genres_come_back_as_written(track, genres):
    write_genres(track, genres)
    assert read_genres(track) == genres


def test_new_genres_replace_the_old(track):
    write_genres(track, GENRES)
    write_genres(track, ["Folk"])
    assert read_genres(track) == ["Folk"]
    write_genres(track, [])
    assert read_genres(track) == []


def test_audio_and_other_tags_stay(track, originals):
    before = originals / track.name
    write_genres(track, GENRES)
    assert audio_hash(track) == audio_hash(before)
    np.testing.assert_array_equal(samples(track), samples(before))
    assert read_credits(track) == read_credits(before)
    for picture in (PICTURE, base64.b64encode(PICTURE)):
        assert track.read_bytes().count(picture) == before.read_bytes().count(picture)


def test_writing_twice_is_writing_once(track):
    write_genres(track, GENRES)
    once = track.read_bytes()
    write_genres(track, GENRES)
    assert track.read_bytes() == once


def test_mutagen_shows_several_genres(originals, tmp_path):
    for kind, key in (
        ("music.flac", "genre"),
        ("music.opus", "genre"),
        ("music.m4a", "\xa9gen"),
        ("music.wma", "WM/Genre"),
    ):
        track = Path(shutil.copy(originals / kind, tmp_path))
        write_genres(track, ["Old-Time / Historic", "Folk"])
        assert [str(text) for text in mutagen.File(track)[key]] == ["Old-Time / Historic", "Folk"]


def ffprobe(path: Path) -> dict[str, str]:
    asked = ["ffprobe", "-v", "error", "-show_entries", "format_tags:stream_tags", "-of", "json", str(path)]
    shown = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
    texts = {**shown["format"].get("tags", {}), **shown["streams"][0].get("tags", {})}
    return {key.lower(): text for key, text in texts.items()}


def test_ffprobe_shows_the_genre_and_what_it_showed_before(track, need):
    need(shutil.which("ffprobe"), "ffprobe is not installed")
    before = ffprobe(track)
    write_genres(track, ["Old-Time / Historic"])
    after = ffprobe(track)
    assert "Old-Time / Historic" in (after.get("genre"), after.get("wm/genre"))
    assert [after.get(key) for key in ("title", "artist")] == [before.get(key) for key in ("title", "artist")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    genres=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), max_size=3, unique=True)
)
@pytest.mark.parametrize("kind", ["v23.mp3", "v24.mp3", "music.flac"])
def test_any_genre_is_written_or_refused(kind, genres, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path / kind))
    before = track.read_bytes()
    if all(name.isprintable() and name.strip() == name for name in genres):
        write_genres(track, genres)
        assert read_genres(track) == genres
    else:
        with pytest.raises(BadInput, match="is no genre"):
            write_genres(track, genres)
        assert track.read_bytes() == before


# ID3


@pytest.mark.parametrize(
    ("kind", "version"), [("v22.mp3", 3), ("v23.mp3", 3), ("v24.mp3", 4), ("bare.mp3", 4)]
)
def test_an_id3_tag_keeps_its_version_and_never_joins_genres(kind, version, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    write_genres(track, ["Old-Time / Historic", "Folk"])
    assert ID3(track).version == (2, version, 0)
    assert b"Old-Time / Historic\0Folk" in track.read_bytes()


def test_damaged_and_unknown_frames_stay_byte_for_byte(mp3):
    junk = b"POPM\0\0\0\x03\0\0abc" + b"XZZZ\0\0\0\x03\0\0abc"
    data = mp3.read_bytes()
    assert data[:4] == b"ID3\x04"
    tag_bytes = 10 + (data[8] << 7 | data[9])
    frames = data[10:tag_bytes].rstrip(b"\0") + b"\0"
    size = len(junk) + len(frames)
    mp3.write_bytes(data[:8] + bytes([size >> 7, size & 0x7F]) + junk + frames + data[tag_bytes:])
    write_genres(mp3, GENRES)
    assert mp3.read_bytes()[10:].startswith(junk + frames.rstrip(b"\0")[:40])


@pytest.mark.parametrize("kind", ["bare.mp3", "music.wav"])
def test_a_tag_of_nothing_but_unknown_frames_is_edited(kind, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    unknown = b"XYZZ\0\0\0\x03\0\0\0\xffx"
    block = b"ID3\4\0\0\0\0\0" + bytes([len(unknown)]) + unknown
    if kind == "music.wav":
        kept = [chunk for chunk in chunks_of(track) if chunk[0] in (b"fmt ", b"data")]
        track.write_bytes(riff(*kept, (b"id3 ", block)))
    else:
        track.write_bytes(block + track.read_bytes())
    write_genres(track, ["Rock"])
    assert unknown in track.read_bytes()
    write_genres(track, [])
    assert repr(unknown) in tags.read_tags(track).other_fields


@pytest.mark.parametrize("code", ["17", "(17)", "(17)Rock"])
def test_old_genre_codes_are_spelt_out(mp3, code):
    tag = ID3(mp3)
    tag.add(TCON(encoding=0, text=code))
    tag.save(mp3)
    assert read_genres(mp3) == ["Rock"]


def test_id3v1_is_kept_in_step_and_never_made(originals, tmp_path):
    track = Path(shutil.copy(originals / "v1.mp3", tmp_path))
    assert read_genres(track) == []
    write_genres(track, ["Rock", "Folk"])
    assert track.read_bytes()[-128:] == id3v1(b"Before", b"a comment", 17)
    write_genres(track, ["Old-Time / Historic"])
    assert track.read_bytes()[-128:] == id3v1(b"Before", b"a comment", 255)
    untagged = tmp_path / "v1.mp3"
    shutil.copy(originals / "v1.mp3", untagged)
    write_genres(untagged, [])
    assert untagged.read_bytes() == (originals / "v1.mp3").read_bytes()
    bare = Path(shutil.copy(originals / "bare.mp3", tmp_path))
    write_genres(bare, ["Rock"])
    assert bare.read_bytes()[-128:-125] != b"TAG"


def test_the_genre_of_an_id3v1_tag_counts(originals, tmp_path):
    track = tmp_path / "old.mp3"
    track.write_bytes((originals / "bare.mp3").read_bytes() + id3v1(b"x", b"", 17))
    assert read_genres(track) == ["Rock"]
    assert read_credits(track) == Credits(artist="Ann", album=None, title="x")


def test_an_apev2_tag_behind_an_mp3_is_kept_in_step(originals, tmp_path):
    track = tmp_path / "song.mp3"
    track.write_bytes((originals / "ape.mp3").read_bytes() + id3v1(b"Before", b"", 5))
    assert read_genres(track) == ["Funk", "Noise"]
    write_genres(track, ["Rock", "Folk"])
    assert APEv2(track)["genre"] == "Rock\0Folk"
    assert APEv2(track)["title"] == "Before"
    assert track.read_bytes()[-128:] == id3v1(b"Before", b"", 17)


def test_an_id3v1_tag_behind_an_apev2_tag_stays(originals, tmp_path):
    track = tmp_path / "song.wv"
    track.write_bytes((originals / "music.wv").read_bytes() + id3v1(b"Before", b"a comment", 5))
    write_genres(track, ["Rock"])
    assert track.read_bytes()[-128:] == id3v1(b"Before", b"a comment", 17)


def test_an_id3_tag_that_is_cut_off_is_said_so(mp3):
    mp3.write_bytes(mp3.read_bytes()[:100])
    with pytest.raises(BadInput, match=r"its ID3 tag claims .* bytes, but the file has 100"):
        read_genres(mp3)


# WAV: ID3 for all, INFO for Windows


def chunks_of(path: Path) -> list[tuple[bytes, bytes]]:
    """Take a RIFF file apart by hand."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF"
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    chunks, start = [], 12
    while start < len(data):
        name, size = struct.unpack("<4sI", data[start : start + 8])
        chunks.append((name, data[start + 8 : start + 8 + size]))
        start += 8 + size + size % 2
    assert start == len(data)
    return chunks


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        struct.pack("<4sI", name, len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WAVE") + body


def entry(name: bytes, text: bytes) -> bytes:
    return struct.pack("<4sI", name, len(text)) + text + b"\0" * (len(text) % 2)


def test_a_wav_gets_its_genre_in_the_info_chunk_too(wav):
    write_genres(wav, ["Old-Time / Historic", "Folk"])
    info = next(content for name, content in chunks_of(wav) if name == b"LIST")
    assert info.startswith(b"INFO")
    assert info.endswith(entry(b"IGNR", b"Old-Time / Historic; Folk\0"))


def test_other_info_entries_and_the_order_of_chunks_stay(wav):
    (_, fmt), (_, data) = (
        next(c for c in chunks_of(wav) if c[0] == b"fmt "),
        next(c for c in chunks_of(wav) if c[0] == b"data"),
    )
    info = b"INFO" + entry(b"IART", b"Ann\0") + entry(b"IGNR", b"Noise; Drone\0") + entry(b"INAM", b"odd\0\0")
    parts = [
        (b"bext", b"abc"),
        (b"fmt ", fmt),
        (b"LIST", info),
        (b"LIST", b"adtl1234"),
        (b"data", data),
        (b"cue ", b"12345"),
    ]
    wav.write_bytes(riff(*parts)[:-1])  # many writers forget the last pad byte
    assert read_genres(wav) == ["Noise", "Drone"]
    assert read_credits(wav) == Credits(artist="Ann", album=None, title="odd")
    write_genres(wav, ["Folk"])
    new = b"INFO" + entry(b"IART", b"Ann\0") + entry(b"IGNR", b"Folk\0") + entry(b"INAM", b"odd\0\0")
    after = chunks_of(wav)
    assert after[:-1] == [(name, new if content == info else content) for name, content in parts]
    assert after[-1][0] == b"id3 "


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"RF64" + data[4:], r"song\.wav: a 64-bit WAV \(RF64\)"),
        (lambda data: data[:-5000], "claims .* bytes, but .* left"),
        (lambda data: data[:8] + b"AVI " + data[12:], "neither a WAV nor an AIFF"),
        (lambda data: data[:40], "ends before its audio"),
    ],
    ids=["RF64", "cut", "AVI", "header"],
)
def test_a_wav_that_cannot_be_tagged_is_refused(wav, damage, message):
    wav.write_bytes(damage(riff(*[c for c in chunks_of(wav) if c[0] in (b"fmt ", b"data")])))
    before = wav.read_bytes()
    with pytest.raises(BadInput, match=message):
        write_genres(wav, ["Folk"])
    assert wav.read_bytes() == before


def test_tags_behind_the_end_of_a_wav_are_refused(wav):
    """Some readers find those; with a new tag before them they would not."""
    lost = struct.pack("<4sI", b"id3 ", 10) + b"ID3\3\0\0\0\0\0\0"
    wav.write_bytes(wav.read_bytes() + lost)
    with pytest.raises(BadInput, match="tags after the end"):
        write_genres(wav, ["Folk"])
    wav.write_bytes(wav.read_bytes()[: -len(lost)] + b"behind it all")
    write_genres(wav, ["Folk"])
    assert wav.read_bytes().endswith(b"behind it all")


# Vorbis comments that mutagen would change


def put_comment(path: Path, comment: bytes) -> None:
    """Write a comment of so many bytes over one that mutagen made."""
    audio = mutagen.File(path)
    audio["placeholder"] = "x" * (len(comment) - len(b"placeholder="))
    audio.save()
    data = path.read_bytes()
    place = data.index(b"placeholder=")
    data = data[:place] + comment + data[place + len(comment) :]
    path.write_bytes(with_true_checksums(data) if data.startswith(b"OggS") else data)


def with_true_checksums(ogg: bytes) -> bytes:
    file, pages = io.BytesIO(ogg), []
    while file.tell() < len(ogg):
        pages.append(OggPage(file).write())
    return b"".join(pages)


@pytest.mark.parametrize("kind", ["music.flac", "music.ogg", "music.opus"])
@pytest.mark.parametrize(
    "comment",
    [
        b"composer=Dvo\xf8\xe1k's daughter",
        b"a comment that has no name",
        "schöpfer=mit Umlaut im Namen".encode(),
    ],
    ids=["no UTF-8", "no name", "odd name"],
)
def test_comments_that_would_change_are_refused(kind, comment, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    put_comment(track, comment)
    before = track.read_bytes()
    with pytest.raises(BadInput, match="would change a comment"):
        write_genres(track, ["Folk"])
    assert track.read_bytes() == before


@pytest.mark.parametrize("kind", ["music.flac", "music.ogg", "music.opus"])
def test_comments_that_others_garbled_stay_so(kind, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    put_comment(track, "composer=Dvo\ufffd\ufffdk's daughter".encode())  # this is UTF-8
    write_genres(track, ["Folk"])
    assert "composer=Dvo\ufffd\ufffdk's daughter".encode() in track.read_bytes()


# The file stays who it is


def test_owner_mode_times_and_attributes_stay(mp3):
    mp3.chmod(0o640)
    os.utime(mp3, ns=(1_000_000_000_123, 2_000_000_000_456))
    if os.geteuid() == 0:
        os.chown(mp3, 1234, 2345)
    try:
        os.setxattr(mp3, "user.mood", b"blue")
    except OSError:
        pass  # not on this file system
    else:
        write_genres(mp3, ["Rock"])
        assert os.getxattr(mp3, "user.mood") == b"blue"
        os.utime(mp3, ns=(1_000_000_000_123, 2_000_000_000_456))
    before = mp3.stat()
    write_genres(mp3, GENRES)
    after = mp3.stat()
    for field in ("st_mode", "st_uid", "st_gid", "st_atime_ns", "st_mtime_ns"):
        assert getattr(after, field) == getattr(before, field)


def test_a_link_is_written_through(mp3, tmp_path):
    (tmp_path / "deep").mkdir()
    link = tmp_path / "deep/link.mp3"
    link.symlink_to(mp3)
    write_genres(link, ["Rock"])
    assert link.is_symlink()
    assert read_genres(mp3) == ["Rock"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["link.mp3"]


def test_the_name_may_lie(originals, tmp_path):
    track = Path(shutil.copy(originals / "music.m4a", tmp_path / "song.mp3"))
    write_genres(track, ["Rock"])
    assert MP4(track)["\xa9gen"] == ["Rock"]


def test_true_audio_is_known_by_any_name(tmp_path):
    encode(tmp_path / "music.tta", "tta", 22050, "tta")
    track = (tmp_path / "music.tta").rename(tmp_path / "music")
    write_genres(track, GENRES)
    assert read_genres(track) == GENRES
    write_genres(track, [])
    assert read_genres(track) == []


# Refusals


def test_a_read_only_file_is_refused(mp3):
    mp3.chmod(0o444)
    before = mp3.read_bytes()
    with pytest.raises(PermissionError, match="read-only"):
        write_genres(mp3, ["Rock"])
    assert mp3.read_bytes() == before


def test_a_read_only_folder_is_refused_by_its_name(originals):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to all but their owner
        track = Path(shutil.copy(originals / "v24.mp3", folder))
        track.chmod(0o666)
        os.chmod(folder, 0o555)
        if os.getuid() == 0:
            os.seteuid(65534)  # root may write into any folder
        try:
            with pytest.raises(PermissionError, match=f"no permission .*: '{folder}'"):
                write_genres(track, ["Rock"])
        finally:
            os.seteuid(os.getuid())
            os.chmod(folder, 0o755)
        assert track.read_bytes() == (originals / "v24.mp3").read_bytes()


@pytest.mark.parametrize("genres", ["Rock", ["a\nb"], ["a\0b"], [" a"], [""]])
def test_what_is_no_genre_is_refused(mp3, genres):
    with pytest.raises(BadInput, match=r"song\.mp3: "):
        write_genres(mp3, genres)


@pytest.mark.parametrize(
    "content",
    [b"", b"<!doctype html><html></html>", b"\xff\xfb", b"OggS", b"fLaC", b"ID3\x04\0\0\0\0\x7f\x7f"],
)
def test_what_is_no_audio_is_refused(tmp_path, content):
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    for call in (read_genres, read_credits, lambda path: write_genres(path, ["Rock"])):
        with pytest.raises(BadInput, match=r"song\.mp3: "):
            call(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")
    for path in (tmp_path, tmp_path / "pipe.mp3"):
        with pytest.raises(BadInput, match="not a file"):
            write_genres(path, ["Rock"])
    with pytest.raises(FileNotFoundError, match=r"gone\.mp3"):
        write_genres(tmp_path / "gone.mp3", ["Rock"])


# All or nothing


@pytest.mark.parametrize(
    "call", ["os.replace", "os.fsync", "os.utime", "os.chown", "shutil.copystat", "save", "write"]
)
@pytest.mark.parametrize("kind", ["v24.mp3", "music.flac", "music.wav", "music.m4a"])
def test_a_disk_that_fails_leaves_the_original(kind, call, originals, tmp_path, monkeypatch, need):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail_in_mutagen(*args, **kwargs):
        raise mutagen.MutagenError(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    track = Path(shutil.copy(originals / kind, tmp_path))
    match call:
        case "save":
            for kind_of_tag in (ID3, FLAC, MP4):
                monkeypatch.setattr(kind_of_tag, "save", fail_in_mutagen)
        case "write":
            monkeypatch.setattr(shutil, "copyfile", fail)
            monkeypatch.setattr(shutil, "copyfileobj", fail)
        case "os.chown":
            need(os.geteuid() == 0, "only root can give files away")
            os.chown(track, 1234, 1234)
            monkeypatch.setattr(call, fail)
        case _:
            monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_genres(track, ["Rock"])
    assert caught.value.errno == errno.ENOSPC
    assert track.read_bytes() == (originals / kind).read_bytes()
    assert list(tmp_path.iterdir()) == [track]


OTHER_GENRE = ID3()
OTHER_GENRE.add(TCON(encoding=0, text="Other"))
EXTRA_COMMENT = ID3()
EXTRA_COMMENT.add(TCON(encoding=0, text="Rock"))
EXTRA_COMMENT.add(COMM(encoding=0, lang="eng", desc="", text="new"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda draft: draft.write_bytes(draft.read_bytes()[:-200]), "change its audio"),
        (lambda draft: OTHER_GENRE.save(draft), "would read"),
        (lambda draft: EXTRA_COMMENT.save(draft), "change other tags"),
    ],
    ids=["audio", "genres", "others"],
)
def test_a_bad_edit_is_noticed_before_the_swap(mp3, monkeypatch, damage, message):
    before = mp3.read_bytes()
    edit = tags.write_edited_copy

    def edit_badly(source, draft, genres, kind):
        edit(source, draft, genres, kind)
        damage(draft)

    monkeypatch.setattr(tags, "write_edited_copy", edit_badly)
    with pytest.raises(BadInput, match=message):
        tags.write_genres(mp3, ["Rock"])
    assert mp3.read_bytes() == before


def test_a_file_that_changes_meanwhile_is_not_overwritten(mp3, monkeypatch):
    edit = tags.write_edited_copy

    def edit_while_others_write(source, draft, genres, kind):
        edit(source, draft, genres, kind)
        source.write_bytes(b"new")

    monkeypatch.setattr(tags, "write_edited_copy", edit_while_others_write)
    with pytest.raises(BadInput, match="changed the file meanwhile"):
        write_genres(mp3, ["Rock"])
    assert mp3.read_bytes() == b"new"


# Copies


def test_a_copy_is_tagged_and_the_original_is_not(track, originals, tmp_path):
    target = tmp_path / "copies/a" / track.name
    os.utime(track, ns=(10**18, 10**18))
    copy_with_genres(track, target, GENRES)
    assert read_genres(target) == GENRES
    assert audio_hash(target) == audio_hash(track)
    assert track.read_bytes() == (originals / track.name).read_bytes()
    assert target.stat().st_mtime_ns == 10**18
    copy_with_genres(track, target, ["Folk"])
    assert read_genres(target) == ["Folk"]
    assert list(target.parent.iterdir()) == [target]


def test_a_copy_takes_notes_and_refuses_what_is_none(track, originals, tmp_path):
    copy_with_genres(track, tmp_path / "copies" / track.name, GENRES, custom_tags={"GENRE_MODEL": "m 1"})
    assert tags.read_tags(tmp_path / "copies" / track.name).custom_tags == {"GENRE_MODEL": "m 1"}
    for custom_tags in ({"MOOD": "blue"}, {"GENRE_MODEL": "a\nb"}, {"GENRE_MODEL": ""}):
        with pytest.raises(BadInput, match="is no custom tag"):
            copy_with_genres(track, tmp_path / "others" / track.name, GENRES, custom_tags=custom_tags)
    assert not (tmp_path / "others").exists()


def test_a_copy_never_overwrites_its_original(mp3, tmp_path):
    before = mp3.read_bytes()
    (tmp_path / "alias.mp3").hardlink_to(mp3)
    for target in (mp3, tmp_path / "alias.mp3"):
        with pytest.raises(BadInput, match="would overwrite the original"):
            copy_with_genres(mp3, target, ["Rock"])
    assert mp3.read_bytes() == before


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "song.mp3").write_bytes(b"<html>")
    with pytest.raises(BadInput, match=r"song\.mp3"):
        copy_with_genres(tmp_path / "song.mp3", tmp_path / "copies/song.mp3", ["Rock"])
    assert list((tmp_path / "copies").iterdir()) == []


# The hash sees the audio, all of it and nothing else


def test_the_hash_sees_a_changed_bit(track):
    data = bytearray(track.read_bytes())
    before = audio_hash(track)
    middle = len(data) // 2
    data[middle] ^= 1
    track.write_bytes(data)
    assert audio_hash(track) != before


def test_the_hash_sees_shifted_mp4_chunks(originals, tmp_path):
    data = bytearray((originals / "music.m4a").read_bytes())
    place = data.index(b"stco") + 15
    data[place] ^= 1
    (tmp_path / "shifted.m4a").write_bytes(data)
    assert audio_hash(tmp_path / "shifted.m4a") != audio_hash(originals / "music.m4a")


# Other people's broken files


def test_no_hostile_file_is_damaged(tmp_path, need):
    need(HOSTILE.is_dir(), "../shared/data/hostile is not here")
    tagged = 0
    for source in sorted(path for path in HOSTILE.rglob("*") if path.is_file()):
        track = tmp_path / f"{source.parent.name}-{source.name}"
        shutil.copyfile(source, track)
        refusal = ""
        try:
            before = audio_hash(track)
            write_genres(track, GENRES)
        except BadInput as why:
            refusal = str(why)
        if refusal:
            assert track.name in refusal
            assert "\n" not in refusal
            assert track.read_bytes() == source.read_bytes()
        else:
            tagged += 1
            assert audio_hash(track) == before
            assert read_genres(track) == GENRES
    assert tagged > 150
    assert not list(tmp_path.glob(".*"))
