"""What a trained network hears in audio files: crops of many files at once go through it.

Axes: K crops of a file, B crops at once, F frames, M mel bands, G genres.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.errors import BadAudio
from preprocessing.sandbox import sandbox_of_this_thread
from preprocessing.seeking import HeardWindow
from preprocessing.spectrogram import LimitSettings
from preprocessing.windows import WindowSettings
from training.crops import Tracks, even_crops, read_crops
from training.predict import ModelIdentity, load_model

CROPS_AT_ONCE = 32

Network = Callable[[NDArray[np.float16]], NDArray[np.float64]]  # (B, F, M) dB -> (B, G) probabilities


def hear_files(
    paths: Sequence[Path | BadAudio],
    *,
    version_url: str,
    identity: ModelIdentity,
    windows: WindowSettings,
    limits: LimitSettings,
    device: str = "cpu",
    engine: Literal["torch", "onnx"] = "torch",
) -> list[NDArray[np.float64] | BadAudio]:
    """Let a model listen to audio files; give of each the mean of what it says of its crops, or what is wrong with it.

    Shapes: each (G,), the network's own probabilities: the decision was fitted on such.
    Raises: BadInput if the model cannot be used; OSError if a disk fails.
    """
    network = _torch_network(version_url, identity)
    means = _Means(network, len(paths))
    answers: list[NDArray[np.float64] | BadAudio | None] = [None] * len(paths)
    sandbox = sandbox_of_this_thread(limits)
    with _one_thread(), torch.inference_mode():
        for row, path in enumerate(paths):
            if isinstance(path, BadAudio):
                answers[row] = path
                continue
            try:
                heard = sandbox.windows(path, identity.mel, windows)
            except BadAudio as why:
                answers[row] = why
                continue
            for crop_FM in _crops(heard, identity, whole=windows.whole):
                means.add(row, crop_FM)
        means.finish()
    return [means.of(row) if answer is None else answer for row, answer in enumerate(answers)]


def _crops(
    heard: list[HeardWindow], identity: ModelIdentity, *, whole: bool
) -> Iterator[NDArray[np.float16]]:
    """Read crops evenly spaced within each window: as many as cover it, or of a whole track those of validation."""
    for window in heard:
        count = math.ceil(window.frames / identity.crop_frames)
        if whole:
            count = identity.training.validation_crops
        track = Tracks(("",), np.array([window.frames]), np.zeros((1, 1), np.float32))
        crops = even_crops(track, crop_frames=identity.crop_frames, count=count)
        for number in range(count):
            crop = crops[number : number + 1]
            (crop_FM,) = read_crops(partial(_read, window), track, crop, identity.crop_frames)
            yield crop_FM


def _read(window: HeardWindow, _: str, first: int, frames: int) -> NDArray[np.float32]:
    return window.read(first, frames)


class _Means:
    """The mean of the probabilities of each file's crops, whichever crops go through the network together."""

    def __init__(self, network: Network, files: int) -> None:
        self._network = network
        self._waiting: list[tuple[int, NDArray[np.float16]]] = []
        self._sums: list[NDArray[np.float64] | float] = [0.0] * files
        self._counts = [0] * files

    def add(self, row: int, crop_FM: NDArray[np.float16]) -> None:
        """Take a crop of a file; listen once there are enough."""
        self._waiting.append((row, crop_FM))
        if len(self._waiting) == CROPS_AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Listen to what waits."""
        if not self._waiting:
            return
        chance_BG = self._network(np.stack([crop_FM for _, crop_FM in self._waiting]))
        for (row, _), chance_G in zip(self._waiting, chance_BG, strict=True):
            self._sums[row] = self._sums[row] + chance_G
            self._counts[row] += 1
        self._waiting = []

    def of(self, row: int) -> NDArray[np.float64]:
        """Give the mean of one file."""
        return np.asarray(self._sums[row] / self._counts[row])


def _torch_network(version_url: str, identity: ModelIdentity) -> Network:
    model = load_model(version_url, identity)

    def run(mel_BFM: NDArray[np.float16]) -> NDArray[np.float64]:
        logits_BG = model(torch.from_numpy(mel_BFM).float()).double()
        chance_BG = logits_BG.softmax(dim=1) if identity.training.target == "top" else logits_BG.sigmoid()
        chances: NDArray[np.float64] = chance_BG.numpy()
        return chances

    return run


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: a worker has one core, and others work beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
