"""Predictions for audio files: crops of many files go through each member of the model together.

On a CPU one process decodes while this one waits, so a worker keeps one core busy. On a GPU
host several processes decode ahead, and the GPU computes the spectrograms.

Axes: S samples, F frames, M mel bands, G genres.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from store.errors import BadInput, first_line
from training.inference.backends import (
    CropPredictor,
    onnx_mel_predictor,
    torch_mel_predictor,
    torch_wave_predictor,
)
from training.inference.members import OpenMember, combine_members, open_feature_member
from training.inference.model_version import ModelIdentity
from training.inference.settings import Backend
from training.loading.crops import evenly_spaced_crops
from training.networks.devices import one_thread
from training.networks.settings import FEATURES, NETWORK

CPU_BATCH_SIZE = 16  # more do not fit into the cache, and are slower
GPU_BATCH_SIZE = 256

Crop = NDArray[np.float32]  # (F, M) in dB, or (S,)
DecodedCrops = Sequence[Iterable[Crop]] | BadAudio  # for each member


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
    """Return for each audio file the probabilities of its genres, from its crops, or why it cannot be used.

    Shapes: each (G,), before the calibration, which was fitted on those.
    Raises: BadInput if the model, its ONNX file or the device cannot be used; OSError if a disk fails.

    `device` is named as in torch; on any but the CPU the spectrograms are computed there too, unless
    `mel_on_device` says otherwise; a feature machine takes them from the decoder.
    Memory does not grow with the number of files.
    """
    as_waves = device != "cpu" if mel_on_device is None else mel_on_device
    as_waves = as_waves and all(member.kind == NETWORK for member in identity.members)
    _check_device(device)
    with one_thread():
        members = _open_members(version_url, identity, device, backend, as_waves=as_waves, onnx_url=onnx_url)
        decode = partial(
            _decode, members=members, identity=identity, windows=windows, limits=limits, as_waves=as_waves
        )
        batch_size = CPU_BATCH_SIZE if device == "cpu" else GPU_BATCH_SIZE
        means = [MeanPredictions(member.describe_crops, len(paths), batch_size) for member in members]
        all_decoded = _decode_ahead(decode, paths) if as_waves or device != "cpu" else map(decode, paths)
        bad = _predict_all(all_decoded, means)
        good = [row for row in range(len(paths)) if row not in bad]
        probabilities = iter(_decide(members, means, good, identity))
    return [bad[row] if row in bad else next(probabilities) for row in range(len(paths))]


def _predict_all(
    all_decoded: Iterable[DecodedCrops], means: "Sequence[MeanPredictions]"
) -> dict[int, BadAudio]:
    """Predict the crops of all files with each member; return the files that cannot be used, by row."""
    bad = {}
    for row, decoded in enumerate(all_decoded):
        if isinstance(decoded, BadAudio):
            bad[row] = decoded
        else:
            for mean, crops in zip(means, decoded, strict=True):
                mean.add(row, crops)
    for mean in means:
        mean.predict_pending()
    return bad


def _decide(
    members: Sequence[OpenMember],
    means: "Sequence[MeanPredictions]",
    rows: list[int],
    identity: ModelIdentity,
) -> list[NDArray[np.float64]]:
    """Return the probabilities of the files in some rows."""
    if not rows:
        return []
    probabilities = [
        member.predict(np.stack([mean.mean_of(row) for row in rows]))
        for member, mean in zip(members, means, strict=True)
    ]
    weights = [member.weight for member in identity.members]
    return list(combine_members(probabilities, weights, identity.training.target))


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as why:  # the latter from a torch that was built without CUDA
        raise BadInput(
            f"device {device}: torch cannot use it here ({first_line(why)}); use device cpu"
        ) from None


def _open_members(
    version_url: str,
    identity: ModelIdentity,
    device: str,
    backend: Backend,
    *,
    as_waves: bool,
    onnx_url: str | None,
) -> list[OpenMember]:
    """Open each member. Raises: BadInput if one cannot be used, or the backend is for networks and there is none."""
    if backend == "onnx" and not identity.has_network:
        raise BadInput("backend onnx: the model has no network, and runs without torch; use backend torch")
    return [
        open_feature_member(version_url, identity)
        if member.kind == FEATURES
        else OpenMember(
            crop_frames=identity.crop_frames,
            count_crops=lambda frames: math.ceil(frames / identity.crop_frames),
            describe_crops=_open_predictor(
                version_url, identity, device, backend, as_waves=as_waves, onnx_url=onnx_url
            ),
            predict=lambda mean_TG: mean_TG,
        )
        for member in identity.members
    ]


def _open_predictor(
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
    raise BadInput(
        f"backend onnx (device {device}): it takes spectrograms from the decoder, on device cpu; use backend torch"
    )


def _decode(
    path: Path | BadAudio,
    *,
    members: Sequence[OpenMember],
    identity: ModelIdentity,
    windows: WindowSettings,
    limits: LimitSettings,
    as_waves: bool,
) -> DecodedCrops:
    """Return the crops of a file for each member, to be read before this thread decodes another."""
    if isinstance(path, BadAudio):
        return path
    try:
        decoded = thread_sandbox(limits).decode_windows(path, identity.mel, windows, as_waves=as_waves)
    except BadAudio as why:
        return why
    count = identity.training.validation_crops if windows.whole_track else None
    return [
        iter_crops(
            decoded,
            member.crop_frames,
            member.count_crops if kind == FEATURES or count is None else lambda _: count,
        )
        for kind, member in zip((each.kind for each in identity.members), members, strict=True)
    ]


def iter_crops(
    windows: Sequence[DecodedWindow], crop_frames: int, count_crops: Callable[[int], int]
) -> Iterator[Crop]:
    """Yield crops evenly spaced within each window, as many as `count_crops` returns for its frames."""
    for window in windows:
        crops = evenly_spaced_crops(
            np.array([window.frames]), crop_frames=crop_frames, count=count_crops(window.frames)
        )
        for start in crops.start_N:
            yield window.read(int(start), min(crop_frames, window.frames))


def _decode_ahead(
    decode: "partial[DecodedCrops]", paths: Sequence[Path | BadAudio]
) -> Iterator[DecodedCrops]:
    """Decode in as many processes as there are cores, a few files ahead of the caller, in order."""
    cores = len(os.sched_getaffinity(0))
    return prefetch(partial(_read_all, decode), paths, depth=2 * cores, executor=_decoding_threads(cores))


def _read_all(decode: "partial[DecodedCrops]", path: Path | BadAudio) -> DecodedCrops:
    decoded = decode(path)
    return decoded if isinstance(decoded, BadAudio) else [list(crops) for crops in decoded]


@lru_cache(maxsize=1)
def _decoding_threads(count: int) -> ThreadPoolExecutor:
    """Return threads that live as long as this process, and with them their decoding processes."""
    return ThreadPoolExecutor(count, thread_name_prefix="decoding")


class MeanPredictions:
    """The mean over each file's crops of what a member computes of them, in batches across files."""

    def __init__(self, predict_crops: CropPredictor, files: int, batch_size: int) -> None:
        self._predict_crops, self._batch_size = predict_crops, batch_size
        self._pending: list[tuple[int, Crop]] = []
        self._sums: list[NDArray[np.float64] | float] = [0.0] * files
        self._counts = [0] * files

    def add(self, row: int, crops: Iterable[Crop]) -> None:
        """Add the crops of a file; predict whenever a batch is full."""
        for crop in crops:
            self._pending.append((row, crop))
            if len(self._pending) == self._batch_size:
                self.predict_pending()

    def predict_pending(self) -> None:
        """Predict the crops that were added since the last full batch."""
        if not self._pending:
            return
        probability_BG = self._predict_crops([crop for _, crop in self._pending])
        for (row, _), probability_G in zip(self._pending, probability_BG, strict=True):
            self._sums[row] = self._sums[row] + probability_G
            self._counts[row] += 1
        self._pending = []

    def mean_of(self, row: int) -> NDArray[np.float64]:
        """Return the mean of one file. Shapes: (D,)."""
        return np.asarray(self._sums[row] / self._counts[row])
