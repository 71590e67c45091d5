import random
from pathlib import Path

import pytest

from store.errors import BadInput
from store.tags.containers.ogg import LAST, Page, read_pages
from store.tags.payload import hash_payload
from store.tags.write import read_genres, write_genres
from tests.support.mux_variants import MuxFactory, Variant, decode_digests

LONG = ["N" * 70_000]  # more than a page: the pages after it get other numbers
SMALL_PAGES = {"page_duration": "20000"}


@pytest.fixture(scope="module")
def mux(tmp_path_factory) -> MuxFactory:
    return MuxFactory(tmp_path_factory.mktemp("encoded"))


@pytest.fixture
def track(mux, tmp_path) -> Path:
    path = tmp_path / "track.ogg"
    mux.write(Variant("vorbis", "ogg", SMALL_PAGES), path)
    return path


def pages_of(path: Path) -> list[Page]:
    with path.open("rb") as file:
        return list(read_pages(file))


def test_the_links_of_a_chain_stay_as_they_are(track, mux, tmp_path):
    second = tmp_path / "second.ogg"
    mux.write(Variant("libopus", "ogg", {**SMALL_PAGES, "serial_offset": "5"}), second)
    chain = track.read_bytes() + second.read_bytes()
    track.write_bytes(chain)
    before = decode_digests(track)
    write_genres(track, LONG)
    assert read_genres(track) == LONG
    assert track.read_bytes().endswith(second.read_bytes())
    assert decode_digests(track) == before
    write_genres(track, [])
    assert hash_payload(track) != hash_payload(second)


def test_a_chain_whose_links_share_a_serial_number_is_refused_where_pages_would_be_renumbered(track):
    twice = track.read_bytes() * 2
    track.write_bytes(twice)
    with pytest.raises(BadInput, match="would change its audio"):
        write_genres(track, LONG)
    assert track.read_bytes() == twice


@pytest.mark.parametrize("damage", ["checksum", "lost"])
def test_damage_that_renumbering_would_hide_is_refused(damage, track):
    data, page = track.read_bytes(), pages_of(track)[8]
    assert page.has_valid_checksum()
    if damage == "checksum":
        track.write_bytes(data[: page.offset + 22] + b"0000" + data[page.offset + 26 :])
    else:
        track.write_bytes(data[: page.offset] + data[page.offset + len(page.head) + len(page.content) :])
    damaged = track.read_bytes()
    with pytest.raises(BadInput, match="would change its audio"):
        write_genres(track, LONG)
    assert track.read_bytes() == damaged


@pytest.mark.parametrize("codec", ["vorbis", "libopus", "flac"])
def test_every_byte_of_the_pages_of_audio_counts(codec, mux, tmp_path):
    track = tmp_path / "track.ogg"
    mux.write(Variant(codec, "ogg", SMALL_PAGES), track)
    before, data = hash_payload(track), track.read_bytes()
    pages = pages_of(track)
    draw = random.Random(1)
    for page in draw.sample(pages[4:], 8):
        fields = range(4, len(page.head) + len(page.content))
        at = page.offset + draw.choice([it for it in fields if it not in (26, *range(27, len(page.head)))])
        track.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert hash_payload(track) != before
    assert pages[-1].flags & LAST


def test_a_cut_off_file_is_refused(track):
    data = track.read_bytes()
    track.write_bytes(data[:-10])
    with pytest.raises(BadInput, match="the last Ogg page is cut off"):
        write_genres(track, ["Folk"])
