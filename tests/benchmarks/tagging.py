"""How many tracks a core predicts in a second, and where the time goes, beside musicnn, in one run.

    python -m tests.benchmarks.tagging [--music FOLDER] [--tracks 8] [--rounds 5] [--peer PYTHON]

Tracks are four minutes of stereo at 44.1 kHz, MP3s of 192 kbit/s, half of them without a Xing header;
three windows of ten seconds of each are predicted by the default network with random weights. musicnn gets
30 s clips, cut beforehand. All do the same number of files in turn, A B C A B C ...

PYTHON is that of an environment with musicnn, which wants other versions than ours; MUSICNN_PYTHON names it too:

    python3.11 -m venv peer && peer/bin/pip install tensorflow-cpu tf_keras librosa
    peer/bin/pip install --no-deps musicnn
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported

import av
import numpy as np
import safetensors.torch
import torch

from preprocessing.decode.sandbox import thread_sandbox
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.mel.settings import MelSettings
from store.model_registry import publish_version
from store.tags.write import read_genres
from training.fit.settings import TrainSettings
from training.inference.audio_files import CPU_BATCH_SIZE, iter_crops, predict_audio_files
from training.inference.backends import CropPredictor, onnx_mel_predictor, torch_mel_predictor
from training.inference.model_version import ModelIdentity
from training.networks.network import WEIGHTS_FILE, build_model

BUNDLED = Path("tests/data/demo_music/fma_small")
STEREO = Path("../shared/data/emotify_fma/fma_small")
PEER = Path(__file__).with_name("musicnn_peer.py")
TRACK_S, RATE_HZ, BIT_RATE, CLIP_S = 240, 44_100, 192_000, 30
WINDOWS, LIMITS, GENRES = WindowSettings(), LimitSettings(), 16
Work = Callable[[], None]


def encode_clips(clips: Sequence[Path], target: Path, seconds: int) -> Path:
    """Lay clips end to end, again and again, as one MP3."""
    with av.open(str(target), "w", format="mp3") as sink:
        stream = sink.add_stream("libmp3lame", rate=RATE_HZ)
        stream.layout, stream.bit_rate = "stereo", BIT_RATE
        resampler = av.AudioResampler("fltp", "stereo", RATE_HZ, 1_152)
        pts = 0
        for path in cycle(clips):
            with av.open(str(path)) as source:
                for frame in source.decode(audio=0):
                    frame.pts = None
                    for part in resampler.resample(frame):
                        part.pts, part.time_base = pts, Fraction(1, RATE_HZ)
                        pts += part.samples
                        sink.mux(stream.encode(part))
                    if pts >= seconds * RATE_HZ:
                        sink.mux(stream.encode(None))
                        return target
    raise AssertionError("clips have no end")


def without_xing(path: Path, target: Path) -> Path:
    """Copy an MP3's frames into one that does not state how long it plays."""
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", format="mp3", options={"write_xing": "0"}) as sink,
    ):
        stream = sink.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    return target


def make_tracks(clips: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Make so many tracks, of four different ones."""
    made: list[Path] = []
    for number in range(2):
        stated = encode_clips(clips[9 * number :], folder / f"stated{number}.mp3", TRACK_S)
        made += [stated, without_xing(stated, folder / f"bare{number}.mp3")]
    copies = [
        shutil.copy(path, folder / f"{number:03}.mp3")
        for number, path in enumerate(islice(cycle(made), count))
    ]
    return [Path(copy) for copy in copies]


def make_model(folder: Path) -> tuple[str, ModelIdentity]:
    """Publish the default network as it is before it learns."""
    who = ModelIdentity(
        genres=tuple(f"genre {number}" for number in range(GENRES)),
        mel=MelSettings(),
        training=TrainSettings(),
    )
    torch.manual_seed(0)
    network = build_model(who.training.model, GENRES, who.mel.bands)
    files = {WEIGHTS_FILE: safetensors.torch.save(network.state_dict())}
    return f"{folder}/{publish_version(str(folder), files, who.model_dump(mode='json'))}", who


class Peer:
    """musicnn in a process of its own, on the same core."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, str(PEER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        if self.answer() != "ready":
            raise SystemExit(f"{python}: musicnn does not start there; {PEER} says why when run by itself")

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tag(self, clips: Sequence[Path]) -> None:
        assert self.process.stdin is not None
        for clip in clips:
            print(clip, file=self.process.stdin)
            float(self.answer())

    def close(self) -> None:
        self.process.communicate()


def timed_in_turn(works: dict[str, Work], files: int, rounds: int) -> dict[str, list[float]]:
    """Time all pieces of work in turn; give seconds a file, round by round."""
    for work in works.values():
        work()  # imports, caches, processes that start
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.perf_counter()
            work()
            seconds[name].append((time.perf_counter() - begun) / files)
    return seconds


def report(seconds: dict[str, list[float]], ours: str) -> None:
    """Print a line for each piece of work, and its time as a multiple of ours."""
    print(f"{'':58} {'ms a track':>10} {'tracks/s':>9}  time / {ours}: median (min to max)")
    for name, each in seconds.items():
        ratios = [one / own for one, own in zip(each, seconds[ours], strict=True)]
        median = statistics.median(each)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:58} {1e3 * median:10.1f} {1 / median:9.1f}  {spread}")


def run_network(network: CropPredictor, crops: Sequence[np.ndarray]) -> None:
    for first in range(0, len(crops), CPU_BATCH_SIZE):
        network(crops[first : first + CPU_BATCH_SIZE])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--music", type=Path, default=STEREO if STEREO.exists() else BUNDLED)
    parser.add_argument("--tracks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", default=os.environ.get("MUSICNN_PYTHON"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = [path for path in sorted(arguments.music.rglob("*.mp3")) if path.stat().st_size > 10_000]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tracks = make_tracks(clips, folder, arguments.tracks)
        version_url, who = make_model(folder / "models")
        sandbox = thread_sandbox(LIMITS)
        crops = [
            crop
            for path in tracks
            for crop in iter_crops(
                sandbox.decode_windows(path, who.mel, WINDOWS),
                who.crop_frames,
                lambda length: math.ceil(length / who.crop_frames),
            )
        ]
        networks = [torch_mel_predictor(version_url, who, "cpu"), onnx_mel_predictor(version_url, who, None)]

        def all_of_it(backend: str) -> None:
            for path in tracks:
                read_genres(path)
            predict_audio_files(
                tracks, version_url=version_url, identity=who, windows=WINDOWS, limits=LIMITS, backend=backend
            )

        works: dict[str, Work] = {
            "all of it": lambda: all_of_it("torch"),
            "all of it, onnxruntime": lambda: all_of_it("onnx"),
            "decoding and spectrograms alone": lambda: [
                sandbox.decode_windows(path, who.mel, WINDOWS) for path in tracks
            ],
            "the network alone, torch": lambda: run_network(networks[0], crops),
            "the network alone, onnxruntime": lambda: run_network(networks[1], crops),
            "reading genre tags alone": lambda: [read_genres(path) for path in tracks],
        }
        if arguments.peer:
            peer = Peer(arguments.peer)
            stack.callback(peer.close)
            cut = [
                encode_clips(clips[number:], folder / f"clip{number}.mp3", CLIP_S)
                for number in range(arguments.tracks)
            ]
            works["musicnn, 30 s clips (graph built once)"] = lambda: peer.tag(cut)
        print(
            f"{len(tracks)} tracks of {TRACK_S} s, {len(crops) / len(tracks):g} crops each; one core; "
            f"{arguments.rounds} rounds in turn"
        )
        report(timed_in_turn(works, len(tracks), arguments.rounds), "all of it")


if __name__ == "__main__":
    main()
