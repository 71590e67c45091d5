"""The GPUs and threads that torch uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def usable_gpus() -> tuple[int, str | None]:
    """Return the number of GPUs, and the version of NCCL, by which several of them train together."""
    if not torch.cuda.is_available():
        return 0, None
    if not torch.distributed.is_nccl_available():
        return torch.cuda.device_count(), None
    version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return torch.cuda.device_count(), ".".join(map(str, version))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: a worker has one core, and other workers share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
