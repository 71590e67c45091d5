"""How fast a network trains with the memory settings of Dask's workers, and with ours.

    python -m tests.benchmarks.worker_memory [--seconds 8] [--rounds 3]

Two threads on a quiet machine; the best of the rounds, which take turns. glibc alone is what `python -m training` has.
"""

import argparse

from flows.cluster.worker_memory import KEPT_BYTES
from tests.benchmarks.waiting_threads import slower_of

SPIN_COUNT = 10_000  # as the training hosts set it
SETTINGS = {
    "Dask's": {"MALLOC_TRIM_THRESHOLD_": "65536"},
    "glibc alone": {},
    "ours": {variable: str(size_bytes) for (_, variable), size_bytes in KEPT_BYTES.items()},
}


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(options.rounds):
        for name, variables in SETTINGS.items():
            speeds[name].append(slower_of(1, SPIN_COUNT, options.seconds, variables))
    for name, each in speeds.items():
        print(f"{name:12} {max(each):4.0f} crops/s")


if __name__ == "__main__":
    main()
