"""Crops are read as they were stored, wherever they lie, and damage is named."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.mel.settings import MelSettings
from store.dataset.object_ranges import OVERLAP_FRAMES, RemoteObjects
from store.dataset.shard_objects import CHUNK_FRAMES, INDEX_BYTES, OBJECT_FRAMES
from store.errors import BadInput
from store.fs.block_cache import BlockCache
from tests.support.snapshots import publish_mels

MEL = MelSettings(bands=8)
LENGTHS = (OBJECT_FRAMES - 3, 40, OBJECT_FRAMES + 7, 5)


@pytest.fixture(scope="module")
def mels():
    random = np.random.default_rng(1)
    return {
        f"track {i}": random.uniform(-100, 40, (n, 8)).astype(np.float16).astype(np.float32)
        for i, n in enumerate(LENGTHS)
    }


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory, mels):
    root = str(tmp_path_factory.mktemp("read") / "store")
    return publish_mels(root, mels, pa.table({"track_id": list(mels)}), MEL)


def read(snapshot, track_B, start_B, frames, reader=None):
    locations = snapshot.locate(snapshot.catalogue["track_id"])
    out_BFM = np.full((len(track_B), frames, 8), np.nan, np.float16)
    (reader or snapshot.reader).read_crops(locations, np.array(track_B), np.array(start_B), out_BFM)
    return out_BFM


@pytest.fixture(scope="module")
def readers(snapshot, tmp_path_factory):
    """Return readers without and with a cache, which holds three blocks of frames."""
    cache = BlockCache(str(tmp_path_factory.mktemp("cache")), 220_000)
    return snapshot.reader, snapshot.reader_with(cache)


@given(st.data())
def test_crops_are_the_frames_that_were_stored_across_objects_too(snapshot, readers, mels, data):
    crops = data.draw(
        st.lists(
            st.integers(0, 3).flatmap(lambda t: st.tuples(st.just(t), st.integers(0, LENGTHS[t] - 1))),
            min_size=1,
        )
    )
    frames = data.draw(st.integers(1, 60) | st.integers(OVERLAP_FRAMES, 5_000))
    for reader in readers:
        found_BFM = read(
            snapshot, [track for track, _ in crops], [start for _, start in crops], frames, reader
        )
        for found_FM, (track, start) in zip(found_BFM, crops, strict=True):
            stored_FM = mels[f"track {track}"][start : start + frames]
            np.testing.assert_array_equal(found_FM, np.resize(stored_FM, found_FM.shape))


@pytest.fixture
def fetched(monkeypatch):
    """List the blocks that are fetched."""
    fetched, fetch = [], RemoteObjects.fetch

    def count(self, objects, offset_R, size_R):
        fetched.extend(zip(objects, offset_R.tolist(), strict=True))
        return fetch(self, objects, offset_R, size_R)

    monkeypatch.setattr(RemoteObjects, "fetch", count)
    return fetched


def test_a_block_that_another_rank_fetches_before_it_is_claimed_is_not_fetched_again(
    snapshot, tmp_path, monkeypatch, fetched
):
    one, other = (snapshot.reader_with(BlockCache(str(tmp_path), 10**8)) for _ in range(2))
    claiming, crop = BlockCache.claiming, ([0], [0], 30)

    def claiming_late(self, names):
        monkeypatch.setattr(BlockCache, "claiming", claiming)
        read(snapshot, *crop, other)
        return claiming(self, names)

    monkeypatch.setattr(BlockCache, "claiming", claiming_late)
    np.testing.assert_array_equal(read(snapshot, *crop, one), read(snapshot, *crop))
    assert len(fetched) == 1


def test_the_ranks_of_a_host_fetch_each_block_once(snapshot, tmp_path, fetched):
    random = np.random.default_rng(0)
    batches = [(random.integers(0, 3, 16), random.integers(0, 40, 16)) for _ in range(24)]
    ranks = [snapshot.reader_with(BlockCache(str(tmp_path), 10**8)) for _ in range(3)]

    def of_rank(number):
        return [read(snapshot, *it, 30, ranks[number]) for it in batches[number::3]]

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(of_rank, range(3)))
    for number, (track_B, start_B) in enumerate(batches):
        expected_BFM = read(snapshot, track_B, start_B, 30)
        np.testing.assert_array_equal(found[number % 3][number // 3], expected_BFM)
    assert len(fetched) == len(set(fetched)) == 3
    after_restart = snapshot.reader_with(BlockCache(str(tmp_path), 10**8))
    read(snapshot, *batches[0], 30, after_restart)
    assert len(fetched) == 3


def test_threads_share_a_reader_that_may_hold_few_files_open(tmp_path, mels, monkeypatch):
    monkeypatch.setattr("store.dataset.object_ranges.resource.getrlimit", lambda _: (0, 0))
    few = {f"track {i}": np.full((OBJECT_FRAMES, 8), i, np.float32) for i in range(20)}
    snapshot = publish_mels(str(tmp_path), few, pa.table({"track_id": list(few)}), MEL)
    before = len(os.listdir("/proc/self/fd"))
    tracks = np.random.default_rng(0).integers(20, size=(60, 8))
    with ThreadPoolExecutor(4) as threads:
        for track_B, found_BFM in zip(
            tracks, threads.map(lambda it: read(snapshot, it, it, 3), tracks), strict=True
        ):
            np.testing.assert_array_equal(found_BFM[:, 0, 0], track_B)
    assert len(os.listdir("/proc/self/fd")) - before <= 16


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "c/0/0: missing from the store; `spectrogram-one build --repair`"),
        (lambda path: os.truncate(path, 100), "c/0/0: truncated; `spectrogram-one build --repair`"),
    ],
)
def test_damage_behind_a_cache_is_named(tmp_path, damage, message):
    snapshot = publish_mels(
        str(tmp_path), {"a": np.zeros((300, 8), np.float32)}, pa.table({"track_id": ["a"]}), MEL
    )
    (path,) = tmp_path.glob("shards/*/c/0/0")
    damage(path)
    reader = snapshot.reader_with(BlockCache(str(tmp_path / "cache"), 10**6))
    for _ in range(2):  # the second time from the cache, where something came
        with pytest.raises(BadInput, match=message):
            read(snapshot, [0], [20], 30, reader)


def _truncate(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def _break_index(path):
    content = bytearray(path.read_bytes())
    content[-INDEX_BYTES] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"c/0/0: missing from the store; `spectrogram-one build --repair`"),
        (_truncate, r"c/0/0: its index is damaged, or its size is wrong; `spectrogram-one build --repair`"),
        (_break_index, r"c/0/0: its index is damaged"),
        (lambda path: path.write_bytes(b""), r"c/0/0: its index is damaged"),
    ],
)
def test_a_damaged_object_is_named_with_its_cure(tmp_path, damage, message):
    snapshot = publish_mels(
        str(tmp_path), {"a": np.zeros((300, 8), np.float32)}, pa.table({"track_id": ["a"]}), MEL
    )
    (path,) = tmp_path.glob("shards/*/c/0/0")
    damage(path)
    with pytest.raises(BadInput, match=message):
        snapshot.mel("a")


def test_an_object_that_shrinks_while_it_is_open_is_named(tmp_path):
    snapshot = publish_mels(
        str(tmp_path), {"a": np.zeros((300, 8), np.float32)}, pa.table({"track_id": ["a"]}), MEL
    )
    snapshot.mel("a")
    (path,) = tmp_path.glob("shards/*/c/0/0")
    os.truncate(path, 100)
    with pytest.raises(BadInput, match="c/0/0: truncated"):
        snapshot.mel("a")


def test_a_store_is_hardly_larger_than_its_values(tmp_path):
    publish_mels(
        str(tmp_path), {"a": np.zeros((1_300, 128), np.float32)}, pa.table({"track_id": ["a"]}), MelSettings()
    )
    (path,) = tmp_path.glob("shards/*/c/0/0")
    assert path.stat().st_size <= (1_300 + CHUNK_FRAMES) * 128 * 2 + INDEX_BYTES
