"""How fast MP3s become committed spectrograms, beside what users would pick instead, on one core, in one run.

    python -m tests.benchmarks.preprocessing [--music FOLDER] [--tracks 32] [--rounds 5]

All do the same files in turn, A B C A B C ...; the figure is the median of the ratios, since a shared
machine changes its speed from minute to minute, and all then suffer alike.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import av
import librosa
import librosa.display
import matplotlib
import numpy as np
import soundfile
from matplotlib.figure import Figure

from preprocessing.build.settings import SpectrogramSettings
from preprocessing.build.shard_task import Track, build_shard
from preprocessing.decode import decode
from preprocessing.decode.settings import ExcerptSettings, LimitSettings
from store.dataset.snapshots import publish, put_catalogue

BUNDLED = Path("tests/data/demo_music/fma_small")
STEREO = Path("../shared/data/emotify_fma/fma_small")  # 30 s, 128 kbit/s, 44.1 kHz: like FMA's clips
LONG_S = 270.0  # the mean of FMA-full
SPECTROGRAM = SpectrogramSettings()
EXCERPT = SpectrogramSettings(excerpt=ExcerptSettings(start_s=120.0, duration_s=30.0))
Work = Callable[[Sequence[Path], Path], None]


def ours(files: Sequence[Path], folder: Path, settings: SpectrogramSettings = SPECTROGRAM) -> None:
    """Ours: MP3 to committed Zarr shard"""
    tracks = [Track(path.stem, str(path)) for path in files]
    built = build_shard(tracks, settings=settings, limits=LimitSettings(), root=str(folder))
    assert built.shard is not None
    publish(
        str(folder),
        parent=None,
        shards=[built.shard],
        index=built.index,
        catalogue=put_catalogue(str(folder), built.index.select(["track_id"])),
        recipe=settings.recipe(),
        settings={},
    )


def excerpt_of_ours(files: Sequence[Path], folder: Path) -> None:
    """Ours: 30 s out of it, to committed Zarr shard"""
    ours(files, folder, EXCERPT)


def with_librosa(files: Sequence[Path], folder: Path) -> None:
    """librosa.load, melspectrogram, np.save"""
    for path in files:
        wave_S, rate_hz = librosa.load(path)
        np.save(folder / f"{path.stem}.npy", librosa.feature.melspectrogram(y=wave_S, sr=rate_hz))


def as_the_ancestor_did(files: Sequence[Path], folder: Path) -> None:
    """The ancestor: native rate, power_to_db, specshow to a PNG of 100 dpi"""
    for path in files:
        wave_S, rate_hz = librosa.load(path, sr=None)
        mel_MF = librosa.power_to_db(librosa.feature.melspectrogram(y=wave_S, sr=rate_hz), ref=np.max)
        figure = Figure()
        librosa.display.specshow(mel_MF, ax=figure.add_subplot(), sr=rate_hz, x_axis="time", y_axis="mel")
        figure.savefig(folder / f"{path.stem}.png", dpi=100)


def libsndfile_alone(files: Sequence[Path], folder: Path) -> None:
    """Decoding alone: libsndfile (mpg123) to float32"""
    for path in files:
        soundfile.read(path, dtype="float32")


def ffmpeg_alone(files: Sequence[Path], folder: Path) -> None:
    """Decoding alone: FFmpeg (PyAV)"""
    for path in files:
        with av.open(str(path)) as container:
            for _ in container.decode(audio=0):
                pass


def seconds_of(work: Work, files: Sequence[Path]) -> float:
    """Time one round of a pipeline, into an empty folder."""
    folder = Path(tempfile.mkdtemp())
    begun = time.perf_counter()
    work(files, folder)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return seconds


def compare(title: str, peers: Sequence[Work], files: Sequence[Path], rounds: int) -> None:
    """Print a table of speeds, and of each peer's time as a multiple of the first's."""
    audio_s = sum(len(decode(str(path), sample_rate_hz=22_050)) / 22_050 for path in files)
    for peer in peers:
        seconds_of(peer, files[:2])  # imports, caches
    timed = [[seconds_of(peer, files) for peer in peers] for _ in range(rounds)]
    print(f"\n{title}: {len(files)} MP3s, {audio_s:,.0f} s of audio, one core, {rounds} rounds in turn")
    print(f"{'':66} {'x real time':>12}  time / ours: median (min to max)")
    for column, peer in enumerate(peers):
        ratios = [row[column] / row[0] for row in timed]
        speed = audio_s / statistics.median(row[column] for row in timed)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{peer.__doc__:66} {speed:12,.0f}  {spread}")


def long_track(files: Sequence[Path], target: Path) -> Path:
    """Lay clips end to end and encode them as one MP3 of LONG_S."""
    with av.open(str(target), "w", format="mp3") as sink:
        stream = sink.add_stream("libmp3lame", rate=44_100)
        stream.layout, stream.bit_rate = "stereo", 256_000
        resampler = av.AudioResampler("fltp", "stereo", 44_100, 1_152)
        pts = 0
        for path in files:
            with av.open(str(path)) as source:
                for frame in source.decode(audio=0):
                    frame.pts = None
                    for part in resampler.resample(frame):
                        part.pts, part.time_base = pts, Fraction(1, 44_100)
                        pts += part.samples
                        sink.mux(stream.encode(part))
            if pts > LONG_S * 44_100:
                break
        sink.mux(stream.encode(None))
    return target


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--music", type=Path, default=STEREO if STEREO.exists() else BUNDLED)
    parser.add_argument("--tracks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    matplotlib.use("Agg")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = [path for path in sorted(arguments.music.rglob("*.mp3")) if path.stat().st_size > 10_000]
    few = files[: arguments.tracks]
    compare("Clips of 30 s", (ours, with_librosa, libsndfile_alone, ffmpeg_alone), few, arguments.rounds)
    compare("The project's ancestor", (ours, as_the_ancestor_did), few[:4], min(3, arguments.rounds))
    with tempfile.TemporaryDirectory() as folder:
        track = long_track(files, Path(folder, "0.mp3"))
        tracks = [
            track,
            *(Path(shutil.copy(track, Path(folder, f"{number}.mp3"))) for number in range(1, 24)),
        ]
        peers = (excerpt_of_ours, ours)
        compare(f"Whole tracks of {LONG_S:.0f} s", peers, tracks, min(3, arguments.rounds))


if __name__ == "__main__":
    main()
