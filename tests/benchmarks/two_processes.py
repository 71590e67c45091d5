"""How much more two processes train than one: the product's loop, and a bare torch loop, in the same minutes.

    python -m tests.benchmarks.two_processes [--rounds 5] [--steps 20]

What a second core adds depends on the machine and the hour, so each round measures in turn, of the product's loop and
of a bare one (forward, backward, clip, step over crops in memory): one process alone; two processes of one job (DDP
over gloo); two jobs of a process each at the same time, which share nothing. Every process has one thread and a core
of its own. A step has 32 crops of the default network, in all processes together.

The last line is the ratio of ratios: (two processes / one, product) / (two processes / one, bare). At 1, what is
missing to 2 is the machine's and DDP's, not the product's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch.nn.utils import clip_grad_norm_

from preprocessing.mel.settings import MelSettings
from store.reader import open_snapshot
from tests.support.processes import free_port
from tests.support.snapshots import publish_mels
from training.fit.checkpoint import EpochProgress
from training.fit.context import TrainingContext, make_training_context
from training.fit.distributed import RankContext
from training.fit.epoch import crops_of_steps, read_crops_of_step, train_epoch
from training.fit.run import TrainingRun, read_run, write_run
from training.fit.settings import AugmentSettings, TrainSettings
from training.fit.step import genre_loss
from training.fit.train_state import TrainState, make_train_state
from training.loading.batches import to_db

MEL, TRACKS, BATCH_SIZE = MelSettings(), 9, 32  # the last track is for validation
LOOPS, MODES = ("product", "bare"), ("one", "two", "independent")


def main() -> None:
    """Measure both loops in turns and print medians; with a worker's arguments, be a worker."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--worker", nargs=5, default=None, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.worker:
        work(*wanted.worker[:2], *map(int, wanted.worker[2:]))
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two processes need two cores; this process may use one")
    speeds: dict[tuple[str, str], list[float]] = {(loop, mode): [] for loop in LOOPS for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        write_data(folder, wanted.steps)
        for _ in range(wanted.rounds):
            for loop, mode in speeds:
                speeds[loop, mode].append(measure(folder, loop, mode, cores, wanted.steps))
    print_results(speeds)


def write_data(folder: str, steps: int) -> None:
    """Publish random spectrograms, and write a run whose epochs have so many steps."""
    random = np.random.default_rng(0)
    frames = MEL.count_frames(30.0)
    mels = {f"{it}": random.normal(-30, 6, (frames, MEL.bands)).astype(np.float32) for it in range(TRACKS)}
    snapshot = publish_mels(f"{folder}/store", mels, pa.table({"track_id": list(mels)}), MEL)
    tracks = pa.table(
        {
            "track_id": list(mels),
            "split": ["training"] * (TRACKS - 1) + ["validation"],
            "target": pa.array([[it % 2, 1 - it % 2] for it in range(TRACKS)], pa.list_(pa.int8())),
        }
    )
    settings = TrainSettings(
        batch_size=BATCH_SIZE,
        crops_per_track=steps * BATCH_SIZE // (TRACKS - 1),
        augment=AugmentSettings(masks=0, gain_db=0, tone_db=0),
    )
    run = TrainingRun(
        snapshot_url=snapshot.url, mel_fingerprint=MEL.settings_hash, genres=("a", "b"), settings=settings
    )
    write_run(f"{folder}/run", run, tracks)


def measure(folder: str, loop: str, mode: str, cores: list[int], steps: int) -> float:
    """Return the crops per second, by the clock, of all processes of one mode."""
    processes, world_size = (1 if mode == "one" else 2), (2 if mode == "two" else 1)
    port = free_port()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.two_processes", "--worker", folder, loop]
            + [str(it) for it in (rank if world_size > 1 else 0, world_size, port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda rank=rank: os.sched_setaffinity(0, {cores[rank]}),
        )
        for rank in range(processes)
    ]
    for worker in workers:  # they begin together
        worker.stdout.readline()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    seconds = [float(worker.communicate()[0]) for worker in workers]
    jobs = processes // world_size
    return jobs * steps * BATCH_SIZE / statistics.mean(seconds)


def work(folder: str, loop: str, rank: int, world_size: int, port: int) -> None:
    """Make an epoch of steps that is not counted, wait for the word, make another, and print its seconds."""
    torch.set_num_threads(1)
    rank_context = RankContext(rank, world_size)
    if world_size > 1:
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
        )
    run, tracks = read_run(f"{folder}/run")
    snapshot = open_snapshot(run.snapshot_url)
    context = make_training_context(run, tracks, snapshot, rank_context, lambda event: None)
    train_state = make_train_state(run, MEL.bands, rank_context)
    epochs = product_epochs(context, train_state) if loop == "product" else bare_epochs(context, train_state)
    next(epochs)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    next(epochs)
    print(time.perf_counter() - began)
    if world_size > 1:
        dist.destroy_process_group()


def product_epochs(context: TrainingContext, train_state: TrainState) -> Iterator[None]:
    """Train as the product does, an epoch at a time."""
    for epoch in (1, 2):
        train_epoch(context, train_state, epoch, EpochProgress(), lambda progress: None)
        yield


def bare_epochs(context: TrainingContext, train_state: TrainState) -> Iterator[None]:
    """Make the same steps on crops that are in memory, with nothing around them."""
    settings, model, optimizer = context.settings, train_state.ddp_model.train(), train_state.optimizer
    steps = [
        [(to_db(it.mel_BFM), it.target_BG) for it in batch.micro_batches(settings.micro_batch_size)]
        for batch in (read_crops_of_step(context, crops) for crops in crops_of_steps(context, 1))
    ]
    while True:
        for micro_batches in steps:
            optimizer.zero_grad(set_to_none=True)
            for number, (mel_BFM, target_BG) in enumerate(micro_batches, start=1):
                is_last = number == len(micro_batches) or context.rank_context.world_size == 1
                with nullcontext() if is_last else model.no_sync():  # type: ignore[operator]
                    (genre_loss(model(mel_BFM), target_BG, settings) / len(micro_batches)).backward()
            clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
        yield


def print_results(speeds: dict[tuple[str, str], list[float]]) -> None:
    """Print medians, and ratios that were taken within a round."""
    for loop in LOOPS:
        one, two, independent = (speeds[loop, mode] for mode in MODES)
        print(
            f"{loop:8} one process {statistics.median(one):.1f} crops/s; two / one {spread(ratios(two, one))}; two "
            f"independent jobs / one {spread(ratios(independent, one))}; two / two independent jobs "
            f"{spread(ratios(two, independent))}"
        )
    gains = [ratios(speeds[loop, "two"], speeds[loop, "one"]) for loop in LOOPS]
    print(f"two / one, product / bare: {spread(ratios(*gains))}")


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Return ratios, round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def spread(values: list[float]) -> str:
    """Return the median of some values, the least and the greatest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
