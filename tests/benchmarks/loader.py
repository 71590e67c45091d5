"""Crops per second of the loader and of other readers, interleaved, on one core, in one run.

    python -m tests.benchmarks.loader [--encodings uint8 float16] [--tracks 1500] [--rounds 5]

The loader is measured as training uses it: plan of an epoch, reading, batches ready to be sent. All read the same
tracks (30 s, 128 bands) from a warm page cache, crops of 4 s in batches of 256. Times are of the CPU, so that what
else runs on the machine counts for less; ratios are taken within a round, and their median is printed. Two threads
against one, and a cold cache, are measured by the clock.

Peers that are not installed are left out: pip install webdataset mosaicml-streaming litdata tensorstore xarray
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from store.dataset.concatenation import link_concatenation
from store.dataset.shards import decode_db, encode_db
from store.reader import Snapshot
from tests.benchmarks.epoch_plan import BATCH_SIZE, CROP_FRAMES, CROPS_PER_TRACK, MEL, TRACK_FRAMES, plan
from tests.benchmarks.loader_peers import STREAMING, Epoch, Shape
from tests.support.snapshots import publish_mels
from training.loading.batches import BatchMemory, read_ahead, read_batch
from training.loading.crops import Tracks

MEMORY = BatchMemory()
SLOW_CROPS = 512


def main() -> None:
    """Measure every encoding and print its table; the last line is of the first encoding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encodings", nargs="+", default=["uint8", "float16"])
    parser.add_argument("--tracks", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"{TRACK_FRAMES} frames a track, {CROP_FRAMES} a crop, {arguments.tracks} tracks, {len(cores)} cores"
    )
    lines = []
    for encoding in arguments.encodings:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measure(Path(folder), encoding, arguments.tracks, arguments.rounds, cores))
    print(lines[0])


def measure(folder: Path, encoding: str, count: int, rounds: int, cores: list[int]) -> str:
    """Print the table of one encoding; return its summary in one line."""
    mels = dict(make_mels(count))
    table = pa.table({"track_id": list(mels)})
    snapshot = publish_mels(str(folder / "store"), mels, table, MEL, encoding)
    tracks = Tracks(table["track_id"], snapshot.locate(table["track_id"]), np.eye(count, 16, dtype=np.int8))
    stored = [encode_db(mel_FM, encoding) for mel_FM in mels.values()]
    readers = open_readers(folder, snapshot, tracks, stored)
    compare_readers(snapshot, tracks)
    os.sched_setaffinity(0, cores[:1])
    speeds = interleaved(readers, rounds)
    os.sched_setaffinity(0, cores)
    print_table(encoding, speeds)
    turns = [two_threads(partial(loader_epoch, snapshot, tracks)) for _ in range(rounds)]
    copies = [two_threads(copy_epoch) for _ in range(rounds)]
    print(f"two threads / one, by the clock: loader {spread(turns)}; copying memory {spread(copies)}")
    for threads in (1, 16):
        print(
            f"cold page cache, {threads} threads: {cold_speed(folder, snapshot, tracks, threads):,.0f} crops/s"
        )
    print(f"bytes / raw bytes: {stored_bytes(folder / 'store') / sum(it.nbytes for it in stored):.4f}\n")
    return summary(speeds)


def make_mels(count: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield tracks whose levels vary along time and bands as music's do: noise of random colour."""
    random = np.random.default_rng(0)
    slope_M = np.linspace(0, -50, MEL.bands, dtype=np.float32)
    for number in range(count):
        mel_FM = random.standard_normal((TRACK_FRAMES, MEL.bands), np.float32) * 6 + slope_M - 20
        yield f"{number:06d}", mel_FM


def open_readers(
    folder: Path, snapshot: Snapshot, tracks: Tracks, stored: list[NDArray[Any]]
) -> dict[str, Epoch]:
    """Return a function that yields the batches of an epoch, for each reader that is installed."""
    memmap = np.lib.format.open_memmap(
        folder / "all.npy", "w+", stored[0].dtype, (len(stored), *stored[0].shape)
    )
    for row, mel_FM in enumerate(stored):
        memmap[row] = mel_FM
    memmap.flush()
    readers: dict[str, Epoch] = {
        "loader": partial(loader_epoch, snapshot, tracks, threads=1),
        "memmap": partial(memmap_epoch, np.load(folder / "all.npy", mmap_mode="r"), tracks),
        "zarr-python": partial(sliced_epoch, open_with_zarr(snapshot, tracks), tracks),
    }
    if importlib.util.find_spec("tensorstore"):
        readers["tensorstore"] = partial(sliced_epoch, open_with_tensorstore(snapshot, tracks), tracks)
    shape = Shape(CROP_FRAMES, CROPS_PER_TRACK, BATCH_SIZE)
    for name, (module, make) in STREAMING.items():
        if importlib.util.find_spec(module):
            readers[name] = make(folder / name, stored, shape)
    return readers


def loader_epoch(snapshot: Snapshot, tracks: Tracks, *, threads: int) -> Iterator[Any]:
    """Read an epoch as training does."""
    crops = plan(tracks, time.perf_counter_ns() % 1_000)
    steps = [crops[first : first + BATCH_SIZE] for first in range(0, len(crops), BATCH_SIZE)]
    read = partial(read_batch, snapshot.reader, tracks, crop_frames=CROP_FRAMES, memory=MEMORY)
    for batch in read_ahead(lambda it: read(crops=it), steps, threads=threads):
        yield batch.mel_BFM, batch.target_BG


def memmap_epoch(memmap: NDArray[Any], tracks: Tracks) -> Iterator[Any]:
    """Copy each crop out of one mapped array: what a loader can reach without a store."""
    crops = plan(tracks, time.perf_counter_ns() % 1_000)
    for first in range(0, len(crops), BATCH_SIZE):
        batch = crops[first : first + BATCH_SIZE]
        out_BFM = np.empty((BATCH_SIZE, CROP_FRAMES, MEL.bands), memmap.dtype)
        pairs = zip(batch.track_N.tolist(), batch.start_N.tolist(), strict=True)
        for row, (track, start) in enumerate(pairs):
            out_BFM[row] = memmap[track, start : start + CROP_FRAMES]
        yield (out_BFM,)


def sliced_epoch(slice_of: Callable[[int, int], NDArray[Any]], tracks: Tracks) -> Iterator[Any]:
    """Read some crops one by one through a library's own slicing."""
    crops = plan(tracks, time.perf_counter_ns() % 1_000)
    for first in range(0, SLOW_CROPS, 64):
        batch = crops[first : first + 64]
        yield np.stack(
            [slice_of(*it) for it in zip(batch.track_N.tolist(), batch.start_N.tolist(), strict=True)]
        )


def open_with_zarr(snapshot: Snapshot, tracks: Tracks) -> Callable[[int, int], NDArray[Any]]:
    """Open the shard with zarr-python."""
    array = zarr.open_array(f"{snapshot.root}/shards/{tracks.locations.shards[0]}", mode="r")
    first_T = tracks.locations.start_T.tolist()
    return lambda track, start: np.asarray(
        array[first_T[track] + start : first_T[track] + start + CROP_FRAMES]
    )


def open_with_tensorstore(snapshot: Snapshot, tracks: Tracks) -> Callable[[int, int], NDArray[Any]]:
    """Open the shard with tensorstore."""
    import tensorstore

    path = f"{snapshot.root}/shards/{tracks.locations.shards[0]}"
    array = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, read=True
    ).result()
    first_T = tracks.locations.start_T.tolist()
    return lambda track, start: (
        array[first_T[track] + start : first_T[track] + start + CROP_FRAMES].read().result()
    )


def compare_readers(snapshot: Snapshot, tracks: Tracks) -> None:
    """Read one track with every library that is installed, and assert that all find the same numbers."""
    link_concatenation(snapshot.root)
    ours_FM = snapshot.mel(tracks.ids[1].as_py())
    found = {"zarr-python": decode_db(open_with_zarr(snapshot, tracks)(1, 0))}
    if importlib.util.find_spec("tensorstore"):
        found["tensorstore"] = decode_db(open_with_tensorstore(snapshot, tracks)(1, 0))
    if importlib.util.find_spec("xarray"):
        import xarray

        dataset = xarray.open_zarr(snapshot.root)
        first = int(dataset["start_frame"][1])
        found["xarray"] = dataset["mel"][first : first + CROP_FRAMES].values
    for mel_FM in found.values():
        np.testing.assert_allclose(mel_FM, ours_FM[:CROP_FRAMES], rtol=0, atol=1e-4)
    print(f"the same numbers are read by: {', '.join(found)}")


def interleaved(readers: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Return the crops per CPU second of each reader in each round, after one round that is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name, epoch in readers.items():
            began = time.process_time()
            crops = sum(len(batch[0]) for batch in epoch())
            if number:
                speeds[name].append(crops / (time.process_time() - began))
    return speeds


def two_threads(epoch: Callable[..., Iterator[Any]]) -> float:
    """Return how many times the crops of one thread two make in the same time, taken in turns."""
    seconds = {1: 0.0, 2: 0.0}
    for threads in (1, 2, 2, 1):
        began = time.perf_counter()
        for _ in epoch(threads=threads):
            pass
        seconds[threads] += time.perf_counter() - began
    return seconds[1] / seconds[2]


def copy_epoch(*, threads: int) -> Iterator[Any]:
    """Copy as many bytes as an epoch: what two threads can gain on this machine as busy as it is."""
    source_BFM = np.ones((BATCH_SIZE, CROP_FRAMES, MEL.bands), np.uint8)
    yield from read_ahead(lambda _: source_BFM.copy(), range(200), threads=threads)


def cold_speed(folder: Path, snapshot: Snapshot, tracks: Tracks, threads: int) -> float:
    """Return the crops per second, by the clock, after the kernel was asked to drop the store's pages."""
    for path in (folder / "store" / "shards").rglob("c/*/0"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    batches = islice(loader_epoch(snapshot, tracks, threads=threads), 20)
    return sum(len(batch[0]) for batch in batches) / (time.perf_counter() - began)


def stored_bytes(store: Path) -> int:
    """Return the size of all objects of a store's shards."""
    return sum(path.stat().st_size for path in store.glob("shards/*/c/*/0"))


def ratios_to(speeds: dict[str, list[float]], name: str) -> list[float]:
    """Return the speed of the loader by that of another reader, round by round."""
    return [ours / other for ours, other in zip(speeds["loader"], speeds[name], strict=True)]


def print_table(encoding: str, speeds: dict[str, list[float]]) -> None:
    """Print the median speed of each reader, and how many times it the loader is."""
    print(f"\n{encoding:20} crops/s   loader is ... times it (least to greatest of the rounds)")
    for name, of_rounds in speeds.items():
        print(f"{name:18} {statistics.median(of_rounds):9,.0f}   {spread(ratios_to(speeds, name))}")


def spread(values: list[float]) -> str:
    """Return the median of some values, the least and the greatest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def summary(speeds: dict[str, list[float]]) -> str:
    """Return the result in one line; a peer that is not installed is named with what to install."""
    parts = [f"loader {statistics.median(speeds['loader']):.0f} crops/s"]
    for name in ("memmap", "webdataset", "mosaicml-streaming"):
        if name in speeds:
            parts.append(f"{statistics.median(ratios_to(speeds, name)):.2f} times {name}")
        else:
            parts.append(f"{name} not installed (pip install {name})")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
