import numpy as np
import torch
from torch import nn

from training.interpretation.activation_maximisation import RANGE_DB, maximise_activation


class WeightedSum(nn.Module):
    """A network whose logit of genre 0 is a weighted mean of the cells, and of genre 1 its negative."""

    def __init__(self, weight_FM):
        super().__init__()
        self.weight_FM = torch.from_numpy(weight_FM)

    def forward(self, mel_BFM):
        logit_B = (mel_BFM * self.weight_FM).mean((1, 2))
        return torch.stack([logit_B, -logit_B], dim=1)


def test_the_maximum_of_a_linear_logit_lies_where_the_penalty_is_as_steep():
    """The gradient w / n of the logit equals that of the penalty, 2 pull (x - start) / n, at start + w / (2 pull)."""
    weight_FM = np.array([[1.0, -2.0, 0.0], [0.5, 4.0, -1.0]], np.float32)
    start_FM = np.full((2, 3), -20.0, np.float32)
    for genre, sign in ((0, 1), (1, -1)):
        found_FM = maximise_activation(WeightedSum(weight_FM), genre, start_FM, pull=0.1, smoothness=0.0)
        np.testing.assert_allclose(found_FM, start_FM + sign * weight_FM / 0.2, atol=0.5)


def test_smoothness_brings_adjacent_cells_together_and_the_range_is_kept():
    weight_FM = np.zeros((8, 8), np.float32)
    weight_FM[4, 4] = 100.0
    start_FM = np.full((8, 8), 0.0, np.float32)
    rough_FM, smooth_FM = (
        maximise_activation(WeightedSum(weight_FM), 0, start_FM, smoothness=value) for value in (0.0, 10.0)
    )
    assert rough_FM[4, 4] == RANGE_DB[1]
    assert smooth_FM[4, 4] < rough_FM[4, 4]
    assert smooth_FM[3, 4] > rough_FM[3, 4]
