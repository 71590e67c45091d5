"""How far the order of `--training.reading runs` is from true random order, and what it fetches.

    python -m tests.benchmarks.reading_order [--tracks 100000] [--mixed-runs 64 256 1024]

The plans are those of training; nothing is read. Tracks (30 s, float16, 128 bands) lie in the store in the order of
their artist, and artists in the order of their genre: the worst a catalogue can be sorted. An artist has one
genre, and artists have 1 to 40 tracks. Compared: the order in which tracks are stored; the same through a
buffer of 10,000 crops that mixes them, as streaming loaders have; runs; true random order. Printed for each:

- the autocorrelation of labels at lag 1, 8 and 64: the probability that two crops so far apart have the same genre (or
  artist), beyond that of any two, as a share of 1 minus it. 0 is random; sampling error is about 0.001 here.
- distinct tracks, artists and the largest share of one genre in a batch of 256: means over batches.
- GiB fetched in one epoch through a cache that holds 2.5 times the runs that are mixed, by the size of the store.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.dataset.frame_reader import Locations
from store.dataset.object_ranges import BLOCK_FRAMES
from tests.benchmarks.epoch_plan import BATCH_SIZE, TRACK_FRAMES, plan
from training.loading.crops import Crops, Tracks
from training.loading.readers import RUNS_IN_CACHE

GENRES, TRACKS_PER_SHARD, BUFFER = 16, 64, 10_000
LAGS = (1, 8, 64)


@dataclass(frozen=True)
class Catalogue:
    """Tracks sorted by genre, then by artist."""

    tracks: Tracks
    genre_T: NDArray[np.int64]
    artist_T: NDArray[np.int64]


def main() -> None:
    """Print a row for each order."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=100_000)
    parser.add_argument("--mixed-runs", type=int, nargs="+", default=[64, 256, 1_024])
    wanted = parser.parse_args()
    catalogue = make_catalogue(wanted.tracks)
    random = plan(catalogue.tracks, mixed_runs=0)
    by_storage = random.take(np.lexsort((random.start_N, random.track_N)))
    orders: dict[str, Callable[[], tuple[Crops, int]]] = {
        "as stored": lambda: (by_storage, 1),
        f"as stored, buffer of {BUFFER:,}": lambda: (by_storage.take(mix_in_buffer(len(random))), 1),
        **{
            f"{runs} runs": lambda runs=runs: (plan(catalogue.tracks, mixed_runs=runs), runs)
            for runs in wanted.mixed_runs
        },
        "random": lambda: (random, wanted.mixed_runs[-1]),
    }
    lags = " ".join(f"{f'lag {lag}':>7}" for lag in LAGS)
    print(f"{'order':28} genre:{lags}   artist:{lags}   tracks artists  genre  GiB / store")
    for name, make in orders.items():
        print(f"{name:28} {describe(catalogue, *make())}")


def make_catalogue(count: int) -> Catalogue:
    """Return tracks of artists of 1 to 40 tracks, of genres that differ tenfold in size."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 41, size=count)
    artist_T = np.repeat(np.arange(count), sizes)[:count]
    share_G = np.geomspace(1, 10, GENRES)
    genre_T = np.searchsorted(np.cumsum(share_G) / share_G.sum(), artist_T / (artist_T[-1] + 1), "right")
    shard_T = (np.arange(count) // TRACKS_PER_SHARD).astype(np.int32)
    start_T = np.arange(count) % TRACKS_PER_SHARD * TRACK_FRAMES
    names = np.arange(shard_T[-1] + 1).astype(object)
    locations = Locations(names, shard_T, start_T, np.full(count, TRACK_FRAMES))
    return Catalogue(Tracks((), locations, np.eye(GENRES, dtype=np.int8)[genre_T]), genre_T, artist_T)


def mix_in_buffer(count: int) -> NDArray[np.int64]:
    """Return the order of crops that pass through a buffer, from which each new one pushes out another."""
    random = np.random.default_rng(1)
    buffer, out = list(range(min(BUFFER, count))), []
    for crop, at in zip(
        range(BUFFER, count), random.integers(BUFFER, size=max(0, count - BUFFER)), strict=True
    ):
        out.append(buffer[at])
        buffer[at] = crop
    return np.array([*out, *random.permutation(buffer)])


def describe(catalogue: Catalogue, crops: Crops, mixed_runs: int) -> str:
    """Return a row of the table."""
    genre_N, artist_N = (label_T[crops.track_N] for label_T in (catalogue.genre_T, catalogue.artist_T))
    correlations = [
        " ".join(f"{autocorrelation(label_N, lag):7.4f}" for lag in LAGS) for label_N in (genre_N, artist_N)
    ]
    tracks, artists = (np.mean(list(distinct(label_N))) for label_N in (crops.track_N, artist_N))
    of_one = np.mean([np.bincount(it).max() / BATCH_SIZE for it in genre_N.reshape(-1, BATCH_SIZE)])
    fetched = fetched_runs(catalogue.tracks.locations, crops, int(RUNS_IN_CACHE * mixed_runs))
    stored = len(catalogue.tracks) * TRACK_FRAMES / BLOCK_FRAMES
    return (
        f"      {correlations[0]}           {correlations[1]}   {tracks:6.1f}  {artists:6.1f} {of_one:6.3f} "
        f"{fetched / stored:10.2f}"
    )


def autocorrelation(label_N: NDArray[np.int64], lag: int) -> float:
    """Return how much more often labels agree at a distance than any two do, as a share of the most possible."""
    by_luck = float(((np.bincount(label_N) / len(label_N)) ** 2).sum())
    return float((np.mean(label_N[lag:] == label_N[:-lag]) - by_luck) / (1 - by_luck))


def distinct(label_N: NDArray[np.integer]) -> Iterator[int]:
    """Yield the number of labels in each batch."""
    for label_B in label_N.reshape(-1, BATCH_SIZE):
        yield len(np.unique(label_B))


def fetched_runs(locations: Locations, crops: Crops, kept_runs: int) -> int:
    """Count the runs that an epoch fetches through a cache of so many runs; the oldest goes first."""
    block_N = (locations.start_T[crops.track_N] + crops.start_N) // BLOCK_FRAMES
    kept: dict[tuple[int, int], None] = {}
    fetched = 0
    for run in zip(locations.shard_T[crops.track_N].tolist(), block_N.tolist(), strict=True):
        if run not in kept:
            if len(kept) >= kept_runs:
                del kept[next(iter(kept))]
            kept[run] = None
            fetched += 1
    return fetched


if __name__ == "__main__":
    main()
