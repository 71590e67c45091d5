"""What a second worker brings, and what scheduler and flow cost, on real music with real Dask processes.

python -m tests.benchmarks.scaling [--music FOLDER] [--tracks 128] [--rounds 3]
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from flows.cluster.client import Cluster, open_cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.cluster.settings import ClusterSettings
from flows.reporting.build_report import BuildStatistics
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.build.shard_task import Track, build_shard
from preprocessing.decode.settings import LimitSettings
from tests.benchmarks.preprocessing import BUNDLED, STEREO

TRACKS_PER_BATCH = 64
TRACKS_PER_SHARE = 8  # when two workers are compared with one, so that both end together


def build(cluster: Cluster, tracks: list[Track], tracks_per_batch: int) -> tuple[float, BuildStatistics]:
    """Build all tracks on a cluster that is up; give the seconds and what the workers did in them."""
    tally = BuildStatistics()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        for batch, built in fan_out(
            cluster,
            build_shard,
            in_batches(tracks, tracks_per_batch),
            settings=SpectrogramSettings(),
            limits=LimitSettings(),
            root=folder,
        ):
            tally.add(batch, built)
        return time.perf_counter() - begun, tally


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--music", type=Path, default=STEREO if STEREO.exists() else BUNDLED)
    parser.add_argument("--tracks", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    files = [it for it in sorted(arguments.music.rglob("*.mp3")) if it.stat().st_size > 10_000]
    tracks = [Track(path.stem, str(path.absolute())) for path in files[: arguments.tracks]]
    with ExitStack() as stack:
        one, two = (stack.enter_context(open_cluster(ClusterSettings(workers=workers))) for workers in (1, 2))
        for cluster in (one, two):
            build(cluster, tracks[:32], 4)  # starts the decoding processes
        ratios, overheads = [], []
        for _ in range(arguments.rounds):
            alone_s, _ = build(one, tracks, TRACKS_PER_SHARE)
            both_s, _ = build(two, tracks, TRACKS_PER_SHARE)
            ratios.append(alone_s / both_s)
            wall_s, tally = build(one, tracks, TRACKS_PER_BATCH)
            busy_s = sum(share.busy_s for share in tally.workers.values())
            overheads.append((wall_s - busy_s) / wall_s)
    print(f"\n{len(tracks)} MP3s, {arguments.rounds} rounds in turn")
    summary = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"two workers against one, batches of {TRACKS_PER_SHARE}: {summary} times the speed")
    summary = f"{statistics.median(overheads):.1%} ({min(overheads):.1%} to {max(overheads):.1%})"
    print(f"scheduler and flow, batches of {TRACKS_PER_BATCH}, one worker: {summary} of the time")


if __name__ == "__main__":
    main()
