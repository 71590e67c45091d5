"""What a run over a million tracks costs before its first step: choosing tracks, writing the run, opening a rank.

    python -m tests.benchmarks.million_tracks [--tracks 1000000]

A store of that many tracks is made up (catalogue and index as a build writes them, no spectrograms). Each part runs
in a process of its own, on one core. Seconds are of the CPU and exclude imports; memory is the peak of the process,
and what its imports had taken before.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa

from preprocessing.mel.settings import MelSettings
from store.dataset.recipe import Recipe
from store.dataset.snapshots import INDEX_SCHEMA, publish, put_catalogue
from store.reader import open_snapshot
from training.fit.context import make_training_context
from training.fit.distributed import RankContext
from training.fit.epoch import crops_of_steps
from training.fit.run import read_run, run_hash
from training.fit.settings import TrainSettings

MEL, GENRES, TRACKS_PER_SHARD, TRACK_FRAMES = MelSettings(), 16, 64, 1_288
TRAINING = TrainSettings(batch_size=1_024, micro_batch_size=256)


def main() -> None:
    """Measure everything and print it; with a part's name, measure that part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--part", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        measure(*arguments.part)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_store(f"{folder}/store", arguments.tracks)
        for part in PARTS:
            command = [sys.executable, "-m", "tests.benchmarks.million_tracks", "--part", part, folder]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def make_store(root: str, count: int) -> None:
    """Publish a store of tracks that were all built, as a build of so many would: with large random columns."""
    random = np.random.default_rng(0)
    ids = pa.array([f"{number % 1_000:03d}/{number:06d}.mp3" for number in range(count)])
    genres = np.array([f"Genre {number}" for number in range(GENRES)])[random.integers(GENRES, size=count)]
    second = np.array([f"Genre {number}" for number in range(GENRES)])[random.integers(GENRES, size=count)]
    offsets = np.arange(count + 1, dtype=np.int32) * 2
    lists = pa.ListArray.from_arrays(offsets, pa.array(np.stack([genres, second], axis=1).ravel()))
    splits = np.array(["training", "validation", "test"])[random.choice(3, count, p=(0.8, 0.1, 0.1))]
    artists = [f"Artist {number}" for number in random.integers(count // 8 + 1, size=count)]
    columns = {"track_id": ids, "split": splits, "genre_top": genres, "genres": lists, "artist": artists}
    catalogue = put_catalogue(root, pa.table(columns))
    shards = np.arange(count) // TRACKS_PER_SHARD
    names = np.array([f"20261128T000000-{number:032x}" for number in range(shards[-1] + 1)])
    index = {
        "track_id": ids,
        "status": ["ok"] * count,
        "shard": names[shards],
        "start_frame": np.arange(count) % TRACKS_PER_SHARD * TRACK_FRAMES,
        "frames": np.full(count, TRACK_FRAMES),
        "sha256": _random_binary(random, count, 32),
        "fingerprint": _random_binary(random, count, 64),
    }
    rows = pa.table(
        [
            pa.array(index[it.name], it.type) if it.name in index else pa.nulls(count, it.type)
            for it in INDEX_SCHEMA
        ],
        schema=INDEX_SCHEMA,
    )
    recipe = Recipe(MEL.model_dump(), MEL.settings_hash, "uint8", {})
    publish(root, parent=None, shards=[], index=rows, catalogue=catalogue, recipe=recipe, settings={})


def _random_binary(random: np.random.Generator, count: int, width: int) -> pa.Array:
    content = pa.py_buffer(random.bytes(count * width))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, content])


def prepare(folder: str) -> str:
    """Open the snapshot, choose the tracks and write the folder of a run: once, in the flow's process."""
    from flows.settings import TrainModelSettings  # a rank imports none of it
    from flows.train_model import prepare_run

    settings = TrainModelSettings(store=f"{folder}/store", models=f"{folder}/models", training=TRAINING)
    run_folder, _, tracks = prepare_run(open_snapshot(settings.store), settings)
    Path(folder, "run").write_text(run_folder)
    return f"{len(tracks):,} tracks"


def open_rank(folder: str) -> str:
    """Read the run, locate its tracks and check its hash: in each rank."""
    run, tracks = read_run(Path(folder, "run").read_text())
    run_hash(run, tracks)
    context = make_training_context(
        run, tracks, open_snapshot(run.snapshot_url), RankContext(), lambda event: None
    )
    return f"{context.steps:,} steps an epoch"


def plan(folder: str) -> str:
    """Plan an epoch of a rank: what a resumed run repeats."""
    run, tracks = read_run(Path(folder, "run").read_text())
    context = make_training_context(
        run, tracks, open_snapshot(run.snapshot_url), RankContext(), lambda event: None
    )
    began = time.process_time()
    steps = crops_of_steps(context, 1)
    return f"of these {time.process_time() - began:.2f} s for the plan of {len(steps):,} steps"


PARTS: dict[str, Callable[[str], str]] = {"prepare": prepare, "open_rank": open_rank, "plan": plan}


def measure(part: str, folder: str) -> None:
    """Run a part, print its time and its peak of memory."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    if part == "prepare":
        import_module("flows.train_model")
    before_mib = peak_mib()
    began = time.process_time()
    result = PARTS[part](folder)
    seconds = time.process_time() - began
    print(f"{part}: {seconds:.2f} s, peak {peak_mib()} MiB, of which imports {before_mib} MiB; {result}")


def peak_mib() -> int:
    """Return the peak of memory of this program; getrusage would count what it was started from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


if __name__ == "__main__":
    main()
