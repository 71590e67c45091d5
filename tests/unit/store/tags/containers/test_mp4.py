import struct
from pathlib import Path

import pytest

from store.errors import BadInput
from store.tags.containers.mp4 import correct_offsets, read_layout
from store.tags.payload import hash_payload
from tests.support.mux_variants import VARIANTS, MuxFactory

TABLES = {  # a layout, and the tables of offsets in it
    "aac-ipod-plain": {b"stco"},
    "aac-ismv-frag_duration=200000": {b"trun", b"tfra"},
    "aac-mp4-movflags=+empty_moov,frag_duration=200000": {b"tfhd"},
    "aac-mp4-movflags=+delay_moov+dash+global_sidx,frag_duration=200000": {b"sidx"},
    "aac-mp4-encryption_scheme=cenc-aes-ctr": {b"stco", b"saio"},
}


@pytest.fixture(scope="module")
def mux(tmp_path_factory) -> MuxFactory:
    return MuxFactory(tmp_path_factory.mktemp("encoded"))


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def moov(*tables: bytes, tags: int = 100) -> bytes:
    stbl = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", *tables))))
    return box(b"moov", stbl, box(b"udta", full_box(b"meta", box(b"ilst", bytes(tags)))))


def corrected(tmp_path: Path, source: bytes, draft: bytes) -> bytes:
    """Correct `draft`, whose tags are longer; return it, if its audio is hashed like that of `source`."""
    old, new = tmp_path / "old.mp4", tmp_path / "new.mp4"
    old.write_bytes(source)
    new.write_bytes(draft)
    with old.open("rb") as file, new.open("rb+") as target:
        correct_offsets(file, target)
    assert hash_payload(old) == hash_payload(new)
    return new.read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_an_offset_that_leads_elsewhere_changes_the_hash(name, mux, tmp_path):
    track = tmp_path / "track.mp4"
    mux.write(next(variant for variant in VARIANTS if str(variant).startswith(name)), track)
    whole, before = track.read_bytes(), hash_payload(track)
    with track.open("rb") as file:
        layout = read_layout(file)
    changed = set()
    for pointer in layout.pointers:
        data = bytearray(whole)
        end = pointer.at + max(pointer.width, 4)
        data[pointer.at : end] = (int.from_bytes(data[pointer.at : end], "big") + 1).to_bytes(
            end - pointer.at, "big"
        )
        track.write_bytes(data)
        assert hash_payload(track) != before
        changed |= {it.kind for it in layout.boxes if it.content <= pointer.at < it.stop}
    assert changed >= TABLES[name]


@pytest.mark.parametrize(
    "table",
    [
        lambda at: full_box(b"stco", struct.pack(">II", 1, at)),
        lambda at: full_box(b"co64", struct.pack(">IQ", 1, at)),
        lambda at: full_box(b"saio", struct.pack(">II", 1, at)),
        lambda at: full_box(b"saio", struct.pack(">IIIQ", 0, 0, 1, at), version=1, flags=1),
    ],
    ids=["stco", "co64", "saio", "saio-64"],
)
def test_a_table_of_a_track_follows_the_audio(table, tmp_path):
    audio = box(b"mdat", b"0123456789abcdef")
    at = len(moov(table(0))) + 8 + 4
    new_at = len(moov(table(0), tags=5_000)) + 8 + 4
    result = corrected(tmp_path, moov(table(at)) + audio, moov(table(at), tags=5_000) + audio)
    assert result == moov(table(new_at), tags=5_000) + audio


@pytest.mark.parametrize("sizes", [0x4400, 0x4440, 0x8880])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_offsets_of_items_follow_them(version, sizes, tmp_path):
    audio = box(b"mdat", b"0123456789abcdef")
    width, base_width = sizes >> 12, sizes >> 4 & 15

    def items(at: int) -> bytes:
        base, offset = (at - 3, 3) if base_width else (0, at)
        ids = ">I" if version == 2 else ">H"
        method = b"\0\0" if version else b""
        item = struct.pack(ids, 1) + method + b"\0\0" + base.to_bytes(base_width, "big") + b"\0\1"
        item += offset.to_bytes(width, "big") + (4).to_bytes(width, "big")
        iloc = full_box(b"iloc", struct.pack(">H", sizes), struct.pack(ids, 1), item, version=version)
        return full_box(b"meta", iloc)

    at, new_at = (len(moov(tags=tags) + items(3)) + 12 for tags in (100, 900))
    result = corrected(tmp_path, moov() + items(at) + audio, moov(tags=900) + items(at) + audio)
    assert result == moov(tags=900) + items(new_at) + audio


def test_an_index_before_the_tags_counts_them(tmp_path):
    def index(first: int) -> bytes:
        return full_box(b"sidx", struct.pack(">IIIIHH", 1, 1000, 0, first, 0, 0))

    def file(first: int, tags: int) -> bytes:
        return box(b"ftyp") + index(first) + moov(tags=tags) + box(b"moof") + box(b"mdat", b"0123")

    first, new_first = (len(moov(tags=tags)) for tags in (100, 700))
    assert corrected(tmp_path, file(first, 100), file(first, 700)) == file(new_first, 700)


def test_an_offset_beyond_its_field_is_refused(tmp_path):
    table = full_box(b"stco", struct.pack(">II", 1, 0xFFFF_FFF0))
    for name, tags in (("old.mp4", 100), ("new.mp4", 900)):
        with (tmp_path / name).open("wb") as file:
            file.write(moov(table, tags=tags) + struct.pack(">I4sQ", 1, b"mdat", 1 << 32))
            file.truncate(len(moov(table, tags=tags)) + (1 << 32))
    with (
        (tmp_path / "old.mp4").open("rb") as old,
        (tmp_path / "new.mp4").open("rb+") as new,
        pytest.raises(BadInput, match="byte 4294968080, beyond what its tables of offsets can hold"),
    ):
        correct_offsets(old, new)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (
            moov(box(b"dinf", full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", b"other.mp4\0")))),
            "in another file",
        ),
        (box(b"moov", box(b"cmov", b"zlib")), "compressed"),
        (moov(full_box(b"stco", struct.pack(">II", 1, 150))), "leads into its tags"),
        (moov(full_box(b"stco", struct.pack(">II", 1, 50))), "leads into a header"),
        (struct.pack(">I4s", 900, b"moov"), "claims 900 bytes, but 8 are left"),
    ],
    ids=["external", "compressed", "into-tags", "into-header", "cut"],
)
def test_a_file_whose_offsets_cannot_be_corrected_is_refused(file, reason, tmp_path):
    track = tmp_path / "track.mp4"
    track.write_bytes(file)
    with pytest.raises(BadInput, match=reason):
        hash_payload(track)
