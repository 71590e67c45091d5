"""Publish, crash, retry, race, sweep, tag, read: a dataset behaves like a list of dicts, whatever its writers meet."""

import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from store.dataset import snapshots
from store.dataset.recipe import Recipe
from store.dataset.shards import Shard
from store.dataset.snapshot_tags import put_tag, read_tags, remove_tag
from store.dataset.snapshots import (
    SnapshotFile,
    kept_snapshots,
    latest_snapshot,
    publish,
    put_catalogue,
    snapshot_name,
    snapshot_numbers,
    snapshot_url,
    swept_names,
)
from store.dataset.sweep import Sweep, sweep
from store.dataset.verification import verify
from store.errors import BadInput, CommitConflict
from store.fs.files import join, put_if_absent, read_bytes, remove, write_atomic
from store.reader import Snapshot, open_snapshot
from tests.support.small_shards import CHUNK_BYTES, store_shard
from tests.support.snapshots import index_of
from tests.support.storage_calls import Crashed, dying, overtaken

RECIPE = Recipe({"bands": 8}, "abc", "float16", {"start_s": 0.0, "duration_s": None})
Tracks = dict[str, str]  # the shard of each track
KEEP = st.sampled_from([None, 1, 2])
AT = st.integers(0, 24)


@dataclass(frozen=True)
class Version:
    """The model of a snapshot: the tracks that its catalogue lists, and the shard of each that was ever built."""

    listed: frozenset[str] = frozenset()
    built: tuple[tuple[str, str], ...] = ()

    @property
    def content(self) -> Tracks:
        return {track: shard for track, shard in self.built if track in self.listed}


@dataclass(frozen=True)
class Work:
    """What a writer has stored and not published yet."""

    shard: Shard
    listed: frozenset[str]
    catalogue: str

    def on(self, version: Version) -> Version:
        built = dict(version.built) | dict.fromkeys(self.shard.starts, self.shard.name)
        return Version(self.listed, tuple(built.items()))


class SnapshotMachine(RuleBasedStateMachine):
    """Writers with any parent that was ever the latest; `versions`, `kept` and `tags` are the model of the store."""

    parents = Bundle("parents")
    works = Bundle("works")

    def __init__(self) -> None:
        super().__init__()
        self.root = self.new_root()
        self.versions: list[Version] = []  # all that were ever published
        self.kept: set[int] = set()
        self.tags: dict[str, int] = {}
        self.tried: set[int] = set()  # numbers that the tag c is to be put on in this step
        self.tracks_of: dict[str, tuple[str, ...]] = {}  # of each shard

    def new_root(self) -> str:
        raise NotImplementedError

    # Writers

    @rule(target=parents)
    def read_latest(self):
        return latest_snapshot(self.root)

    @rule(target=works)
    def store_without_publishing(self):
        return self.new_work()

    @rule(target=parents, parent=parents, work=works)
    def publish_late(self, parent, work):
        return self.publish(parent, work)

    @rule(target=parents)
    def publish_on_latest(self):
        return self.publish(latest_snapshot(self.root), self.new_work())

    @rule(target=parents, parent=parents)
    def publish_through_a_client_that_repeats_its_request(self, parent):
        """The first request was carried out, its response lost: the second is refused."""

        def put_twice(url: str, data: bytes) -> None:
            put_if_absent(url, data)
            put_if_absent(url, data)

        work = self.new_work()
        with mock.patch.object(snapshots, "put_if_absent", put_twice):
            return self.publish(parent, work)

    @precondition(lambda self: self.versions)
    @rule(keep=KEEP)
    def sweep(self, keep):
        self.record_sweep(sweep(self.root, grace_s=0, keep_snapshots=keep, is_dry_run=False))

    @precondition(lambda self: self.versions)
    @rule(keep=KEEP)
    def sweep_nothing_young(self, keep):
        before = self.kept.copy()
        result = sweep(self.root, grace_s=3600, keep_snapshots=None, is_dry_run=False)
        assert (result.files, result.snapshots, self.kept) == ((), (), before)

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), name=st.sampled_from(["a", "b"]))
    def tag(self, data, name):
        number = data.draw(st.sampled_from(sorted(self.kept)))
        self.try_tag(number, name)

    @precondition(lambda self: self.tags)
    @rule()
    def untag(self):
        name, _ = self.tags.popitem()
        remove_tag(self.root, name)

    # What befalls them

    @rule(at=st.integers(0, 8), moment=st.sampled_from(["before", "amid", "after"]), data=st.data())
    def crash(self, at, moment, data):
        """A writer dies at one of its changes; whoever comes next does not know."""
        act = data.draw(self.actions())
        self.tried.clear()
        try:
            with dying(at, moment):
                act()
        except Crashed:
            self.find_out()

    @rule(at=AT, data=st.data())
    def overtake(self, at, data):
        """Between two calls of one writer, another does all of its work."""
        outer, inner = data.draw(self.actions()), data.draw(self.actions())
        overtaker: list[Callable[[], None]] = [inner]

        def act() -> None:
            if overtaker:
                self.notice_sweep()
                overtaker.pop()()

        self.tried.clear()
        with overtaken(at, act):
            outer()
        self.find_moved_tag()

    @rule(target=parents, parent=parents)
    def race(self, parent):
        """Two writers of the same tracks reach the last write at the same instant: exactly one wins, either one."""
        first = self.new_work()
        works = [first, self.new_work(tuple(first.shard.starts))]
        barrier = threading.Barrier(2, timeout=10)
        lock = threading.Lock()

        def put_together(url: str, data: bytes) -> None:
            if "/snapshots/" in url:
                barrier.wait()
            with lock if self.is_serial else nullcontext():
                put_if_absent(url, data)

        def write(work: Work) -> SnapshotFile | None:
            try:
                return self.write(parent, work)
            except CommitConflict:
                return None

        with mock.patch.object(snapshots, "put_if_absent", put_together), ThreadPoolExecutor(2) as pool:
            results = list(pool.map(write, works))
        won = [(work, result) for work, result in zip(works, results, strict=True) if result is not None]
        assert len(won) == self.is_latest(parent)
        if not won:
            return multiple()
        self.add(won[0][0].on(self.latest_version))
        return won[0][1]

    is_serial = False  # a file system whose create is no single step, as the memory of one process

    @precondition(lambda self: self.versions and self.latest_version.content)
    @rule(data=st.data(), change=st.sampled_from(["flip", "truncate", "remove"]))
    def damage_and_repair(self, data, change):
        """Verifying names the tracks of a damaged file, and no other; what was built again needs it no longer."""
        content = self.latest_version.content
        shard = data.draw(st.sampled_from(sorted(set(content.values()), key=self.number_of)))
        url = join(self.root, "shards", shard, "c", "0", "0")
        before = read_bytes(url)
        tracks = self.tracks_of[shard]
        damaged = set(tracks)
        match change:
            case "flip":
                at = data.draw(st.integers(0, len(before) - 1))
                write_atomic(url, before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
                if at < CHUNK_BYTES * len(tracks):
                    damaged = {tracks[at // CHUNK_BYTES]}
            case "truncate":
                write_atomic(url, before[: data.draw(st.integers(0, len(before) - 1))])
            case "remove":
                remove(url)
        damaged &= {track for track, its_shard in content.items() if its_shard == shard}
        found = verify(Snapshot(self.root, latest_snapshot(self.root)), threads=1)
        assert len({it.path for it in found.damages}) == 1
        assert found.tracks == sorted(damaged)
        if damaged:
            self.publish(latest_snapshot(self.root), self.new_work(tuple(sorted(damaged))))
        assert verify(Snapshot(self.root, latest_snapshot(self.root)), threads=1).tracks == []
        write_atomic(url, before)

    # Readers

    @invariant()
    def the_store_is_as_the_model(self):
        assert snapshot_numbers(self.root) == list(range(len(self.versions)))
        assert {it.number for it in kept_snapshots(self.root)} == self.kept
        assert read_tags(self.root) == self.tags
        assert set(self.tags.values()) <= self.kept

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def read_any(self, data):
        number = data.draw(st.sampled_from(sorted(self.kept)))
        snapshot = open_snapshot(snapshot_url(self.root, number))
        columns = snapshot.read_index(pa.chunked_array([snapshot.track_ids], pa.string()), ["shard"])
        found = dict(zip(snapshot.track_ids, columns["shard"].to_pylist(), strict=True))
        assert found == self.versions[number].content
        assert verify(snapshot, threads=1).damages == (), "what was published is whole"

    @precondition(lambda self: len(self.kept) < len(self.versions))
    @rule()
    def read_what_was_removed(self):
        removed = min(set(range(len(self.versions))) - self.kept)
        with pytest.raises(BadInput, match="a sweep removed this snapshot on"):
            open_snapshot(snapshot_url(self.root, removed))

    def teardown(self) -> None:
        for number in self.kept:
            assert verify(open_snapshot(snapshot_url(self.root, number)), threads=1).damages == ()
        self.remove_root()

    # The steps of a writer, and the model

    def actions(self) -> st.SearchStrategy[Callable[[], None]]:
        publishing = st.just(lambda: self.publish(latest_snapshot(self.root), self.new_work()) and None)
        if not self.versions:
            return publishing
        tagging = st.sampled_from(sorted(self.kept)).map(lambda number: lambda: self.try_tag(number))
        return st.one_of(publishing, KEEP.map(lambda keep: lambda: self.try_sweep(keep)), tagging)

    def publish(self, parent: SnapshotFile | None, work: Work):
        try:
            snapshot = self.write(parent, work)
        except CommitConflict:
            latest = latest_snapshot(self.root)
            names = {f"shards/{work.shard.name}", work.catalogue}
            assert not self.is_latest(parent) or names & swept_names(self.root, latest), "nobody was first"
            return multiple()
        assert snapshot.number == len(self.versions), "the parent was the latest when it was published"
        self.add(work.on(self.latest_version))
        return snapshot

    def try_sweep(self, keep: int | None) -> None:
        self.record_sweep(sweep(self.root, grace_s=0, keep_snapshots=keep, is_dry_run=False))

    def try_tag(self, number: int, name: str = "c") -> None:
        """Put a tag; of a snapshot that a sweep removes, or was about to when it died, it is refused."""
        self.tried.add(number)
        try:
            put_tag(self.root, name, number, move=True)
            self.tags[name] = number
        except BadInput:
            assert snapshot_name(number) in swept_names(self.root, latest_snapshot(self.root)) or (
                number not in self.kept
            )

    def write(self, parent: SnapshotFile | None, work: Work) -> SnapshotFile:
        return publish(
            self.root,
            parent=parent,
            shards=[work.shard],
            index=index_of(work.shard),
            catalogue=work.catalogue,
            recipe=RECIPE,
            settings={},
        )

    def new_work(self, tracks: tuple[str, ...] = ()) -> Work:
        number = len(self.tracks_of)
        name = f"shard {number}"
        self.tracks_of[name] = tracks = tracks or (f"track {number}", f"other track {number}")
        shard = store_shard(self.root, name, tracks)
        listed = self.latest_version.listed | set(tracks)
        return Work(shard, listed, put_catalogue(self.root, pa.table({"track_id": sorted(listed)})))

    @staticmethod
    def number_of(shard: str) -> int:
        """Return the number of a shard: whoever wins a race, the order is the same, and hypothesis draws the same."""
        return int(shard.removeprefix("shard "))

    def add(self, version: Version) -> None:
        self.kept.add(len(self.versions))
        self.versions.append(version)

    def notice_sweep(self) -> None:
        """Add the snapshot of a sweep that is not over: it has the content of the one before it."""
        latest = latest_snapshot(self.root)
        if latest is not None and latest.number == len(self.versions) and latest.kind == "sweep":
            self.add(self.latest_version)

    def record_sweep(self, result: Sweep) -> None:
        self.notice_sweep()
        moving = {"c"} if self.tried else set()  # what a tag named protects nothing once it names another one
        tagged = {number for name, number in self.tags.items() if name not in moving}
        assert not set(result.snapshots) & {*tagged, len(self.versions) - 1}
        self.kept -= set(result.snapshots)

    def find_moved_tag(self) -> None:
        """Of two that move one tag at once either may come last; if the one is refused, the tag may be lost."""
        if self.tried:
            tag = read_tags(self.root).get("c")
            assert tag in {*self.tried, self.tags.pop("c", None), None}
            if tag is not None:
                self.tags["c"] = tag
        self.tried.clear()

    def find_out(self) -> None:
        """Find out what a writer that died had done."""
        numbers = snapshot_numbers(self.root)
        assert len(numbers) - len(self.versions) in (0, 1)
        if len(numbers) > len(self.versions):
            snapshot = Snapshot(self.root, latest_snapshot(self.root))
            index = snapshot.read_index(snapshot.catalogue["track_id"], ["shard"])["shard"].to_pylist()
            found = dict(zip(snapshot.catalogue["track_id"].to_pylist(), index, strict=True))
            added = {**dict(self.latest_version.built), **{it: shard for it, shard in found.items() if shard}}
            self.add(Version(frozenset(found), tuple(added.items())))
        self.find_moved_tag()
        gone = self.kept - {it.number for it in kept_snapshots(self.root)}
        assert not gone & {*self.tags.values(), len(self.versions) - 1}
        self.kept -= gone

    @property
    def latest_version(self) -> Version:
        return self.versions[-1] if self.versions else Version()

    def is_latest(self, parent: SnapshotFile | None) -> bool:
        return (parent.number if parent else -1) == len(self.versions) - 1

    def remove_root(self) -> None:
        fs, path = fsspec.url_to_fs(self.root)
        if fs.exists(path):
            fs.rm(path, recursive=True)


class LocalMachine(SnapshotMachine):
    def new_root(self) -> str:
        self.folder = tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        return f"{self.folder}/store"

    def remove_root(self) -> None:
        shutil.rmtree(self.folder)


class MemoryMachine(SnapshotMachine):
    is_serial = True

    def new_root(self) -> str:
        return f"memory://{uuid4().hex}/store"


def bounds(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_local():
    run_state_machine_as_test(LocalMachine, settings=bounds(12, 12))


def test_memory():
    run_state_machine_as_test(MemoryMachine, settings=bounds(12, 12))


def test_s3(s3_url):
    class S3Machine(SnapshotMachine):
        def new_root(self) -> str:
            return f"{s3_url}/{uuid4().hex}"

    run_state_machine_as_test(S3Machine, settings=bounds(2, 6))


@pytest.mark.soak
@pytest.mark.parametrize("machine", [LocalMachine, MemoryMachine])
def test_many_more(machine):
    run_state_machine_as_test(machine, settings=bounds(1_500, 30))
