"""The GPUs that torch can use."""

import torch


def usable_gpus() -> tuple[int, str | None]:
    """Return the number of GPUs, and the version of NCCL, by which several of them train together."""
    if not torch.cuda.is_available():
        return 0, None
    if not torch.distributed.is_nccl_available():
        return torch.cuda.device_count(), None
    version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return torch.cuda.device_count(), ".".join(map(str, version))
