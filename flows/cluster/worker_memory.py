"""Memory that a Dask worker keeps for its next batch instead of giving it back to the system after each array.

Dask starts workers with MALLOC_TRIM_THRESHOLD_=65536. With any such setting glibc maps and unmaps every array of more
than 128 KiB, and the kernel clears its pages each time: a third of the CPU of a training went into that.
"""

import ctypes
import os

from distributed import Worker, WorkerPlugin

# The number of malloc.h, and the variable for processes that the worker starts: bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = {
    (M_MMAP_THRESHOLD, "MALLOC_MMAP_THRESHOLD_"): 32 << 20,  # smaller arrays are reused; more is not allowed
    (M_TRIM_THRESHOLD, "MALLOC_TRIM_THRESHOLD_"): 64 << 20,  # so much stays free at the end of the heap
}


class KeepMemory(WorkerPlugin):
    """The plugin that sets how much memory the C library keeps, in a worker and in the processes that it starts."""

    name = "keep-memory"

    def setup(self, worker: Worker) -> None:
        """Call mallopt, which only glibc has, and set the variables that glibc reads in processes that start later."""
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        for (number, variable), size_bytes in KEPT_BYTES.items():
            os.environ[variable] = str(size_bytes)
            if mallopt is not None:
                mallopt(number, size_bytes)
