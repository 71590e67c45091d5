"""How fast MP3s become committed spectrograms, against librosa, on one core, in one run.

    python -m tests.benchmarks.preprocessing [--music FOLDER] [--tracks 32] [--rounds 5]

Both do the same files in turn, A B A B ...; the figure is the median of the ratios, since a shared
machine changes its speed from minute to minute, and both then suffer alike.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import librosa
import numpy as np
import soundfile

from preprocessing.build import SpectrogramSettings, Track, build_shard
from preprocessing.decode import decode
from store.dataset import publish

BUNDLED = Path("tests/data/demo_music/fma_small")
STEREO = Path("../shared/data/emotify_fma/fma_small")  # 30 s, 128 kbit/s, 44.1 kHz: like FMA's clips


def ours(files: list[Path], folder: Path) -> None:
    """MP3 file to committed Zarr."""
    settings = SpectrogramSettings()
    tracks = [Track(path.stem, str(path)) for path in files]
    built = build_shard(tracks, settings=settings, root=str(folder))
    assert built.shard is not None
    publish(
        str(folder),
        parent=None,
        shards=[built.shard.name],
        index=built.index,
        catalogue=built.index.select(["track_id"]),
        recipe=settings.recipe(),
        settings={},
    )


def with_librosa(files: list[Path], folder: Path) -> None:
    """librosa.load, melspectrogram, np.save."""
    for path in files:
        wave_S, rate_hz = librosa.load(path)
        np.save(folder / f"{path.stem}.npy", librosa.feature.melspectrogram(y=wave_S, sr=rate_hz))


def decoding_alone(files: list[Path], folder: Path) -> None:
    """libsndfile's decoding to float32 and nothing else: what no pipeline on it can beat."""
    for path in files:
        soundfile.read(path, dtype="float32")


def seconds_of(work: Callable[[list[Path], Path], None], files: list[Path]) -> float:
    """Time one round of a pipeline, into an empty folder."""
    folder = Path(tempfile.mkdtemp())
    begun = time.perf_counter()
    work(files, folder)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--music", type=Path, default=STEREO if STEREO.exists() else BUNDLED)
    parser.add_argument("--tracks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = [path for path in sorted(wanted.music.rglob("*.mp3")) if path.stat().st_size > 10_000][
        : wanted.tracks
    ]
    audio_s = sum(len(decode(str(path), sample_rate_hz=22_050)) / 22_050 for path in files)
    peers = (ours, with_librosa, decoding_alone)
    for peer in peers:
        seconds_of(peer, files[:2])  # imports, caches
    rounds = [[seconds_of(peer, files) for peer in peers] for _ in range(wanted.rounds)]

    print(
        f"{len(files)} MP3s from {wanted.music}, {audio_s:,.0f} s of audio, one core, {wanted.rounds} rounds in turn"
    )
    print(f"{'':52} {'x real time':>12}  time / ours: median (min to max)")
    for column, peer in enumerate(peers):
        ratios = [row[column] / row[0] for row in rounds]
        speed = audio_s / statistics.median(row[column] for row in rounds)
        told = (peer.__doc__ or "").split(":")[0].rstrip(".")
        print(
            f"{told:52} {speed:12,.0f}  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
