import math

import pytest
import torch

from tests.support.torchvision_reference import parameter_shapes, random_state, reference_maps
from training.inference.onnx_export import relative_rounding
from training.networks.torchvision_nets import make_torchvision_trunk

# Number of weights without the classifier, entries of the state dict, and channels of torchvision's networks;
# their first convolution has three input channels: the weights of two are subtracted.
TRUTH = {
    "resnet18": (11_176_512 - 2 * 64 * 49, 120, 512),
    "resnet34": (21_284_672 - 2 * 64 * 49, 216, 512),
    "resnet50": (23_508_032 - 2 * 64 * 49, 318, 2_048),
    "vgg16": (14_714_688 - 2 * 64 * 9, 26, 512),
}


@pytest.mark.parametrize("name", TRUTH)
def test_weights_have_torchvisions_names_shapes_and_number(name):
    with torch.device("meta"):
        trunk, features = make_torchvision_trunk(name)
    parameters, entries, channels = TRUTH[name]
    assert sum(weight.numel() for weight in trunk.parameters()) == parameters
    assert (len(trunk.state_dict()), features) == (entries, channels)
    wanted = parameter_shapes(name)
    first = next(iter(wanted))
    wanted[first] = (wanted[first][0], 1, *wanted[first][2:])
    assert {key: tuple(weight.shape) for key, weight in trunk.state_dict().items()} == wanted


@pytest.mark.parametrize("name", TRUTH)
def test_maps_are_those_of_torchvisions_network(name):
    state = random_state(name)
    first = next(iter(state))
    state[first] = state[first].sum(1, keepdim=True)
    trunk, _ = make_torchvision_trunk(name)
    trunk.load_state_dict({key: state[key] for key in trunk.state_dict()})
    image_B1FM = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps, wanted = trunk.eval()(image_B1FM), reference_maps(name, state, image_B1FM)
    assert wanted.std() > 0.01
    bound = relative_rounding(trunk) * wanted.abs().max().item()
    torch.testing.assert_close(maps, wanted, atol=bound, rtol=0)


@pytest.mark.parametrize("name", TRUTH)
@pytest.mark.parametrize(("frames", "bands", "shape"), [(1, 8, (1, 1)), (33, 40, (2, 2)), (64, 32, (2, 1))])
def test_frames_and_bands_shrink_by_32_and_round_up(name, frames, bands, shape):
    with torch.device("meta"):  # shapes without the work
        trunk, features = make_torchvision_trunk(name)
        assert trunk.eval()(torch.randn(1, 1, frames, bands)).shape == (1, features, *shape)


@pytest.mark.parametrize("name", TRUTH)
def test_fresh_kernels_keep_the_size_of_gradients(name):
    torch.manual_seed(0)
    trunk, _ = make_torchvision_trunk(name)
    for key, weight in trunk.named_parameters():
        if weight.ndim == 4:
            deviation = math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))
            five_sigma = 5 / math.sqrt(2 * weight.numel())  # of the standard deviation of so many numbers
            assert weight.std().item() == pytest.approx(deviation, rel=five_sigma), key
        else:
            assert set(weight.unique().tolist()) == {0.0 if key.endswith("bias") else 1.0}, key
