"""A sweep removes what nobody needs, whatever happens at the same time, at every call of it."""

import os
import time
from contextlib import suppress
from uuid import uuid4

import pyarrow as pa
import pytest

from store.dataset import snapshot_tags
from store.dataset.recipe import Recipe
from store.dataset.snapshot_tags import find_snapshot, put_tag, read_tags, remove_tag
from store.dataset.snapshots import kept_snapshots, latest_snapshot, publish, put_catalogue
from store.dataset.sweep import sweep
from store.dataset.verification import verify
from store.errors import BadInput, CommitConflict
from store.fs.files import exists, join, list_names, remove, write_atomic
from store.reader import Snapshot
from tests.support.small_shards import store_shard
from tests.support.snapshots import index_of
from tests.support.storage_calls import Crashed, dying, overtaken

RECIPE = Recipe({"bands": 8}, "abc", "float16", {})
CALLS = 60  # more than a sweep or a commit of these stores makes


@pytest.fixture
def root():
    return f"memory://{uuid4().hex}/store"


@pytest.fixture
def places():
    """Yield the root of one empty store after another; each is removed when the next is asked for."""

    def make():
        for _ in range(CALLS):
            root = f"memory://{uuid4().hex}/store"
            yield root
            remove(root)  # listing takes time by all that memory holds

    return make()


def prepare(root, number):
    """Store a shard and a catalogue, as a build does before it publishes."""
    shard = store_shard(root, f"shard {number}", (f"track {number}",))
    listed = [f"track {it}" for it in range(number + 1)]
    return shard, put_catalogue(root, pa.table({"track_id": listed}))


def publish_prepared(root, prepared):
    shard, catalogue = prepared
    return publish(
        root,
        parent=latest_snapshot(root),
        shards=[shard],
        index=index_of(shard),
        catalogue=catalogue,
        recipe=RECIPE,
        settings={},
    )


def publish_some(root, count):
    for number in range(count):
        publish_prepared(root, prepare(root, number))


def sweep_all(root, keep=None, grace_s=0.0, is_dry_run=False):
    return sweep(root, grace_s=grace_s, keep_snapshots=keep, is_dry_run=is_dry_run)


def assert_whole(root):
    for file in kept_snapshots(root):
        assert verify(Snapshot(root, file), threads=1).damages == ()


def test_only_what_is_named_or_young_stays(root):
    publish_some(root, 2)
    prepare(root, 7)
    assert sweep_all(root, grace_s=3600).files == ()
    expected = sweep_all(root, is_dry_run=True).files
    assert len(latest_snapshot(root).index) == len(list(kept_snapshots(root))) == 2, (
        "a dry run changes nothing"
    )
    assert sweep_all(root).files == expected
    assert "shards/shard 7" in expected
    assert sorted(list_names(join(root, "shards"))) == ["shard 0", "shard 1", "zarr.json"]
    assert sweep_all(root).files == (), "a sweep leaves nothing to sweep"
    assert_whole(root)


def test_only_the_newest_and_the_tagged_snapshots_stay(root):
    publish_some(root, 5)
    put_tag(root, "paper", 1)
    assert sweep_all(root, keep=2).snapshots == (2, 0)
    assert [it.number for it in kept_snapshots(root)] == [5, 4, 3, 1], "5 is the sweep's own"
    assert find_snapshot(root, "paper").number == 1
    assert sweep_all(root, keep=2).snapshots == (), "again, there is nothing to do"
    assert_whole(root)


def test_a_writer_whose_files_were_swept_is_refused(root):
    publish_some(root, 1)
    prepared = prepare(root, 1)
    sweep_all(root)
    with pytest.raises(CommitConflict, match="a sweep removed 2 files that this run had not published yet"):
        publish_prepared(root, prepared)
    assert_whole(root)


class Overtaker:
    """Another process, which does all of its work between two calls of a sweep, or of a commit."""

    def __init__(self, root, kind):
        self.root, self.kind = root, kind
        self.prepared = prepare(root, 3)
        self.result = None

    def __call__(self):
        self.result = "refused"
        with suppress(BadInput, CommitConflict):
            match self.kind:
                case "publish":
                    publish_prepared(self.root, prepare(self.root, 4))
                case "publish what is old":
                    publish_prepared(self.root, self.prepared)
                case "tag":
                    put_tag(self.root, "paper", 0)
                case "sweep":
                    sweep_all(self.root, keep=1)
            self.result = "done"


def test_a_tag_whose_move_is_refused_never_names_a_snapshot_that_was_removed(root, monkeypatch):
    """While a tag moves from 0 to 1, one sweep removes 1, and another 0, which no tag names then."""
    publish_some(root, 3)
    put_tag(root, "paper", 0)

    def write_between_two_sweeps(url, content):
        monkeypatch.setattr(snapshot_tags, "write_atomic", write_atomic)
        assert sweep_all(root, keep=1).snapshots == (1,)
        write_atomic(url, content)
        assert sweep_all(root, keep=1).snapshots == (0,)

    monkeypatch.setattr(snapshot_tags, "write_atomic", write_between_two_sweeps)
    with pytest.raises(BadInput, match="a sweep removes snapshot 1"):
        put_tag(root, "paper", 1, move=True)
    assert read_tags(root) == {}


@pytest.mark.parametrize("kind", ["publish", "publish what is old", "tag", "sweep"])
def test_a_sweep_is_overtaken_at_each_of_its_calls(places, kind):
    results = set()
    for at, root in enumerate(places):
        publish_some(root, 2)
        other = Overtaker(root, kind)
        with overtaken(at, other):
            sweep_all(root, keep=1)
        assert_whole(root)
        assert set(read_tags(root).values()) <= {it.number for it in kept_snapshots(root)}
        assert ("paper" in read_tags(root)) == (kind == "tag" and other.result == "done")
        results.add(other.result)
        if other.result is None:
            break
    assert None in results, "a sweep makes more calls than were tried"
    assert results >= ({"done"} if kind in ("publish", "sweep") else {"done", "refused"})


def test_a_commit_is_overtaken_by_a_sweep_at_each_of_its_calls(places):
    for at, root in enumerate(places):
        publish_some(root, 2)
        other = Overtaker(root, "sweep")
        is_published = False
        with overtaken(at, other), suppress(CommitConflict):
            publish_prepared(root, other.prepared)
            is_published = True
        assert_whole(root)
        assert is_published or other.result == "done"
        if other.result is None:
            return
    raise AssertionError("a commit makes more calls than were tried")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_sweep_that_dies_at_any_change_loses_nothing_and_is_completed_by_the_next(places, moment):
    for at, root in enumerate(places):
        publish_some(root, 2)
        prepare(root, 2)
        try:
            with dying(at, moment):
                sweep_all(root, keep=1)
        except Crashed:
            assert_whole(root)
            sweep_all(root, keep=1)
            assert_whole(root)
            assert not exists(join(root, "shards", "shard 2"))
            continue
        return
    raise AssertionError("a sweep makes more changes than were tried")


def test_a_clock_that_runs_backwards_or_ahead_removes_nothing_young(tmp_path, monkeypatch):
    """Ages are by the clock of the store's file system, and the order of snapshots by their numbers."""
    root = str(tmp_path)
    publish_some(root, 2)
    prepare(root, 2)
    for years in (-20, 20):
        now = time.time() + years * 3.15e7
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert sweep_all(root, grace_s=3600).files == ()
        publish_prepared(root, prepare(root, 3))
    assert latest_snapshot(root).number == 3
    for file in (tmp_path / "shards" / "shard 2").rglob("*"):
        os.utime(file, (now, now))  # written by a host whose clock is ahead
    assert sweep_all(root, grace_s=3600).files == ()
    assert exists(join(root, "shards", "shard 2"))


def test_drafts_of_killed_writers_are_removed_when_they_are_old(tmp_path):
    root = str(tmp_path)
    publish_some(root, 1)
    draft = tmp_path / "snapshots" / ".0123.part.json"
    draft.write_bytes(b"half")
    assert sweep_all(root, grace_s=3600).files == ()
    os.utime(draft, (0, 0))
    assert sweep_all(root, grace_s=3600).files == ("snapshots/.0123.part.json",)
    assert not draft.exists()


def test_a_store_without_snapshots_is_left_alone(root):
    prepare(root, 0)
    with pytest.raises(BadInput, match="holds no published spectrograms"):
        sweep_all(root)
    assert exists(join(root, "shards", "shard 0"))


def test_tags_are_made_moved_and_removed(root):
    publish_some(root, 2)
    put_tag(root, "paper", 0)
    put_tag(root, "paper", 0)
    with pytest.raises(BadInput, match="tag 'paper' names snapshot 0; give --move to change that"):
        put_tag(root, "paper", 1)
    put_tag(root, "paper", 1, move=True)
    assert read_tags(root) == {"paper": 1}
    remove_tag(root, "paper")
    with pytest.raises(BadInput, match="no tag is named 'paper'"):
        remove_tag(root, "paper")
    with pytest.raises(BadInput, match="no snapshot 'paper'; `spectrogram-one store log`"):
        find_snapshot(root, "paper")


@pytest.mark.parametrize("name", ["", "latest", "12", "a/b", "../a", ".a", "a b"])
def test_a_name_that_cannot_be_a_tag(root, name):
    publish_some(root, 1)
    with pytest.raises(BadInput, match="cannot be a tag"):
        put_tag(root, name, 0)


def test_a_tag_that_is_damaged(root):
    publish_some(root, 1)
    write_atomic(join(root, "tags", "paper.json"), b"{")
    with pytest.raises(BadInput, match=r"tags/paper.json: not a tag"):
        read_tags(root)
