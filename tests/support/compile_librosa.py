"""Compile what librosa has numba compile, in one process: `python -m tests.support.compile_librosa`.

Several test processes that come to it at once compile the same for 10 s each, and one crashed in code that two had
cached at the same moment.
"""

import numpy as np

from preprocessing.features.librosa_statistics import SAMPLE_RATE_HZ, compute_statistics


def main() -> None:
    wave_S = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
    compute_statistics(wave_S)


if __name__ == "__main__":
    main()
