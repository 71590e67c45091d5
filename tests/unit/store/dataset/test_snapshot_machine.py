"""Publish, crash, retry, race, read: a dataset behaves like a list of dicts, whatever happens to its writers."""

import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from unittest import mock
from uuid import uuid4

import fsspec
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from store.dataset import snapshots
from store.dataset.recipe import Recipe
from store.dataset.shards import Shard
from store.dataset.snapshots import SnapshotFile, latest_snapshot, publish, put_catalogue, snapshot_url
from store.errors import CommitConflict
from store.fs.files import list_names, local_path, put_if_absent
from store.reader import open_snapshot
from tests.support.snapshots import index_of

RECIPE = Recipe({"bands": 8}, "abc", "float16", {"start_s": 0.0, "duration_s": None})
WRITES = 5  # of a first commit: the catalogue, two groups, the index, the snapshot
Tracks = dict[str, str]  # the shard of each track
Put = Callable[[str, bytes], None]


class Crashed(BaseException):
    """The writer's process died."""


class SnapshotMachine(RuleBasedStateMachine):
    """Writers with any parent that was ever the latest, and `published`, the model of what readers see."""

    parents = Bundle("parents")

    def __init__(self) -> None:
        super().__init__()
        self.root = self.new_root()
        self.published: list[Tracks] = []
        self.shards = 0

    def new_root(self) -> str:
        raise NotImplementedError

    # Writers

    @rule(target=parents)
    def start_without_parent(self):
        return None

    @rule(target=parents)
    def read_latest(self):
        return latest_snapshot(self.root)

    @rule(target=parents, parent=parents)
    def publish(self, parent):
        return self.commit(parent, put_if_absent)

    @rule(target=parents, parent=parents)
    def publish_through_a_client_that_repeats_its_request(self, parent):
        """The first request was carried out, its response lost: the second is refused."""

        def put_twice(url: str, data: bytes) -> None:
            put_if_absent(url, data)
            put_if_absent(url, data)

        return self.commit(parent, put_twice)

    @rule(parent=parents, at=st.integers(0, WRITES - 1), moment=st.sampled_from(["before", "amid", "after"]))
    def crash(self, parent, at, moment):
        """The writer dies at one of its writes; whoever comes next does not know."""
        puts, committed = [], []

        def put_and_die(url: str, data: bytes) -> None:
            puts.append(url)
            if len(puts) <= at:
                put_if_absent(url, data)
                return
            path = local_path(url)
            if moment == "amid" and path is not None:  # what a killed process leaves beside its target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(f".{uuid4().hex}.part{path.suffix}").write_bytes(data[: len(data) // 2])
            if moment == "after":
                put_if_absent(url, data)
                committed.extend([url] if "/snapshots/" in url else [])
            raise Crashed

        shard = self.new_shard()
        is_latest = self.is_latest(parent)
        try:
            committed.append(self.write(parent, shard, put_and_die).write_id)  # fewer writes: it lived
        except CommitConflict:
            assert not is_latest
        except Crashed:
            pass
        if committed:
            assert is_latest
            self.published.append(self.content(parent) | self.tracks_of(shard))

    @rule(target=parents, parent=parents)
    def race(self, parent):
        """Two writers reach the last write at the same instant: exactly one wins."""
        shards = [self.new_shard(), self.new_shard()]
        barrier = threading.Barrier(2, timeout=10)
        lock = threading.Lock()

        def put_together(url: str, data: bytes) -> None:
            if "/snapshots/" not in url:
                put_if_absent(url, data)
                return
            barrier.wait()
            with lock if self.is_serial else nullcontext():
                put_if_absent(url, data)

        def write(shard: Shard) -> SnapshotFile | None:
            try:
                return self.write_unpatched(parent, shard)
            except CommitConflict:
                return None

        with mock.patch.object(snapshots, "put_if_absent", put_together), ThreadPoolExecutor(2) as pool:
            results = list(pool.map(write, shards))
        won = [(shard, result) for shard, result in zip(shards, results, strict=True) if result is not None]
        assert len(won) == self.is_latest(parent)
        if not won:
            return multiple()
        self.published.append(self.content(parent) | self.tracks_of(won[0][0]))
        return won[0][1]

    is_serial = False  # a file system whose create is no single step, as the memory of one process

    # Readers

    @invariant()
    def the_latest_snapshot_is_the_last_published(self):
        latest = latest_snapshot(self.root)
        assert (latest.number if latest else -1) == len(self.published) - 1
        names = [name for name in list_names(f"{self.root}/snapshots") if not name.startswith(".")]
        assert names == [f"{number:08d}.json" for number in range(len(self.published))]

    @rule(data=st.data())
    def read_any(self, data):
        if self.published:
            number = data.draw(st.integers(0, len(self.published) - 1))
            snapshot = open_snapshot(snapshot_url(self.root, number))
            columns = snapshot.read_index(pa.chunked_array([snapshot.track_ids], pa.string()), ["shard"])
            found = dict(zip(snapshot.track_ids, columns["shard"].to_pylist(), strict=True))
            assert found == self.published[number]
            assert set(snapshot.file.shards) == set(self.published[number].values())

    # The steps of a writer, and the model

    def commit(self, parent: SnapshotFile | None, put: Put):
        shard = self.new_shard()
        is_latest = self.is_latest(parent)
        try:
            snapshot = self.write(parent, shard, put)
        except CommitConflict:
            assert not is_latest
            return multiple()
        assert is_latest
        self.published.append(self.content(parent) | self.tracks_of(shard))
        return snapshot

    def write(self, parent: SnapshotFile | None, shard: Shard, put: Put) -> SnapshotFile:
        with mock.patch.object(snapshots, "put_if_absent", put):
            return self.write_unpatched(parent, shard)

    def write_unpatched(self, parent: SnapshotFile | None, shard: Shard) -> SnapshotFile:
        tracks = self.content(parent) | self.tracks_of(shard)
        return publish(
            self.root,
            parent=parent,
            shards=[shard.name],
            index=index_of(shard),
            catalogue=put_catalogue(self.root, pa.table({"track_id": sorted(tracks)})),
            recipe=RECIPE,
            settings={},
        )

    def new_shard(self) -> Shard:
        self.shards += 1
        track_id = f"track {self.shards}"
        return Shard(f"shard {self.shards}", {track_id: 0}, {track_id: 5})

    def tracks_of(self, shard: Shard) -> Tracks:
        return dict.fromkeys(shard.starts, shard.name)

    def content(self, parent: SnapshotFile | None) -> Tracks:
        return self.published[parent.number] if parent else {}

    def is_latest(self, parent: SnapshotFile | None) -> bool:
        return (parent.number if parent else -1) == len(self.published) - 1


class LocalMachine(SnapshotMachine):
    def new_root(self) -> str:
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        return f"{self.folder}/store"

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


class MemoryMachine(SnapshotMachine):
    is_serial = True

    def new_root(self) -> str:
        return f"memory://{uuid4().hex}/store"

    def teardown(self) -> None:
        fs = fsspec.filesystem("memory")
        if fs.exists(self.root):
            fs.rm(self.root, recursive=True)


BOUNDS = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLocal = LocalMachine.TestCase
TestMemory = MemoryMachine.TestCase
TestLocal.settings = TestMemory.settings = BOUNDS
