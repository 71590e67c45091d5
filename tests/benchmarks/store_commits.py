"""A store of many shards: what a commit, opening, log, verify's lists and a sweep take. Shards are listed, not written.

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

from store.dataset.checksums import StoredFile
from store.dataset.recipe import Recipe
from store.dataset.shards import Shard
from store.dataset.snapshots import (
    INDEX_SCHEMA,
    kept_snapshots,
    latest_snapshot,
    publish,
    put_catalogue,
    snapshot_url,
)
from store.dataset.sweep import sweep
from store.reader import open_snapshot

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


def fill(root: str, shards: int) -> list[float]:
    """Publish all shards; return the seconds of each commit."""
    random, seconds = np.random.default_rng(0), []
    ids = [f"{it:08d}" for it in range(shards * TRACKS_PER_SHARD)]
    catalogue = put_catalogue(root, pa.table({"track_id": ids}))
    columns = random_columns(TRACKS_PER_SHARD * SHARDS_PER_COMMIT, random)
    parent = None
    for first in range(0, shards, SHARDS_PER_COMMIT):
        some = some_shards(first, min(SHARDS_PER_COMMIT, shards - first), random)
        index = index_of(some, columns)
        started = time.perf_counter()
        parent = publish(
            root,
            parent=parent,
            shards=some,
            index=index,
            catalogue=catalogue,
            recipe=RECIPE,
            settings={},
        )
        seconds.append(time.perf_counter() - started)
    for shard in range(shards):
        Path(root, "shards", f"20260101T000000-{shard:032x}").mkdir(parents=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100_000)
    shards = parser.parse_args().shards
    with tempfile.TemporaryDirectory() as folder:
        root = f"{folder}/store"
        with timed(f"{shards:,} shards in commits of {SHARDS_PER_COMMIT}"):
            seconds = fill(root, shards)
        print(
            f"a commit: mean {1000 * np.mean(seconds):.0f} ms, last 100 {1000 * np.mean(seconds[-100:]):.0f} ms, "
            f"slowest {1000 * max(seconds):.0f} ms"
        )
        latest = latest_snapshot(root)
        assert latest is not None
        size = Path(snapshot_url(root, latest.number)).stat().st_size
        total = sum(it.stat().st_size for it in Path(root).rglob("*.*") if it.is_file())
        print(
            f"snapshot file {size / 1024:.0f} KiB, {len(latest.index)} parts of the index, "
            f"{len(latest.files)} lists of files, {total / 2**30:.2f} GiB in all"
        )
        with timed("the latest snapshot"):
            latest_snapshot(root)
        with timed("all snapshots, as log and sweep read them"):
            assert sum(1 for _ in kept_snapshots(root)) == len(seconds)
        with timed("a dry sweep"):
            assert sweep(root, grace_s=0, keep_snapshots=1, is_dry_run=True).snapshots
        snapshot = open_snapshot(root)
        with timed(f"where {shards * TRACKS_PER_SHARD:,} tracks are"):
            snapshot.read_index(snapshot.catalogue["track_id"], ["shard", "start_frame", "frames"])


if __name__ == "__main__":
    main()
