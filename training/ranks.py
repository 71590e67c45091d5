"""Where one process stands among those that train together."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Seat:
    """One process of a training run: its number, how many there are, and what it computes on."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU


def sum_over_ranks(tensor: Tensor, seat: Seat) -> Tensor:
    """Add up a tensor over all processes, in place: all of them get the same sum."""
    if seat.world_size > 1:
        dist.all_reduce(tensor)
    return tensor


def mean_over_ranks(tensor: Tensor, seat: Seat) -> Tensor:
    """Average a tensor over all processes, in place."""
    return sum_over_ranks(tensor, seat).div_(seat.world_size)
