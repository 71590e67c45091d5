"""The reader of a run's crops: straight from the store, or through a cache on a local disk."""

from dataclasses import dataclass

import numpy as np

from store.dataset.frame_reader import FrameReader
from store.dataset.object_ranges import BLOCK_FRAMES, OVERLAP_FRAMES
from store.errors import BadInput
from store.fs.block_cache import BlockCache
from store.fs.files import local_path
from store.reader import Snapshot
from training.loading.crops import Tracks
from training.loading.settings import Reading

GIB = 1 << 30
# For each run that is mixed, so that none is removed while it is in use: as many again have been fetched by then, a
# crop in 16 runs needs the next object, too, and a cache that is full removes more than it must.
RUNS_IN_CACHE = 2.5


@dataclass(frozen=True)
class ReadingPlan:
    """The order in which crops are read, and the cache that they are read through; no folder stands for none.

    `mixed_runs` counts where the order is "runs".
    """

    order: Reading = "random"
    mixed_runs: int = 1_024
    cache_folder: str = ""
    cache_gib: float = 50.0

    @property
    def runs_in_use(self) -> int:
        """The number of runs in use at any time; 0 for true random order."""
        return self.mixed_runs if self.order == "runs" else 0

    def open_reader(self, snapshot: Snapshot) -> FrameReader:
        """Return the reader of a snapshot.

        Raises: BadInput if the cache is too small for the runs that are mixed, or there is none and the store is
            remote; OSError if the folder of the cache cannot be written.
        """
        if not self.cache_folder:
            if self.runs_in_use and local_path(snapshot.root) is None:
                raise BadInput(
                    f"reading runs: {snapshot.root} is remote, so runs must be kept on a local disk; name a "
                    "folder as cache_folder"
                )
            return snapshot.reader
        run_gib = (BLOCK_FRAMES + OVERLAP_FRAMES) * _frame_bytes(snapshot.reader) / GIB
        needed_gib = RUNS_IN_CACHE * self.runs_in_use * run_gib
        if needed_gib > self.cache_gib:
            raise BadInput(
                f"cache_gib {self.cache_gib:g}: to mix {self.runs_in_use} runs takes {needed_gib:.2g}; raise it, "
                "or lower mixed_runs"
            )
        return snapshot.reader_with(BlockCache(self.cache_folder, int(self.cache_gib * GIB)))

    def warning(self, tracks: Tracks, reader: FrameReader) -> str | None:
        """Return what makes reading slow, if anything does."""
        stored_gib = float(np.sum(tracks.locations.frames_T)) * _frame_bytes(reader) / GIB
        if not self.cache_folder or self.runs_in_use or stored_gib <= self.cache_gib:
            return None
        return (
            f"the cache (cache_gib {self.cache_gib:g}) is smaller than the spectrograms to read "
            f"({stored_gib:.0f} GiB), most of which are fetched again and again; raise it, or read in runs"
        )


def _frame_bytes(reader: FrameReader) -> int:
    return reader.bands * reader.dtype.itemsize
