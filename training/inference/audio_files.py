"""What a trained network hears in audio files: crops of many files at once go through it.

On a CPU one process decodes while this one waits, so a worker keeps one core busy. On a GPU
host several processes decode ahead, and the GPU makes the spectrograms.

Axes: S samples, F frames, M mel bands, G genres.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.decode.sandbox import thread_sandbox
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.decode.spool import DecodedWindow
from preprocessing.errors import BadAudio
from preprocessing.prefetch import prefetch
from store.errors import BadInput
from training.fit.crops import Tracks, evenly_spaced_crops
from training.inference.backends import (
    CropPredictor,
    onnx_mel_predictor,
    torch_mel_predictor,
    torch_wave_predictor,
)
from training.inference.model_version import ModelIdentity
from training.inference.settings import Backend

CPU_BATCH_SIZE = 16  # more no longer fit into the cache, and are slower
GPU_BATCH_SIZE = 256

Crop = NDArray[np.float32]  # (F, M) in dB, or (S,)
DecodedCrops = Iterable[Crop] | BadAudio


def predict_audio_files(
    paths: Sequence[Path | BadAudio],
    *,
    version_url: str,
    identity: ModelIdentity,
    windows: WindowSettings,
    limits: LimitSettings,
    device: str = "cpu",
    backend: Backend = "torch",
    mel_on_device: bool | None = None,
    onnx_url: str | None = None,
) -> list[NDArray[np.float64] | BadAudio]:
    """Let a model listen to audio files; give of each the mean of what it says of its crops, or what is wrong.

    Shapes: each (G,), the network's own probabilities: the calibration was fitted on such.
    Raises: BadInput if the model, its ONNX file or the device cannot be used; OSError if a disk fails.

    `device` is what torch calls one; on any but the CPU the spectrograms are made there too, unless
    `mel_on_device` says otherwise. Memory does not grow with the number of files.
    """
    as_waves = device != "cpu" if mel_on_device is None else mel_on_device
    _check_device(device)
    with _one_thread():
        network = _network(version_url, identity, device, backend, as_waves=as_waves, onnx_url=onnx_url)
        decode = partial(_decode, identity=identity, windows=windows, limits=limits, as_waves=as_waves)
        at_once = CPU_BATCH_SIZE if device == "cpu" else GPU_BATCH_SIZE
        means = _Means(network, len(paths), at_once)
        bad: dict[int, BadAudio] = {}
        all_decoded = _ahead(decode, paths) if as_waves or device != "cpu" else map(decode, paths)
        for row, decoded in enumerate(all_decoded):
            if isinstance(decoded, BadAudio):
                bad[row] = decoded
            else:
                means.add(row, decoded)
        means.finish()
    return [bad[row] if row in bad else means.of(row) for row in range(len(paths))]


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as why:  # the latter of a torch that was built without CUDA
        reason = str(why).splitlines()[0]
        raise BadInput(f"device {device}: torch cannot use it here ({reason}); take device cpu") from None


def _network(
    version_url: str,
    identity: ModelIdentity,
    device: str,
    backend: Backend,
    *,
    as_waves: bool,
    onnx_url: str | None,
) -> CropPredictor:
    match backend, as_waves:
        case "torch", True:
            return torch_wave_predictor(version_url, identity, device)
        case "torch", False:
            return torch_mel_predictor(version_url, identity, device)
        case "onnx", False if device == "cpu":
            return onnx_mel_predictor(version_url, identity, onnx_url)
    raise BadInput(f"backend onnx listens to spectrograms on device cpu, not on {device}; take backend torch")


def _decode(
    path: Path | BadAudio,
    *,
    identity: ModelIdentity,
    windows: WindowSettings,
    limits: LimitSettings,
    as_waves: bool,
) -> DecodedCrops:
    """Give the crops of a file, to be read before this thread decodes another."""
    if isinstance(path, BadAudio):
        return path
    try:
        heard = thread_sandbox(limits).decode_windows(path, identity.mel, windows, as_waves=as_waves)
    except BadAudio as why:
        return why
    return iter_crops(
        heard, identity.crop_frames, identity.training.validation_crops if windows.whole_track else None
    )


def iter_crops(heard: Sequence[DecodedWindow], crop_frames: int, count: int | None) -> Iterator[Crop]:
    """Read crops evenly spaced within each window: `count` of them, or as many as cover it."""
    for window in heard:
        track = Tracks(("",), np.array([window.frames]), np.zeros((1, 1), np.float32))
        crops = evenly_spaced_crops(
            track, crop_frames=crop_frames, count=count or math.ceil(window.frames / crop_frames)
        )
        for start in crops.start_N:
            yield window.read(int(start), min(crop_frames, window.frames))


def _ahead(decode: "partial[DecodedCrops]", paths: Sequence[Path | BadAudio]) -> Iterator[DecodedCrops]:
    """Decode on as many processes as there are cores, a few files ahead of the caller, in order."""
    cores = len(os.sched_getaffinity(0))
    return prefetch(partial(_read_all, decode), paths, depth=2 * cores, executor=_decoding_threads(cores))


def _read_all(decode: "partial[DecodedCrops]", path: Path | BadAudio) -> DecodedCrops:
    decoded = decode(path)
    return decoded if isinstance(decoded, BadAudio) else list(decoded)


@lru_cache(maxsize=1)
def _decoding_threads(count: int) -> ThreadPoolExecutor:
    """Give threads that live as long as we do, and so do their decoding processes."""
    return ThreadPoolExecutor(count, thread_name_prefix="decoding")


class _Means:
    """The mean of the probabilities of each file's crops, whichever crops go through the network together."""

    def __init__(self, network: CropPredictor, files: int, at_once: int) -> None:
        self._network, self._at_once = network, at_once
        self._waiting: list[tuple[int, Crop]] = []
        self._sums: list[NDArray[np.float64] | float] = [0.0] * files
        self._counts = [0] * files

    def add(self, row: int, crops: Iterable[Crop]) -> None:
        """Take the crops of a file; listen whenever there are enough."""
        for crop in crops:
            self._waiting.append((row, crop))
            if len(self._waiting) == self._at_once:
                self.finish()

    def finish(self) -> None:
        """Listen to what waits."""
        if not self._waiting:
            return
        probability_BG = self._network([crop for _, crop in self._waiting])
        for (row, _), probability_G in zip(self._waiting, probability_BG, strict=True):
            self._sums[row] = self._sums[row] + probability_G
            self._counts[row] += 1
        self._waiting = []

    def of(self, row: int) -> NDArray[np.float64]:
        """Give the mean of one file."""
        return np.asarray(self._sums[row] / self._counts[row])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: a worker has one core, and others work beside it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
