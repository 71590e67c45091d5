"""The rank of a process among those that train together, and their collective operations."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RankContext:
    """One process of a training run: its rank, the number of processes, and the device it computes on."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU


def all_reduce_sum(tensor: Tensor, rank_context: RankContext) -> Tensor:
    """Replace a tensor by its sum over all processes."""
    if rank_context.world_size > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_mean(tensor: Tensor, rank_context: RankContext) -> Tensor:
    """Replace a tensor by its mean over all processes."""
    return all_reduce_sum(tensor, rank_context).div_(rank_context.world_size)


def average_batch_norm_statistics(model: nn.Module, weight: float, rank_context: RankContext) -> None:
    """Replace the running statistics of batch norm by their weighted mean over all ranks.

    `weight` is this rank's share of all crops: the weights of all ranks add up to 1.
    """
    if rank_context.world_size > 1:
        for statistic in model.buffers():
            if statistic.is_floating_point():
                all_reduce_sum(statistic.mul_(weight), rank_context)


def communication_wait_s(ddp_model: nn.Module) -> float:
    """Return how long a step waits for the gradient all-reduce after its own backward pass, in seconds.

    DDP samples this itself (every hundredth step); 0 for a process that trains alone.
    """
    if not isinstance(ddp_model, DistributedDataParallel):
        return 0.0
    sampled: dict[str, int] = ddp_model._get_ddp_logging_data()  # type: ignore[no-untyped-call]
    hidden_ns = sampled.get("avg_backward_compute_comm_overlap_time", 0)
    return max(0, sampled.get("avg_backward_comm_time", 0) - hidden_ns) / 1e9
