"""A store of many shards: what a commit, opening, log and a sweep take. Shards are listed, not written.

python -m tests.benchmarks.store_commits --shards 100000
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from store.dataset.checksums import StoredFile, files_table
from store.dataset.parts import MERGED_ROWS, put_part
from store.dataset.recipe import Recipe
from store.dataset.shards import Shard
from store.dataset.snapshots import (
    INDEX_SCHEMA,
    SnapshotFile,
    commit,
    kept_snapshots,
    latest_snapshot,
    publish,
    put_catalogue,
    snapshot_url,
)
from store.dataset.sweep import sweep

TRACKS_PER_SHARD, SHARDS_PER_COMMIT, CHUNKS, FRAMES = 64, 32, 256, 1_024
RECIPE = Recipe({"bands": 128}, "abc", "float16", {})


@contextmanager
def timed(what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<50}{time.perf_counter() - started:9.3f} s, peak so far {peak_mib:,.0f} MiB", flush=True)


def some_shards(first: int, count: int, random: np.random.Generator) -> list[Shard]:
    shards = []
    for number in range(first, first + count):
        ids = [f"{TRACKS_PER_SHARD * number + it:08d}" for it in range(TRACKS_PER_SHARD)]
        sums = tuple(random.integers(0, 2**32, CHUNKS).tolist())
        files = (
            StoredFile("c/0/0", 1 << 24, 1, FRAMES, sums),
            StoredFile("zarr.json", 4_000, 1, None, None),
        )
        starts = {track_id: FRAMES * it for it, track_id in enumerate(ids)}
        shards.append(Shard(f"20260101T000000-{number:032x}", starts, dict.fromkeys(ids, FRAMES), files))
    return shards


def index_of(shards: list[Shard], random: pa.Table) -> pa.Table:
    """Return the rows of some shards; all but ids and places are the columns of `random`."""
    columns = {
        "track_id": pa.array([it for shard in shards for it in shard.starts]),
        "status": pa.array(["ok"] * TRACKS_PER_SHARD * len(shards)),
        "shard": pa.array([shard.name for shard in shards for _ in shard.starts]),
        "start_frame": pa.array([it for shard in shards for it in shard.starts.values()]),
    }
    rows = random.slice(0, TRACKS_PER_SHARD * len(shards))
    return pa.table(
        {it.name: columns.get(it.name, rows[it.name]) for it in INDEX_SCHEMA}, schema=INDEX_SCHEMA
    )


def random_columns(count: int, random: np.random.Generator) -> pa.Table:
    columns = {
        "frames": [FRAMES] * count,
        "decoded_s": random.uniform(29, 31, count),
        "signature": [f"{it}-{it}" for it in random.integers(0, 2**40, count).tolist()],
        "sha256": [random.bytes(32) for _ in range(count)],
        "fingerprint": [random.bytes(64) for _ in range(count)],
    }
    return pa.table({it.name: pa.array(columns.get(it.name, [None] * count), it.type) for it in INDEX_SCHEMA})


def fill(root: str, shards: int, columns: pa.Table) -> SnapshotFile:
    """Publish one snapshot that names so many shards, in parts as many commits would have merged them."""
    random = np.random.default_rng(0)
    per_part = MERGED_ROWS // TRACKS_PER_SHARD
    index: list[str] = []
    files: list[str] = []
    listed: list[pa.Table] = []
    for first in range(0, shards, per_part):
        some = some_shards(first, min(per_part, shards - first), random)
        index.append(put_part(root, "index", index_of(some, columns)))
        listed.append(files_table({shard.name: shard.files for shard in some}))
        if sum(map(len, listed)) >= MERGED_ROWS or first + per_part >= shards:
            files.append(put_part(root, "files", pa.concat_tables(listed)))
            listed.clear()
    for shard in range(shards):
        Path(root, "shards", f"20260101T000000-{shard:032x}").mkdir(parents=True)
    ids = pa.array([f"{it:08d}" for it in range(shards * TRACKS_PER_SHARD)])
    catalogue = put_catalogue(root, pa.table({"track_id": ids}))
    snapshot = SnapshotFile(
        0, "first", None, "build", "2026-01-01", RECIPE, catalogue, tuple(index), tuple(files), (), {}
    )
    return commit(root, snapshot)


def commit_more(root: str, parent: SnapshotFile, shards: int, commits: int, columns: pa.Table) -> list[float]:
    """Publish on top of a full store, as a build does; return the seconds of each commit."""
    random, seconds = np.random.default_rng(1), []
    for first in range(shards, shards + commits * SHARDS_PER_COMMIT, SHARDS_PER_COMMIT):
        some = some_shards(first, SHARDS_PER_COMMIT, random)
        index = index_of(some, columns)
        started = time.perf_counter()
        parent = publish(
            root,
            parent=latest_snapshot(root),
            shards=some,
            index=index,
            catalogue=parent.catalogue,
            recipe=RECIPE,
            settings={},
        )
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--commits", type=int, default=64)
    settings = parser.parse_args()
    shards, commits = settings.shards, settings.commits
    columns = random_columns(MERGED_ROWS, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/store"
        with timed(f"(making the tables of {shards:,} shards)"):
            first = fill(root, shards, columns)
        seconds = commit_more(root, first, shards, commits, columns)
        print(
            f"a commit of {SHARDS_PER_COMMIT} shards: median {1000 * np.median(seconds):.0f} ms, "
            f"slowest {1000 * max(seconds):.0f} ms"
        )
        latest = latest_snapshot(root)
        assert latest is not None
        size = Path(snapshot_url(root, latest.number)).stat().st_size
        total = sum(Path(root, name).stat().st_size for name in (*latest.index, *latest.files))
        print(
            f"snapshot file {size / 1024:.0f} KiB, {len(latest.index)} parts of the index, "
            f"{len(latest.files)} of files, {total / 2**30:.2f} GiB"
        )
        with timed("the latest snapshot"):
            latest_snapshot(root)
        with timed(f"all {commits + 1} snapshots, as log reads them"):
            assert sum(1 for _ in kept_snapshots(root)) == commits + 1
        with timed("a dry sweep"):
            sweep(root, grace_s=0, keep_snapshots=None, is_dry_run=True)


if __name__ == "__main__":
    main()
