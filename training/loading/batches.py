"""Batches of crops: read in the type they are stored in, and turned into dB on the device.

Axes: T tracks, B crops of a batch, F frames, M mel bands, G genres.
"""

import sys
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preprocessing.prefetch import prefetch
from store.dataset.frame_reader import Locations
from store.dataset.shards import UINT8_MIN_DB, UINT8_STEP_DB
from training.loading.crops import Crops, Tracks

Job = TypeVar("Job")
Result = TypeVar("Result")
IDLE_REFERENCES = 3  # to an array: the list's, that of the loop, and that of the function which counts them
TORCH_DTYPES = {"uint8": torch.uint8, "float16": torch.float16, "float32": torch.float32}


class CropSource(Protocol):
    """What crops are read from: a `FrameReader`, or arrays in memory."""

    dtype: np.dtype[Any]
    bands: int

    def read_crops(
        self,
        locations: Locations,
        track_B: NDArray[np.integer],
        start_B: NDArray[np.integer],
        out_BFM: NDArray[Any],
    ) -> None:
        """Fill `out_BFM`, as `FrameReader.read_crops`."""


@dataclass(frozen=True)
class Batch:
    """Crops (B, F, M), as they are stored, and their targets (B, G) in [0, 1]."""

    mel_BFM: Tensor
    target_BG: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device; pinned memory is copied asynchronously."""
        return Batch(*(part.to(device, non_blocking=True) for part in (self.mel_BFM, self.target_BG)))

    def micro_batches(self, size: int) -> list["Batch"]:
        """Split the batch into micro-batches of `size` crops."""
        parts = zip(torch.split(self.mel_BFM, size), torch.split(self.target_BG, size), strict=True)
        return [Batch(*part) for part in parts]


class BatchMemory:
    """Memory of batches, used again when nothing refers to a batch any more.

    To claim fresh memory takes the kernel as long as to read a crop, and makes threads wait for each other.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._arrays: list[NDArray[Any]] = []
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """Return a tensor with arbitrary values."""
        if self._pinned:  # torch itself keeps pinned memory, and knows when the copies from it are done
            return torch.empty(shape, dtype=TORCH_DTYPES[dtype.name], pin_memory=True)
        with self._lock:
            return torch.from_numpy(self._idle_array(shape, dtype))

    def _idle_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        # A tensor holds a reference to its array for as long as it, or a view of it, exists.
        idle = [it for it in self._arrays if sys.getrefcount(it) == IDLE_REFERENCES]
        for array in idle:
            if array.shape == shape and array.dtype == dtype:
                return array
        self._arrays = [it for it in self._arrays if not any(it is other for other in idle)]
        self._arrays.append(np.empty(shape, dtype))
        return self._arrays[-1]


def read_crops(
    source: CropSource, tracks: Tracks, crops: Crops, crop_frames: int, memory: BatchMemory | None = None
) -> Tensor:
    """Read crops, as they are stored; a track shorter than a crop is repeated to its length.

    Shapes: (B, F, M).
    """
    shape = (len(crops), crop_frames, source.bands)
    crops_BFM = (memory or BatchMemory()).empty(shape, source.dtype)
    source.read_crops(tracks.locations, crops.track_N, crops.start_N, crops_BFM.numpy())
    return crops_BFM


def read_batch(
    source: CropSource, tracks: Tracks, crops: Crops, crop_frames: int, memory: BatchMemory | None = None
) -> Batch:
    """Read crops and their targets."""
    target_BG = tracks.target_TG[crops.track_N].astype(np.float32)
    return Batch(read_crops(source, tracks, crops, crop_frames, memory), torch.from_numpy(target_BG))


def to_db(stored_BFM: Tensor) -> Tensor:
    """Decode stored values to dB in float32, on the device that they are on: see `decode_db`."""
    if stored_BFM.dtype == torch.uint8:
        return stored_BFM.float() * UINT8_STEP_DB + UINT8_MIN_DB
    return stored_BFM.float()


def read_ahead(
    read: Callable[[Job], Result], jobs: Iterable[Job], *, threads: int
) -> Generator[Result, None, None]:
    """Yield `read(job)` of each job, in order; `threads` threads read ahead, one batch each."""
    with ThreadPoolExecutor(threads, thread_name_prefix="loading") as executor:
        yield from prefetch(read, jobs, depth=threads, executor=executor)
