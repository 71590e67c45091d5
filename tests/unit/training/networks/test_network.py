import copy
import math

import pytest
import torch
from pydantic import ValidationError
from torch.optim import AdamW

from training.fit.settings import AugmentSettings, TrainSettings
from training.fit.step import train_step
from training.inference.onnx_export import relative_rounding
from training.loading.batches import Batch
from training.networks.network import build_model
from training.networks.settings import ModelSettings

OUR_NAMES = ["short-chunk-resnet", "shallow"]
NAMES = [*OUR_NAMES, "resnet18", "resnet34", "resnet50", "vgg16"]
SETTINGS = TrainSettings(
    batch_size=4, micro_batch_size=2, weight_decay=0.5, augment=AugmentSettings(masks=0, gain_db=0, tone_db=0)
)


def batch(bands=16, size=4):
    random = torch.Generator().manual_seed(5)
    mel_BFM = torch.randn(size, 20, bands, generator=random) * 20 - 10
    return Batch(mel_BFM, torch.eye(3)[torch.arange(size) % 3])


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    """Return the names of tensors that changed, except counts of batches."""
    return {
        name
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked") and not torch.equal(tensor, before[name])
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("frames", "bands"), [(172, 128), (1, 8), (33, 40)])
def test_crops_of_any_length_have_one_logit_for_each_genre(name, frames, bands):
    model = build_model(ModelSettings(name=name, width=4), 5, bands).eval()
    with torch.no_grad():
        assert model(torch.randn(2, frames, bands)).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES)
def test_the_shortest_crops_can_be_learned_from(name):
    """From one frame and eight bands the last maps are one point: batch norm has one number for each crop."""
    model = build_model(ModelSettings(name=name, width=4), 3, 8)
    settings = SETTINGS.model_copy(update={"batch_size": 16, "micro_batch_size": 16})
    whole = batch(bands=8, size=16)
    short = Batch(whole.mel_BFM[:, :1], whole.target_BG)
    step = train_step(model, torch.optim.SGD(model.parameters(), lr=0.01), short, settings, seeds=[1])
    assert step.loss.isfinite()
    assert step.grad_norm.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_a_gradient(name):
    torch.manual_seed(0)
    model = build_model(ModelSettings(name=name, width=4, dropout=0), 3, 16)
    model(torch.randn(4, 40, 16) * 20 - 10).square().sum().backward()
    without_gradient = [name for name, weight in model.named_parameters() if not weight.grad.abs().sum() > 0]
    assert without_gradient == []


@pytest.mark.parametrize("name", OUR_NAMES)
def test_the_width_multiplies_the_channels(name):
    sizes = [
        sum(
            weight.numel()
            for weight in build_model(ModelSettings(name=name, width=width), 3, 16).parameters()
        )
        for width in (8, 16)
    ]
    assert 3 < sizes[1] / sizes[0] < 4.1


def test_equal_architectures_have_equal_names():
    assert ModelSettings(width=8).architecture == "short-chunk-resnet of width 8"
    assert ModelSettings(width=8).architecture == ModelSettings(width=8, dropout=0.1).architecture
    assert ModelSettings(name="resnet18", width=8).architecture == ModelSettings(name="resnet18").architecture


@pytest.mark.parametrize("depth", [0, 2])
def test_fewer_blocks_are_a_shallower_network_of_another_architecture(depth):
    settings = ModelSettings(width=4, depth=depth)
    model = build_model(settings, 3, 16)
    assert [name for name, _ in model.trunk.named_children()][1:] == [f"block{it + 1}" for it in range(depth)]
    assert model(torch.zeros(2, 40, 16)).shape == (2, 3)
    assert settings.architecture == f"short-chunk-resnet of width 4 and {depth} blocks"


@pytest.mark.parametrize("name", NAMES)
def test_a_trunk_without_batch_norm_has_biases_that_learn(name):
    model = build_model(ModelSettings(name=name, width=4, dropout=0, batch_norm=False), 3, 16)
    kinds = {type(module) for module in model.trunk.modules()}
    assert torch.nn.BatchNorm2d not in kinds
    assert ModelSettings(name=name, batch_norm=False).architecture != ModelSettings(name=name).architecture
    if name == "shallow":
        model(torch.randn(2, 40, 16)).square().sum().backward()
        assert all(weight.grad.abs().sum() > 0 for weight in model.trunk.parameters())


def test_an_unknown_network_is_refused():
    with pytest.raises(ValidationError, match=r"'short-chunk-resnet', 'shallow', .* or 'vgg16'"):
        ModelSettings(name="vgg")


@pytest.fixture(params=["short-chunk-resnet", "resnet18", "resnet50", "vgg16"])
def model(request):
    """A network whose logits depend on its trunk alone: a bias of the head would hide its errors."""
    torch.manual_seed(0)
    model = build_model(ModelSettings(name=request.param, width=4), 3, 16).eval()
    torch.nn.init.zeros_(model.fc.bias)
    return model


def half_precision_rounding(model):
    """How far bfloat16 may move the logits, relative to the largest.

    Each layer rounds its input, its weights and its output, each to 8 significant bits (unit roundoff
    2^-8), and adds up in float32. The signs of these errors are random: they grow with the square root.
    """
    layers = [it for it in model.modules() if isinstance(it, torch.nn.Conv2d | torch.nn.Linear)]
    return 2**-8 * math.sqrt(3 * len(layers))


@torch.no_grad()
def test_channels_last_changes_the_logits_by_rounding_alone(model):
    mel_BFM = batch().mel_BFM
    logits_BG = model(mel_BFM)
    bound = relative_rounding(model) * logits_BG.abs().max().item()
    model = model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(mel_BFM), logits_BG, atol=bound, rtol=0)


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@torch.no_grad()
def test_half_precision_changes_the_logits_by_rounding_alone(model):
    """As on a GPU; CPUs train in float32. oneDNN is left out: with AMX units, its bfloat16 convolutions of
    maps as small as (3, 2) read memory that was never written, and differ from run to run.
    """
    mel_BFM = batch().mel_BFM
    logits_BG = model(mel_BFM)
    with torch.autocast("cpu", torch.bfloat16), torch.backends.mkldnn.flags(enabled=False):
        half_BG = model.to(memory_format=torch.channels_last)(mel_BFM)
    assert half_BG.dtype == torch.bfloat16
    bound = half_precision_rounding(model) * logits_BG.abs().max().item()
    torch.testing.assert_close(half_BG.float(), logits_BG, atol=bound, rtol=0)


@pytest.mark.parametrize("name", ["short-chunk-resnet", "resnet18", "vgg16"])
def test_a_frozen_trunk_stays_unchanged_while_the_rest_is_trained(name):
    torch.manual_seed(0)
    model = build_model(ModelSettings(name=name, width=4, dropout=0), 3, 16)
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    train_step(model, optimizer, batch(), SETTINGS, seeds=[1, 2])  # so that there are gradients and momentum
    model.freeze_trunk(True)
    before = state_of(model)
    for _ in range(2):
        model.train()
        train_step(model, optimizer, batch(), SETTINGS, seeds=[1, 2])
    kinds = {"weight", "bias", "running_mean", "running_var"}
    others = {f"bn_bands.{kind}" for kind in kinds} | {"fc.weight", "fc.bias"}
    assert changed(model, before) == others
    model.freeze_trunk(False)
    before = state_of(model)
    train_step(model, optimizer, batch(), SETTINGS, seeds=[1, 2])
    assert changed(model, before) == {name for name in before if not name.endswith("num_batches_tracked")}


def test_a_frozen_trunk_uses_its_running_statistics_alone():
    torch.manual_seed(0)
    model = build_model(ModelSettings(width=4, dropout=0), 3, 16)
    maps_B1FM = torch.randn(4, 1, 20, 16)
    evaluated = copy.deepcopy(model).eval().trunk(maps_B1FM)
    assert not torch.allclose(copy.deepcopy(model).train().trunk(maps_B1FM), evaluated)
    model.freeze_trunk(True)
    torch.testing.assert_close(model.trunk(maps_B1FM), evaluated)
    torch.testing.assert_close(model.train().trunk(maps_B1FM), evaluated)
    model.eval().freeze_trunk(False)
    assert not model.trunk.training  # evaluation mode stays
    assert model.train().trunk.training
