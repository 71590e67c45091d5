"""One suite for every place a store can lie: local disk, memory, an S3 double."""

import json

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from store.dataset.recipe import Recipe
from store.dataset.shards import OBJECT_FRAMES, UINT8_STEP_DB, decode_db, encode_db, write_shard
from store.dataset.snapshots import latest_snapshot, publish, put_catalogue, read_snapshot_file, snapshot_url
from store.errors import BadInput, CommitConflict
from store.fs.files import exists, join, list_names, write_atomic
from store.reader import open_snapshot
from tests.support.snapshots import index_of

BANDS = 8
ENCODING_ERROR_DB = {  # the largest error of a value in [-100, 40] dB: half a step
    "float32": 0.0,
    "float16": 2.0**-5,  # from 64 to 128, float16 has steps of 2**-4
    "uint8": UINT8_STEP_DB / 2,
}


def recipe(encoding="float16"):
    return Recipe({"bands": BANDS, "hop": 512}, "abc", encoding, {"start_s": 0.0, "duration_s": None})


def some_mels(seed=0, lengths=(5, 1, 300)):
    random = np.random.default_rng(seed)
    return {
        f"track {seed}/{i}": random.uniform(-100, 40, (n, BANDS)).astype(np.float32)
        for i, n in enumerate(lengths)
    }


def in_pieces(mels):
    """Cut each mel in two, so that a piece is not a track."""
    return ((it, np.array_split(mel_FM, 2)) for it, mel_FM in mels.items())


def add(root, mels, parent, encoding="float16", more=(), catalogue=None):
    shard = write_shard(root, in_pieces(mels), bands=BANDS, encoding=encoding, attributes={"made_by": "test"})
    ids = [*(open_snapshot(root).catalogue["track_id"].to_pylist() if parent else []), *mels, *more]
    return publish(
        root,
        parent=parent,
        shards=[shard],
        index=index_of(shard),
        catalogue=put_catalogue(root, catalogue or pa.table({"track_id": list(dict.fromkeys(ids))})),
        recipe=recipe(encoding),
        settings={},
    )


@pytest.mark.parametrize("encoding", ["float16", "float32", "uint8"])
def test_what_is_published_comes_back_within_the_stated_error(root, encoding):
    mels = some_mels()
    add(root, mels, None, encoding)
    snapshot = open_snapshot(root)
    assert snapshot.track_ids == list(mels)
    for track_id, mel_FM in mels.items():
        assert snapshot.mel(track_id).shape == mel_FM.shape
        assert np.abs(snapshot.mel(track_id) - mel_FM).max() <= ENCODING_ERROR_DB[encoding] * 1.001


def test_nothing_is_seen_before_it_is_published(root):
    write_shard(root, in_pieces(some_mels()), bands=BANDS, encoding="float16", attributes={})
    assert latest_snapshot(root) is None
    with pytest.raises(BadInput, match="holds no published spectrograms; run `spectrogram-one build`"):
        open_snapshot(root)


def test_a_later_snapshot_adds_and_the_older_one_stays_as_it_was(root):
    first = add(root, some_mels(0), None, more=["wanted, not built"])
    add(root, some_mels(1), first)
    assert open_snapshot(root).track_ids == [*some_mels(0), *some_mels(1)]
    old = open_snapshot(snapshot_url(root, 0))
    assert old.track_ids == list(some_mels(0))
    assert old.tracks["status"].to_pylist() == ["ok", "ok", "ok", None]


def test_the_second_of_two_that_publish_on_one_parent_is_refused(root):
    first = add(root, some_mels(0), None)
    add(root, some_mels(1), first)
    with pytest.raises(CommitConflict, match="another run published first"):
        add(root, some_mels(2), first)
    assert open_snapshot(root).track_ids == [*some_mels(0), *some_mels(1)]


def test_a_track_that_was_tried_again_has_its_last_result(root):
    first = add(root, {"a": np.zeros((3, BANDS), np.float32)}, None)
    add(root, {"a": np.ones((4, BANDS), np.float32)}, first)
    snapshot = open_snapshot(root)
    assert snapshot.track_ids == ["a"]
    np.testing.assert_array_equal(snapshot.mel("a"), np.ones((4, BANDS)))


def test_a_slice_is_a_part_of_the_whole_and_ends_with_the_track(root):
    mels = some_mels()
    add(root, mels, None, "float32")
    snapshot = open_snapshot(root)
    np.testing.assert_array_equal(snapshot.mel_slice("track 0/2", 290, 20), mels["track 0/2"][290:])
    np.testing.assert_array_equal(snapshot.mel_slice("track 0/2", 10, 20), mels["track 0/2"][10:30])
    assert snapshot.mel_slice("track 0/1", 7, 5).shape == (0, BANDS)


def test_a_shard_that_fails_half_way_leaves_nothing(root):
    def broken():
        yield "a", [np.zeros((OBJECT_FRAMES + 1, BANDS), np.float32)]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_shard(root, broken(), bands=BANDS, encoding="float16", attributes={})
    assert list_names(join(root, "shards")) == []


def test_a_plain_zarr_reader_finds_the_shards_and_how_to_read_them(tmp_path):
    root = str(tmp_path / "store")
    mels = some_mels()
    add(root, mels, None, "uint8")
    array = zarr.open(root, mode="r")["shards"][list_names(join(root, "shards"))[0]]
    assert array.attrs["track_ids"] == list(mels)
    assert array.attrs["start_frames"] == [0, 5, 6]
    rows_FM = array[6:] * np.float32(array.attrs["scale_factor"]) + array.attrs["add_offset"]
    np.testing.assert_allclose(rows_FM, mels["track 0/2"], atol=ENCODING_ERROR_DB["uint8"] * 1.001)


def test_tracks_longer_than_an_object_span_several(tmp_path):
    root = str(tmp_path)
    mels = some_mels(3, lengths=(OBJECT_FRAMES - 1, 2, OBJECT_FRAMES * 2 + 5, 1))
    add(root, mels, None, "float32")
    snapshot = open_snapshot(root)
    for track_id, mel_FM in mels.items():
        np.testing.assert_array_equal(snapshot.mel(track_id), mel_FM)


def test_a_file_that_is_no_snapshot_is_refused_in_one_line(tmp_path):
    url = str(tmp_path / "snapshots" / "00000000.json")
    write_atomic(url, json.dumps({"number": 0}).encode())
    with pytest.raises(BadInput, match="not a snapshot of a dataset"):
        read_snapshot_file(url)
    with pytest.raises(BadInput, match="no such snapshot"):
        open_snapshot(str(tmp_path / "snapshots" / "00000007.json"))


def test_the_same_catalogue_is_stored_once(tmp_path):
    root = str(tmp_path)
    first = add(root, some_mels(0), None, more=["track 1/0", "track 1/1", "track 1/2"])
    second = add(root, some_mels(1), first)
    assert first.catalogue == second.catalogue
    assert exists(join(root, first.catalogue))


@given(value=st.floats(-100, 40, width=32), encoding=st.sampled_from(["float16", "float32", "uint8"]))
def test_an_encoding_keeps_its_stated_error(value, encoding):
    mel_FM = np.full((1, 1), value, np.float32)
    assert abs(decode_db(encode_db(mel_FM, encoding))[0, 0] - value) <= ENCODING_ERROR_DB[encoding] * 1.001


def test_uint8_clips_what_lies_outside():
    mel_FM = np.array([[-120.0, 60.0]], np.float32)
    np.testing.assert_allclose(decode_db(encode_db(mel_FM, "uint8")), [[-100, 40]], atol=1e-4)
