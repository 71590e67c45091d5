"""A folder of blocks stays within its limit, whoever uses it, and returns nothing but what was put there."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.fs.block_cache import HEADER, BlockCache

LIMIT = 1_000


def content_of(cache, name):
    file = cache.open(name)
    return None if file is None else os.pread(file.handle, 10**6, HEADER.size)


def blocks_in(folder):
    return [it for it in Path(folder).iterdir() if it.name != "lock"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400)), max_size=30))
def test_the_folder_never_exceeds_its_limit_and_the_newest_block_is_there(tmp_path_factory, puts):
    folder = tmp_path_factory.mktemp("cache")
    for name, size in puts:
        cache = BlockCache(str(folder), LIMIT)  # each time as another process, or after a restart
        was = content_of(cache, f"{name}")
        cache.put(f"{name}", bytes([name]) * size)
        assert content_of(cache, f"{name}") == (bytes([name]) * size if was is None else was)
        assert sum(it.stat().st_size for it in blocks_in(folder)) <= LIMIT


def test_the_block_that_was_opened_longest_ago_is_removed(tmp_path):
    cache = BlockCache(str(tmp_path), LIMIT)
    for age, name in enumerate("abc"):
        cache.put(name, bytes(280))
        os.utime(tmp_path / name, ns=(age, age))
    content_of(cache, "a")
    cache.put("d", bytes(280))
    assert sorted(it.name for it in blocks_in(tmp_path)) == ["a", "c", "d"]


@pytest.mark.parametrize("at", [0, HEADER.size - 1, HEADER.size, 40])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_damaged_block_is_removed_and_can_be_put_again(tmp_path, at, is_cut):
    BlockCache(str(tmp_path), LIMIT).put("a", b"x" * 100)
    whole = (tmp_path / "a").read_bytes()
    flipped = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
    (tmp_path / "a").write_bytes(whole[:at] if is_cut else flipped)
    cache = BlockCache(str(tmp_path), LIMIT)
    assert cache.open("a") is None
    cache.put("a", b"y" * 100)
    assert content_of(cache, "a") == b"y" * 100


def test_a_block_stays_readable_for_those_that_opened_it(tmp_path):
    cache = BlockCache(str(tmp_path), LIMIT)
    cache.put("a", b"x" * 500)
    file = cache.open("a")
    cache.put("b", b"y" * 500)
    assert cache.open("a") is None
    assert os.pread(file.handle, 9, HEADER.size) == b"x" * 9


def test_what_killed_processes_left_is_removed_and_counts_for_nothing(tmp_path):
    (tmp_path / "a.0.draft").write_bytes(bytes(600))
    (tmp_path / "lock").write_bytes(b"no number")
    cache = BlockCache(str(tmp_path), LIMIT)
    cache.put("a", bytes(600))
    assert [it.name for it in blocks_in(tmp_path)] == ["a"]


def test_a_disk_that_cannot_be_written_keeps_nothing_and_harms_nothing(tmp_path, monkeypatch):
    cache = BlockCache(str(tmp_path), LIMIT)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put("a", bytes(100))
    monkeypatch.undo()
    assert cache.open("a") is None
    assert blocks_in(tmp_path) == []


def test_a_block_is_claimed_by_one_and_the_others_can_wait_for_it(tmp_path):
    one, other = (BlockCache(str(tmp_path), LIMIT) for _ in range(2))
    waiting = threading.Thread(target=other.wait_for, args=("a",))
    with one.claiming(["a", "b"]) as first:
        assert first == ["a", "b"]
        with other.claiming(["a", "c"]) as second:
            assert second == ["c"]
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        one.put("a", b"x")
    waiting.join()
    assert content_of(other, "a") == b"x"
    assert [it.name for it in blocks_in(tmp_path)] == ["a"], "claims leave no files"
