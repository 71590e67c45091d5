"""The whole of a local store is one Zarr array, whose tracks lie where start_frame and frames say."""

import json

import numpy as np
import pyarrow as pa
import pytest
import zarr

from preprocessing.mel.settings import MelSettings
from store.dataset.concatenation import link_concatenation, relink_concatenation
from store.dataset.shard_objects import OBJECT_FRAMES
from store.dataset.shards import decode_db
from store.fs.files import list_names
from store.reader import open_snapshot
from tests.support.snapshots import add_mels, publish_mels

MEL = MelSettings(bands=8)
LENGTHS = {"a": 3, "b": OBJECT_FRAMES, "c": 300}


def some_mels():
    random = np.random.default_rng(0)
    return {it: random.uniform(-99, 39, (count, 8)).astype(np.float32) for it, count in LENGTHS.items()}


def assert_shows_all(root):
    """Read each track from the array at the root, with zarr-python alone."""
    group = zarr.open_group(root, mode="r")
    snapshot = open_snapshot(root)
    for row, track_id in enumerate(snapshot.track_ids):
        first, count = int(group["start_frame"][row]), int(group["frames"][row])
        stored_FM = np.asarray(group["mel"][first : first + count])
        np.testing.assert_array_equal(decode_db(stored_FM), snapshot.mel(track_id))


@pytest.mark.parametrize("encoding", ["uint8", "float16"])
def test_the_root_shows_the_latest_snapshot_as_one_array(tmp_path, encoding):
    root, mels = str(tmp_path), some_mels()
    catalogue = pa.table({"track_id": ["c", "not built", "a", "b"]})
    publish_mels(root, {"a": mels["a"], "b": mels["b"]}, catalogue, MEL, encoding)
    link_concatenation(root)
    assert_shows_all(root)
    add_mels(root, {"c": mels["c"]}, MEL, encoding)
    link_concatenation(root)
    assert_shows_all(root)
    named = json.loads((tmp_path / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    assert set(named) == {"mel", "start_frame", "frames"}
    assert not list(tmp_path.glob(".*")), "nothing is left over"


def test_no_space_is_taken_twice(tmp_path):
    publish_mels(str(tmp_path), some_mels(), pa.table({"track_id": list(LENGTHS)}), MEL)
    link_concatenation(str(tmp_path))
    assert {path.stat().st_nlink for path in tmp_path.glob("mel/c.*")} == {2}


def test_an_object_store_is_left_as_it_is():
    root = "memory://no-links/store"
    publish_mels(root, some_mels(), pa.table({"track_id": list(LENGTHS)}), MEL)
    before = list_names(root)
    link_concatenation(root)
    assert list_names(root) == before


def test_a_store_swept_of_older_shards_gives_their_space_back(tmp_path):
    root, mels = str(tmp_path), some_mels()
    publish_mels(root, {"a": mels["a"]}, pa.table({"track_id": ["a"]}), MEL)
    relink_concatenation(root)
    assert not (tmp_path / "mel").exists(), "there was none"
    link_concatenation(root)
    (old,) = tmp_path.glob("shards/*/c/0/0")
    add_mels(root, {"a": mels["c"]}, MEL)  # built again
    assert old.stat().st_nlink == 2
    relink_concatenation(root)
    assert old.stat().st_nlink == 1
    assert_shows_all(root)
