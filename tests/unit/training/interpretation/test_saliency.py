import numpy as np
import torch
from torch import nn

from training.interpretation.saliency import choose_layer, grad_cam
from training.networks.network import build_model
from training.networks.settings import ModelSettings


class LowAndHigh(nn.Module):
    """A network of two maps: the lower half of the bands, for genre 0, and the upper half, for genre 1."""

    def __init__(self):
        super().__init__()
        self.halves = nn.Conv2d(1, 2, 1, bias=False)
        self.masks = nn.Identity()

    def forward(self, mel_BFM):
        upper_M = (torch.arange(mel_BFM.shape[2]) >= mel_BFM.shape[2] // 2).float()
        maps = torch.stack([mel_BFM * (1 - upper_M), mel_BFM * upper_M], dim=1)
        return self.masks(maps).mean((2, 3))


def test_the_cells_that_a_logit_is_the_mean_of_are_marked_and_no_others():
    model = LowAndHigh()
    mel_FM = np.full((6, 8), 2.0, np.float32)
    mel_FM[3, 1] = 4
    low_FM, high_FM = (grad_cam(model, model.masks, mel_FM, genre) for genre in (0, 1))
    assert low_FM[3, 1] == 1
    np.testing.assert_allclose(low_FM[0], [0.5] * 4 + [0] * 4)
    np.testing.assert_allclose(high_FM, [[0] * 4 + [1] * 4] * 6)


def test_what_lowers_a_logit_is_not_marked():
    model = LowAndHigh()
    assert not grad_cam(model, model.masks, np.full((6, 8), -2.0, np.float32), 0).any()


def test_the_layer_is_the_last_whose_maps_show_where():
    model = build_model(ModelSettings(name="short-chunk-resnet", width=4), 3, 128).eval()
    mel_FM = np.random.default_rng(0).normal(-20, 10, (128, 128)).astype(np.float32)
    assert choose_layer(model.trunk, model, mel_FM) is model.trunk.get_submodule("block3")
    assert choose_layer(model.trunk, model, mel_FM[:4]) is model.trunk.get_submodule("stem")
    saliency_FM = grad_cam(model, model.trunk.get_submodule("block3"), mel_FM, 1)
    assert saliency_FM.shape == mel_FM.shape
    assert saliency_FM.min() >= 0
    assert saliency_FM.max() <= 1
