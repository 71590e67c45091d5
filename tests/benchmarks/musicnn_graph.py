"""musicnn's own graph on patches of a spectrogram.

Run by tests.benchmarks.musicnn_agreement with the Python of an environment of its own: reads patches (.npy), writes
what the last hidden layer makes of them, and the seconds that one patch takes on a thread.
"""

import sys
import time

import numpy as np
from musicnn_peer import configuration, open_graph

MODEL, ROUNDS = "MSD_musicnn", 5


def main() -> None:
    """Embed the patches."""
    source, destination = sys.argv[1:]
    patches_TFM = np.load(source)
    run = open_graph(MODEL, len(configuration.MSD_LABELS), patches_TFM.shape[1])
    seconds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        _, embedding_TC = run(patches_TFM)
        seconds.append((time.process_time() - begun) / len(patches_TFM))
    np.savez(destination, embedding=embedding_TC, seconds=min(seconds))


if __name__ == "__main__":
    main()
