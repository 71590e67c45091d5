"""One short file of each kind of tag, with artist, title and picture as other programs write them."""

import base64
import struct
from pathlib import Path

import mutagen
from mutagen.apev2 import APEv2, APEv2File
from mutagen.asf import ASF, ASFByteArrayAttribute
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, TIT2, TPE1
from mutagen.mp4 import MP4, MP4Cover
from mutagen.ogg import OggFileType

from tests.support.audio_formats import CODECS, encode

PICTURE = b"\x89PNG not really" * 9
MP3_KINDS = ["bare.mp3", "v22.mp3", "v23.mp3", "v24.mp3", "v1.mp3", "ape.mp3"]
KINDS = [*MP3_KINDS, *(f"music{suffix}" for suffix in CODECS if suffix != ".mp3")]


def write_tagged_files(folder: Path) -> None:
    """Make one short file of each kind; bare.mp3 alone has no tags."""
    for suffix, (codec, rate, container) in CODECS.items():
        encode(folder / f"music{suffix}", codec, rate, container)
    mp3 = (folder / "music.mp3").read_bytes()
    for kind in MP3_KINDS:
        (folder / kind).write_bytes(mp3)
    (folder / "v22.mp3").write_bytes(id3v22(b"Before") + mp3)
    put_id3(folder / "v23.mp3", version=3)
    put_id3(folder / "v24.mp3", version=4, v1=2)
    (folder / "v1.mp3").write_bytes(mp3 + id3v1(b"Before", b"a comment", 255))
    ape = APEv2()
    ape.update(Title="Before", Artist="Ann", Genre="Noise")
    ape.save(folder / "ape.mp3")
    for suffix in CODECS:
        if suffix not in (".mp3", ".aac"):
            give_credits(folder / f"music{suffix}")
    put_id3(folder / "music.aac", version=4)


def give_credits(path: Path) -> None:
    """Put artist, title and picture into a file, by mutagen itself."""
    audio = mutagen.File(path)
    match audio:
        case FLAC():
            audio.update(artist="Ann", title="Before")
            picture = Picture()
            picture.data = PICTURE
            audio.add_picture(picture)
            audio.save()
        case MP4():
            cover = MP4Cover(PICTURE, MP4Cover.FORMAT_PNG)
            audio.update({"\xa9ART": "Ann", "\xa9nam": "Before", "covr": [cover]})
            audio.save()
        case ASF():
            picture = ASFByteArrayAttribute(PICTURE)
            audio.update({"Author": "Ann", "Title": "Before", "WM/Picture": picture})
            audio.save()
        case OggFileType() | APEv2File():
            audio.update(artist="Ann", title="Before", picture=base64.b64encode(PICTURE).decode())
            audio.save()
        case _:
            put_id3(path, version=4)


def put_id3(path: Path, *, version: int, v1: int = 0) -> None:
    frames = [TIT2(encoding=0, text="Before"), TPE1(encoding=0, text="Ann")]
    frames.append(APIC(encoding=0, mime="image/png", type=3, desc="", data=PICTURE))
    match path.suffix:
        case ".wav" | ".aiff":
            audio = mutagen.File(path)
            audio.add_tags()
            for frame in frames:
                audio.tags.add(frame)
            audio.save()
        case _:
            tag = ID3()
            for frame in frames:
                tag.add(frame)
            tag.save(path, v1=v1, v2_version=version)


def id3v1(title: bytes, comment: bytes, genre: int) -> bytes:
    return struct.pack("3s30s30s30s4s30sB", b"TAG", title, b"Ann", b"", b"1999", comment, genre)


def id3v22(title: bytes) -> bytes:
    text = b"\0" + title
    frame = b"TT2" + len(text).to_bytes(3, "big") + text
    picture = b"\0PNG\x03\0" + PICTURE
    frame += b"PIC" + len(picture).to_bytes(3, "big") + picture
    return b"ID3\x02\0\0\0\0" + bytes([len(frame) >> 7, len(frame) & 0x7F]) + frame
