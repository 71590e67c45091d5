"""Batches of crops: read in the type they are stored in, and turned into dB on the device.

Axes: T tracks, B crops of a batch, F frames, M mel bands, G genres.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


def read_crops(
    source: CropSource, tracks: Tracks, crops: Crops, crop_frames: int, *, pinned: bool = False
) -> Tensor:
    """Read crops, as they are stored; a track shorter than a crop is repeated to its length.

    Shapes: (B, F, M).

    Torch recycles pinned memory when the copies from it are done.
    """
    shape = (len(crops), crop_frames, source.bands)
    crops_BFM = torch.empty(shape, dtype=TORCH_DTYPES[source.dtype.name], pin_memory=pinned)
    source.read_crops(tracks.locations, crops.track_N, crops.start_N, crops_BFM.numpy())
    return crops_BFM


def read_batch(
    source: CropSource, tracks: Tracks, crops: Crops, crop_frames: int, *, pinned: bool = False
) -> Batch:
    """Read crops and their targets."""
    target_BG = torch.from_numpy(tracks.target_TG[crops.track_N].astype(np.float32))
    crops_BFM = read_crops(source, tracks, crops, crop_frames, pinned=pinned)
    return Batch(crops_BFM, target_BG.pin_memory() if pinned else target_BG)


def to_db(stored_BFM: Tensor) -> Tensor:
    """Decode stored values to dB in float32, on the device that they are on: see `decode_db`."""
    if stored_BFM.dtype == torch.uint8:
        return stored_BFM.float() * UINT8_STEP_DB + UINT8_MIN_DB
    return stored_BFM.float()


def read_ahead(
    read: Callable[[Job], Result], jobs: Iterable[Job], *, threads: int
) -> Generator[Result, None, None]:
    """Yield `read(job)` of each job, in order; `threads` threads read ahead, one batch each and one more."""
    with ThreadPoolExecutor(threads, thread_name_prefix="loading") as executor:
        yield from prefetch(read, jobs, depth=threads + 1, executor=executor)
