"""Pictures, chapters, lyrics, loudness and what nobody knows stay byte for byte, whatever genres and notes are written.

Taken apart by hand here, so that what mutagen does not show counts too.
"""

import base64
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mutagen
import pytest
from mutagen.aiff import AIFF
from mutagen.apev2 import APEv2, APEValue
from mutagen.asf import ASF, ASFByteArrayAttribute
from mutagen.flac import FLAC, CueSheet, CueSheetTrack, CueSheetTrackIndex, Picture
from mutagen.id3 import (
    APIC,
    CHAP,
    COMM,
    CTOC,
    GEOB,
    ID3,
    MCDI,
    PCNT,
    POPM,
    PRIV,
    RVA2,
    SYLT,
    TIT2,
    TXXX,
    UFID,
    USLT,
    WXXX,
    CTOCFlags,
    Encoding,
)
from mutagen.mp4 import MP4, MP4Cover
from mutagen.wave import WAVE

from store.tags.write import checked_edit, read_tags, write_tagged_copy
from tests.support.tagged_files import PICTURE

NOTES = {"GENRE_CONFIDENCE": "0.87", "GENRE_MODEL": "v1"}
EDITS = [
    (["Old-Time / Historic", "Électronique", "Rock"], NOTES),
    (None, {"GENRE_CONFIDENCE": "0.5"}),
    (["Folk"], {}),
    ([], dict.fromkeys(NOTES)),
]


def edits_of(track: Path) -> Iterator[None]:
    """Make one edit after the other, with a look at the file after each."""
    for genres, custom_tags in EDITS:
        draft = track.with_name("draft")
        write_tagged_copy(track, draft, checked_edit(genres, custom_tags))
        draft.replace(track)
        yield


# ID3


def rich_frames(version: int) -> list[object]:
    utf = Encoding.UTF16 if version == 3 else Encoding.UTF8
    gains = [RVA2(desc="track", channel=1, gain=-3.5, peak=0.5)] if version == 4 else []
    return [
        TIT2(encoding=utf, text="Ünder"),
        APIC(encoding=0, mime="image/png", type=3, desc="front", data=PICTURE),
        APIC(encoding=utf, mime="image/jpeg", type=4, desc="zurück", data=PICTURE[::-1] * 40),
        CTOC(element_id="toc", flags=CTOCFlags.TOP_LEVEL, child_element_ids=["a", "b"], sub_frames=[]),
        CHAP(element_id="a", start_time=0, end_time=400, sub_frames=[TIT2(encoding=0, text="One")]),
        CHAP(element_id="b", start_time=400, end_time=900, sub_frames=[TIT2(encoding=utf, text="Zwö")]),
        USLT(encoding=utf, lang="eng", desc="", text="la\nla"),
        SYLT(encoding=0, lang="eng", format=2, type=1, desc="", text=[("la", 0), ("le", 500)]),
        TXXX(encoding=0, desc="replaygain_track_gain", text="-3.50 dB"),
        COMM(encoding=0, lang="eng", desc="iTunNORM", text=" 000"),
        PRIV(owner="PeakValue", data=b"\xff\xe0\0\xff"),
        GEOB(encoding=0, mime="x/y", filename="f", desc="d", data=b"\0\xff\xfb"),
        UFID(owner="http://musicbrainz.org", data=b"abc"),
        MCDI(data=bytes(range(256))),
        POPM(email="a@b", rating=200, count=3),
        PCNT(count=7),
        WXXX(encoding=0, desc="", url="http://x"),
        *gains,
    ]


UNKNOWN_FRAME = b"XYZZ\0\0\0\x05\0\0\x01\xff\xfe\0\x07"


def frames_of(block: bytes) -> list[bytes]:
    """Take a plain tag apart, without genres, notes and padding."""
    bits = 7 if block[3] == 4 else 8
    frames, at = [], 10
    while at < len(block) and block[at]:
        size = sum(byte << bits * (3 - place) for place, byte in enumerate(block[at + 4 : at + 8]))
        frames.append(block[at : at + 10 + size])
        at += 10 + size
    return [it for it in frames if it[:4] != b"TCON" and not (it[:4] == b"TXXX" and b"GENRE_" in it)]


def disorder(track: Path) -> None:
    """Turn the frames of a tag around, and add a damaged one: mutagen would sort them and drop that."""
    data = track.read_bytes()
    block = id3_block(data, 0)
    body = b"POPM\0\0\0\x03\0\0abc" + b"".join(reversed(frames_of(block)))
    size = len(body) + 7  # some padding
    head = block[:6] + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    track.write_bytes(head + body + bytes(7) + data[len(block) :])


def id3_block(data: bytes, at: int) -> bytes:
    size = sum(byte << 7 * (3 - place) for place, byte in enumerate(data[at + 6 : at + 10]))
    return data[at : at + 10 + size]


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("kind", ["bare.mp3", "music.aac", "music.wav", "music.aiff"])
def test_all_other_id3_frames_stay(kind, version, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    match track.suffix:
        case ".wav" | ".aiff":
            audio = WAVE(track) if track.suffix == ".wav" else AIFF(track)
            audio.delete()
            audio = WAVE(track) if track.suffix == ".wav" else AIFF(track)
            audio.add_tags()
            for frame in rich_frames(version):
                audio.tags.add(frame)
            audio.save(v2_version=version)
        case _:
            tag = ID3()
            for frame in rich_frames(version):
                tag.add(frame)
            tag.unknown_frames, tag._unknown_v2_version = [UNKNOWN_FRAME], version
            tag.save(track, v1=0, v2_version=version)
            disorder(track)
    data = track.read_bytes()
    before = frames_of(id3_block(data, data.index(b"ID3" + bytes([version]))))
    assert len(before) >= 17
    for _ in edits_of(track):
        data = track.read_bytes()
        assert frames_of(id3_block(data, data.index(b"ID3" + bytes([version])))) == before


# FLAC and Ogg


def flac_blocks(path: Path) -> list[tuple[int, bytes]]:
    data = path.read_bytes()
    blocks, at, last = [], 4, False
    while not last:
        last, code, size = data[at] > 127, data[at] & 127, int.from_bytes(data[at + 1 : at + 4], "big")
        blocks.append((code, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return blocks


def comments_of(packet: bytes) -> tuple[bytes, list[bytes]]:
    """Take a Vorbis comment apart: who wrote it, and all that is no genre and no note."""
    (size,) = struct.unpack_from("<I", packet)
    vendor, at = packet[4 : 4 + size], 8 + size
    comments = []
    for _ in range(struct.unpack_from("<I", packet, at - 4)[0]):
        (size,) = struct.unpack_from("<I", packet, at)
        comments.append(packet[at + 4 : at + 4 + size])
        at += 4 + size
    return vendor, [it for it in comments if not it.upper().startswith((b"GENRE=", b"GENRE_"))]


def rich_comments() -> dict[str, list[str]]:
    picture = Picture()
    picture.data, picture.mime, picture.type = PICTURE * 40, "image/png", 3
    return {
        "TITLE": ["Ünder"],
        "Artist": ["Ann", "Bob"],
        "METADATA_BLOCK_PICTURE": [base64.b64encode(picture.write()).decode()] * 2,
        "CHAPTER001": ["00:00:00.000"],
        "CHAPTER001NAME": ["One"],
        "LYRICS": ["la\nla"],
        "REPLAYGAIN_TRACK_GAIN": ["-3.50 dB"],
        "R128_TRACK_GAIN": ["-300"],
        "odd name }": [""],
    }


def test_all_other_flac_blocks_stay(originals, tmp_path):
    track = Path(shutil.copy(originals / "music.flac", tmp_path))
    audio = FLAC(track)
    audio.update(rich_comments())
    sheet = CueSheet(None)
    sheet.media_catalog_number, sheet.lead_in_samples, sheet.compact_disc = b"12345", 88200, True
    for number, start in ((1, 0), (2, 588), (170, 22050)):
        song = CueSheetTrack(number, start, b"ISRC00000001")
        song.indexes.append(CueSheetTrackIndex(1, 0))
        sheet.tracks.append(song)
    audio.cuesheet = sheet
    audio.metadata_blocks.append(sheet)
    picture = Picture()
    picture.data, picture.mime, picture.desc = PICTURE[::-1] * 9, "image/jpeg", "zurück"
    audio.add_picture(picture)
    audio.save()
    data = track.read_bytes()
    strangers = b"\x02\0\0\x07test\1\2\3" + b"\x55\0\0\x03\xff\xf8\0"  # an APPLICATION; a code not given out
    track.write_bytes(data[:42] + strangers + data[42:])  # behind STREAMINFO
    before = [block for block in flac_blocks(track) if block[0] not in (1, 4)]
    assert {0, 2, 5, 6, 0x55} <= {code for code, _ in before}
    comments = comments_of(next(content for code, content in flac_blocks(track) if code == 4))
    for _ in edits_of(track):
        blocks = flac_blocks(track)
        assert [block for block in blocks if block[0] not in (1, 4)] == before
        assert comments_of(next(content for code, content in blocks if code == 4)) == comments


@pytest.mark.parametrize("kind", ["music.ogg", "music.opus"])
def test_all_other_ogg_comments_stay(kind, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    audio = mutagen.File(track)
    audio.update(rich_comments())
    audio.save()
    before = comments_of(ogg_comments(track))
    assert len(before[1]) >= 11
    for _ in edits_of(track):
        assert comments_of(ogg_comments(track)) == before


def ogg_comments(path: Path) -> bytes:
    """Join the pieces of the second packet."""
    data = path.read_bytes()
    packet, at, packets = b"", 0, 0
    while packets < 2:
        sizes = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(sizes)
        for size in sizes:
            packet += data[at : at + size] if packets == 1 else b""
            at += size
            packets += size < 255
            if packets == 2:
                break
    return packet[7:] if packet[:1] == b"\3" else packet[8:]


# MP4


PARENTS = (b"moov", b"udta", b"trak", b"mdia", b"minf", b"stbl", b"ilst", b"edts", b"dinf")


def boxes_of(data: bytes, path: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """List the innermost boxes, but for free space and where the audio lies."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        inner = data[at + 8 : at + size]
        where = path + b"/" + name
        if name == b"meta":
            yield where, inner[:4]
            yield from boxes_of(inner[4:], where)
        elif name in PARENTS:
            yield from boxes_of(inner, where)
        elif name not in (b"free", b"stco", b"co64", b"\xa9gen") and not (
            name == b"----" and b"GENRE_" in inner
        ):
            yield where, inner
        at += size


def test_all_other_mp4_boxes_and_chapters_stay(originals, tmp_path, need):
    need(
        shutil.which("ffmpeg"), "ffmpeg is not installed"
    )  # it makes chapters both as Nero and as QuickTime do
    chapters = tmp_path / "chapters"
    chapters.write_text(
        ";FFMETADATA1\ntitle=Ünder\n"
        + "".join(
            f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={at}\nEND={at + 400}\ntitle=Part {at}\n" for at in (0, 400)
        )
    )
    track = tmp_path / "song.m4a"
    command = ["ffmpeg", "-v", "error", "-i", originals / "music.m4a", "-i", chapters, "-map", "0:a"]
    subprocess.run([*command, "-map_metadata", "1", "-map_chapters", "1", "-c", "copy", track], check=True)
    audio = MP4(track)
    audio["covr"] = [MP4Cover(PICTURE * 40, MP4Cover.FORMAT_PNG), MP4Cover(PICTURE, MP4Cover.FORMAT_JPEG)]
    audio["\xa9lyr"] = ["la\nla"]
    audio["----:com.apple.iTunes:replaygain_track_gain"] = [b"-3.50 dB"]
    audio["trkn"], audio["cpil"], audio["tmpo"] = [(3, 9)], True, [120]
    audio.save()
    before = sorted(boxes_of(track.read_bytes()))
    names = {name.rsplit(b"/")[-1] for name, _ in before}
    assert {b"chpl", b"chap", b"covr", b"\xa9lyr", b"mdat"} <= {
        *names,
        *([b"chap"] if b"tref" in names else []),
    }
    shown = chapters_shown(track)
    assert len(shown) == 2
    for _ in edits_of(track):
        assert sorted(boxes_of(track.read_bytes())) == before
        assert chapters_shown(track) == shown


def chapters_shown(path: Path) -> list[str]:
    asked = ["ffprobe", "-v", "error", "-show_chapters", "-of", "compact", path]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()


# ASF


def asf_objects(path: Path) -> list[tuple[bytes, bytes]]:
    """List the objects of the header, but for those that hold texts, the header extension and padding."""
    data = path.read_bytes()
    objects, at = [], 30
    for _ in range(struct.unpack_from("<I", data, 24)[0]):
        (size,) = struct.unpack_from("<Q", data, at + 16)
        objects.append((data[at : at + 16], data[at + 24 : at + size]))
        at += size
    texts = ("33 26 b2 75 8e 66 cf 11 a6 d9 00 aa 00 62 ce 6c", "40 a4 d0 d2 07 e3 d2 11 97 f0 00 a0 c9 5e a8 50",
             "b5 03 bf 5f 2e a9 cf 11 8e e3 00 c0 0c 20 53 65",
             "74 d4 06 18 df ca 09 45 a4 ba 9a ab cb 96 aa e8")  # fmt: skip
    return [it for it in objects if it[0] not in [bytes.fromhex(text) for text in texts]]


def test_all_other_asf_objects_and_attributes_stay(originals, tmp_path):
    track = Path(shutil.copy(originals / "music.wma", tmp_path))
    audio = ASF(track)
    audio["WM/Picture"] = [
        ASFByteArrayAttribute(b"\3\x08\0\0\0" + PICTURE),
        ASFByteArrayAttribute(PICTURE * 2000),
    ]
    audio["WM/Lyrics"], audio["replaygain_track_gain"], audio["odd"] = ["la\nla"], ["-3.5 dB"], [True, 7]
    audio.save()
    markers = bytes.fromhex("01cd87f451a9cf118ee600c00c205365")  # as chapters are kept in ASF
    content = b"\0" * 16 + struct.pack("<IHH", 0, 0, 0)
    put_asf_object(track, markers + struct.pack("<Q", 24 + len(content)) + content)
    before, other_fields = asf_objects(track), read_tags(track).other_fields
    assert (markers, content) in before
    for _ in edits_of(track):
        assert sorted(asf_objects(track)) == sorted(before)
        assert read_tags(track).other_fields == other_fields


def put_asf_object(path: Path, made: bytes) -> None:
    data = path.read_bytes()
    size, count = struct.unpack_from("<QI", data, 16)
    head = data[:16] + struct.pack("<QI", size + len(made), count + 1) + data[28:30]
    path.write_bytes(head + made + data[30:])


# APEv2


def ape_items(path: Path) -> list[bytes]:
    """List the items of the APEv2 tag at the end: flags, name, value."""
    data = path.read_bytes()
    size, count = struct.unpack_from("<II", data, len(data) - 20)
    at = len(data) - size
    items = []
    for _ in range(count):
        length, flags = struct.unpack_from("<II", data, at)
        end = data.index(b"\0", at + 8)
        items.append(struct.pack("<I", flags) + data[at + 8 : end + 1 + length])
        at = end + 1 + length
    return sorted(it for it in items if not it[4:].upper().startswith((b"GENRE\0", b"GENRE_")))


@pytest.mark.parametrize("kind", ["music.wv", "ape.mp3"])
def test_all_other_apev2_items_stay(kind, originals, tmp_path):
    track = Path(shutil.copy(originals / kind, tmp_path))
    tag = APEv2(track)
    tag["Cover Art (Front)"] = APEValue(b"front.png\0" + PICTURE, 1)
    tag["Related"] = APEValue("http://x", 2)
    tag.update(
        {"Lyrics": "la\nla", "Cuesheet": "TRACK 01", "REPLAYGAIN_TRACK_GAIN": "-3.5 dB", "Artist": ["A", "B"]}
    )
    tag.save(track)
    before = ape_items(track)
    assert len(before) >= 7
    for _ in edits_of(track):
        assert ape_items(track) == before
