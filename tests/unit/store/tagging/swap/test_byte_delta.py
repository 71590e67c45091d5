import random
import shutil
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import mutagen
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutagen.ogg import OggPage

from store.errors import BadInput
from store.tagging.swap.byte_delta import apply_delta, make_delta
from store.tags.write import write_genres
from tests.support.audio_formats import CODECS, encode

# Long repeats and small alphabets: what real files have, and random bytes have not.
PIECES = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(0, 5_000)),
    st.builds(
        lambda seed, size: random.Random(seed).randbytes(size), st.integers(0, 3), st.integers(0, 90_000)
    ),
)
CONTENTS = st.lists(PIECES, max_size=6).map(b"".join)


def there_and_back(new: bytes, old: bytes, **limits: int) -> bytes | None:
    """Make the delta, follow it, and compare; give the delta."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("new", "old", "made")]
        paths[0].write_bytes(new)
        paths[1].write_bytes(old)
        delta = make_delta(paths[0], paths[1], **limits)
        if delta is not None:
            apply_delta(paths[0], delta, paths[2])
            assert paths[2].read_bytes() == old
        return delta


@settings(deadline=None)
@given(new=CONTENTS, old=CONTENTS)
def test_any_bytes_come_back(new, old):
    assert there_and_back(new, old, max_bytes=1 << 20) is not None


def ogg_page(serial: int, number: int, packet: bytes) -> bytes:
    page = OggPage()
    page.serial, page.sequence, page.packets = serial, number, [packet]
    return page.write()


PAGES = st.lists(
    st.builds(ogg_page, st.integers(0, 1), st.integers(0, 5), st.binary(max_size=300)), min_size=1, max_size=6
).map(b"".join)


@settings(deadline=None)
@given(new=PAGES, old=PAGES, tail=st.binary(max_size=40), cut=st.integers(0, 60))
def test_any_pages_come_back(new, old, tail, cut):
    assert there_and_back(new + tail, (old + tail)[: -cut or None]) is not None
    assert there_and_back((new + tail)[: -cut or None], old) is not None


@settings(deadline=None)
@given(
    content=CONTENTS,
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3_000), st.binary(max_size=300)), min_size=1, max_size=4
    ),
)
def test_edits_cost_what_they_took_away(content, edits):
    new = content
    lost = 0
    for place, taken, put in edits:
        at = int(place * len(new))
        lost += len(new[at : at + taken])
        new = new[:at] + put + new[at + taken :]
    delta = there_and_back(new, content)
    assert delta is not None
    assert len(delta) <= lost + 60 * (len(edits) + 1)


def test_a_block_that_occurs_twice_is_found_where_it_was():
    block = random.Random(0).randbytes(63_000)
    content = block[:20_000] + bytes(5_000) + block[:50_000]
    delta = there_and_back(content[1:] + b"t", content)
    assert delta is not None
    assert len(delta) < 60


def test_the_same_bytes_and_none_cost_next_to_nothing():
    assert there_and_back(b"same", b"same") == b"\0\0\0"
    assert there_and_back(b"much", b"") == b"\0"
    assert there_and_back(b"", b"little") == b"\0\x0d\0\0\0little"


def test_a_block_that_moved_costs_nothing():
    music, picture = (random.Random(seed).randbytes(3_000_000) for seed in (1, 2))
    delta = there_and_back(b"head" + picture + b"more" + music + b"tail", b"h" + picture + music + b"foot")
    assert delta is not None
    assert len(delta) < 60


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_pages_of_an_ogg_file_that_are_numbered_anew_cost_nothing(suffix, tmp_path):
    few, many = tmp_path / f"few{suffix}", tmp_path / f"many{suffix}"
    encode(few, *CODECS[suffix], seconds=20)
    shutil.copyfile(few, many)
    audio = mutagen.File(many)
    audio["comment"] = random.Random(1).randbytes(20_000).hex()
    audio.save()
    for new, old, most in ((many, few, 100), (few, many, 22_000)):
        delta = make_delta(new, old)
        assert delta is not None
        assert delta[0] != 0
        assert len(delta) < most
        apply_delta(new, delta, tmp_path / "made")
        assert (tmp_path / "made").read_bytes() == old.read_bytes()


def test_a_recipe_beyond_the_limit_is_none():
    first, second = (random.Random(seed).randbytes(200_000) for seed in (1, 2))
    assert there_and_back(first, second) is None
    assert there_and_back(b"", b"0123456789", max_bytes=10) is None


def test_memory_does_not_grow_with_the_file(tmp_path):
    block = random.Random(1).randbytes(1 << 20)
    for name, start in (("new", b"a longer start"), ("old", b"start")):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            for number in range(64):
                file.write(number.to_bytes(4, "big") + block)
    tracemalloc.start()
    try:
        delta = make_delta(tmp_path / "new", tmp_path / "old")
        assert delta is not None
        apply_delta(tmp_path / "new", delta, tmp_path / "made")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert len(delta) < 50
    assert (tmp_path / "made").read_bytes() == (tmp_path / "old").read_bytes()


@pytest.mark.parametrize("suffix", CODECS)
def test_a_tag_edit_in_any_format_costs_about_what_it_took_away(suffix, tmp_path):
    old, new = tmp_path / f"old{suffix}", tmp_path / f"new{suffix}"
    encode(old, *CODECS[suffix], seconds=4)
    for genres in (["Old-Time / Historic", "Folk"], ["Rock"], []):
        shutil.copyfile(old, new)
        write_genres(new, genres)
        delta = make_delta(new, old)
        assert delta is not None
        assert len(delta) < 120  # WMA has two bytes a letter
        apply_delta(new, delta, tmp_path / "made")
        assert (tmp_path / "made").read_bytes() == old.read_bytes()
        shutil.copyfile(new, old)


@given(delta=st.binary(max_size=60))
def test_a_damaged_recipe_is_refused_or_makes_something(delta):
    with TemporaryDirectory() as folder:
        Path(folder, "new").write_bytes(b"some bytes")
        try:
            apply_delta(Path(folder, "new"), delta, Path(folder, "made"))
        except BadInput as why:
            assert "delta of its former bytes" in str(why)  # noqa: PT017
