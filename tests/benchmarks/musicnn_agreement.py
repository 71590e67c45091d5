"""Whether our musicnn is the original: the same patches through both, and the CPU that each takes.

python -m tests.benchmarks.musicnn_agreement --store STORE --wheel WHEEL [--tracks 20] [--peer PYTHON]

STORE has musicnn's spectrograms (docs/training.md). PYTHON is that of an environment with musicnn; MUSICNN_PYTHON names
it too: tests/benchmarks/tagging.py says how to make one. Exits with 1 if a value differs by more than float32 allows.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from preprocessing.features.musicnn import MUSICNN_MEL, PATCH_FRAMES, check_musicnn_mel, compress
from preprocessing.features.musicnn_weights import read_musicnn
from preprocessing.mel.settings import MelSettings
from store.reader import open_snapshot

PEER = Path(__file__).with_name("musicnn_graph.py")
ROUNDS = 5
# Eight layers of sums of at most 3,927 products, in another order: their rounding errors add up like a random walk.
LIMIT = 8 * 3_927**0.5 * float(np.finfo(np.float32).eps)


def main() -> None:
    """Print the largest difference, relative to the largest value, and the milliseconds a patch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--wheel", required=True)
    parser.add_argument("--tracks", type=int, default=20)
    parser.add_argument(
        "--peer", default=os.environ.get("MUSICNN_PYTHON"), required="MUSICNN_PYTHON" not in os.environ
    )
    arguments = parser.parse_args()
    snapshot = open_snapshot(arguments.store)
    check_musicnn_mel(MelSettings.model_validate(snapshot.mel_settings))
    mel_TFM = np.stack(
        [snapshot.mel_slice(track_id, 0, PATCH_FRAMES) for track_id in snapshot.track_ids[: arguments.tracks]]
    )
    network = read_musicnn(arguments.wheel)
    seconds = []
    with threadpool_limits(1):
        for _ in range(ROUNDS):
            begun = time.process_time()
            ours_TC = np.stack([network.embed_patch(mel_FM) for mel_FM in mel_TFM])
            seconds.append((time.process_time() - begun) / len(mel_TFM))
    with tempfile.TemporaryDirectory() as folder:
        source, destination = f"{folder}/patches.npy", f"{folder}/embedding.npz"
        np.save(source, compress(mel_TFM))
        subprocess.run(
            [arguments.peer, str(PEER), source, destination], check=True, stderr=subprocess.DEVNULL
        )
        theirs = np.load(destination)
        difference = np.abs(ours_TC - theirs["embedding"]).max() / np.abs(theirs["embedding"]).max()
        print(
            f"{len(mel_TFM)} patches of {PATCH_FRAMES * MUSICNN_MEL.hop / MUSICNN_MEL.sample_rate_hz:.0f} s: the "
            f"largest difference is {difference:.1e} of the largest value (limit {LIMIT:.0e}); CPU a patch "
            f"{1_000 * min(seconds):.0f} ms, TensorFlow {1_000 * float(theirs['seconds']):.0f} ms"
        )
    sys.exit(int(difference > LIMIT))


if __name__ == "__main__":
    main()
