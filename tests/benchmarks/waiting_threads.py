"""How fast a network trains on two threads, alone and beside other work, by how long a waiting thread keeps its core.

    python -m tests.benchmarks.waiting_threads [--seconds 8] [--counts 300000 30000 10000 1000]

`GOMP_SPINCOUNT` is read by libgomp, which torch's CPU builds use; 300,000 is its default. "One busy process" is an
endless loop; "two at once" are two such trainings, of which the slower is shown. On a quiet machine of two cores.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import torch

from training.networks.network import build_model
from training.networks.settings import ModelSettings

THREADS, CROPS, FRAMES, BANDS, GENRES = 2, 16, 252, 128, 4
WARM_UP_STEPS = 3


def main() -> None:
    """Print a line for each count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--counts", type=int, nargs="+", default=[300_000, 30_000, 10_000, 1_000])
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(crops_per_s(options.seconds))
        return
    for count in options.counts:
        alone = slower_of(1, count, options.seconds)
        busy = multiprocessing.Process(target=spin, daemon=True)
        busy.start()
        beside = slower_of(1, count, options.seconds)
        busy.terminate()
        busy.join()
        both = slower_of(2, count, options.seconds)
        print(
            f"GOMP_SPINCOUNT={count:<7} alone {alone:4.0f}, beside one busy process {beside:4.0f}, "
            f"two at once {both:4.0f} crops/s",
            flush=True,
        )


def slower_of(processes: int, count: int, seconds: float, variables: Mapping[str, str] = {}) -> float:
    """Train in so many processes at once, with more variables of the environment; return the speed of the slowest.

    Units: crops a second.
    """
    command = [sys.executable, "-m", "tests.benchmarks.waiting_threads", "--train", f"--seconds={seconds}"]
    environment = os.environ | {"GOMP_SPINCOUNT": str(count)} | variables
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return min(float(each.communicate()[0]) for each in started)


def crops_per_s(seconds: float) -> float:
    """Train the default network on random crops for some seconds; return its speed."""
    torch.set_num_threads(THREADS)
    network = build_model(ModelSettings(name="short-chunk-resnet"), GENRES, BANDS)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, mel_BFM = torch.optim.AdamW(network.parameters()), torch.randn(CROPS, FRAMES, BANDS)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(network(mel_BFM).square().sum())
        optimizer.step()

    for _ in range(WARM_UP_STEPS):
        step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return steps * CROPS / (time.perf_counter() - started)


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


if __name__ == "__main__":
    main()
