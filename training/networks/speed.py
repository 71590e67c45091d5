"""How fast this machine trains a network."""

import time

import torch

from training.networks.devices import one_thread
from training.networks.network import build_model
from training.networks.settings import ModelSettings


def measure_crops_per_s(
    settings: ModelSettings, crops: int, frames: int, bands: int, *, seconds: float
) -> float:
    """Measure for some seconds how many crops one thread takes forward and backward in a second.

    Shapes: micro-batches of random numbers, (crops, frames, bands).
    """
    network, mel_BFM = build_model(settings, 2, bands), torch.randn(crops, frames, bands)
    with one_thread():
        network(mel_BFM).square().sum().backward()  # allocates
        started, steps = time.perf_counter(), 0
        while steps == 0 or time.perf_counter() - started < seconds:
            network(mel_BFM).square().sum().backward()
            steps += 1
        return steps * crops / (time.perf_counter() - started)
