"""Where one process stands among those that train together."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")


@dataclass(frozen=True)
class RankContext:
    """One process of a training run: its number, how many there are, and what it computes on."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU


def all_reduce_sum(tensor: Tensor, rank_context: RankContext) -> Tensor:
    """Add up a tensor over all processes, in place: all of them get the same sum."""
    if rank_context.world_size > 1:
        dist.all_reduce(tensor)
    return tensor


def all_reduce_mean(tensor: Tensor, rank_context: RankContext) -> Tensor:
    """Average a tensor over all processes, in place."""
    return all_reduce_sum(tensor, rank_context).div_(rank_context.world_size)


def average_batch_norm_statistics(model: nn.Module, weight: float, rank_context: RankContext) -> None:
    """Give all ranks the mean of their batch norms' running statistics; each saw other crops.

    `weight` is this rank's part of all crops: over all ranks the weights add up to 1.
    """
    if rank_context.world_size > 1:
        for statistic in model.buffers():
            if statistic.is_floating_point():
                all_reduce_sum(statistic.mul_(weight), rank_context)


def communication_wait_s(shared: nn.Module) -> float:
    """Say how long a step waits for gradients to travel, once its own backward pass is done, in seconds.

    DDP samples that by itself (every hundredth step); 0 for a process that trains alone.
    """
    if not isinstance(shared, DistributedDataParallel):
        return 0.0
    sampled: dict[str, int] = shared._get_ddp_logging_data()  # type: ignore[no-untyped-call]
    hidden_ns = sampled.get("avg_backward_compute_comm_overlap_time", 0)
    return max(0, sampled.get("avg_backward_comm_time", 0) - hidden_ns) / 1e9
