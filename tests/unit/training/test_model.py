import pytest
import torch
from pydantic import ValidationError

from training.model import ModelSettings, build_model

NAMES = ["short-chunk-resnet", "shallow"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("frames", "bands"), [(172, 128), (1, 128), (33, 40)])
def test_crops_of_any_length_give_one_logit_a_genre(name, frames, bands):
    model = build_model(ModelSettings(name=name, width=4), 5, bands).eval()
    assert model(torch.randn(2, frames, bands)).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name):
    torch.manual_seed(0)
    model = build_model(ModelSettings(name=name, width=4, dropout=0), 3, 16)
    model(torch.randn(4, 40, 16) * 20 - 10).square().sum().backward()
    silent = [name for name, weight in model.named_parameters() if not weight.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_the_width_multiplies_the_channels(name):
    sizes = [
        sum(
            weight.numel()
            for weight in build_model(ModelSettings(name=name, width=width), 3, 16).parameters()
        )
        for width in (8, 16)
    ]
    assert 3 < sizes[1] / sizes[0] < 4.1


def test_a_model_nobody_wrote_is_refused():
    with pytest.raises(ValidationError, match="'short-chunk-resnet' or 'shallow'"):
        ModelSettings(name="vgg")
