"""torchvision's networks with ImageNet weights: the convolutions alone, for images of one channel.

Parameters have torchvision's names and, except in the first convolution, its shapes, so that its
state dicts fit (training/networks/pretrained.py reads them). Torchvision itself is not needed.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from training.networks.residual_blocks import BottleneckBlock, ResidualBlock

TorchvisionName = Literal["resnet18", "resnet34", "resnet50", "vgg16"]

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, number of convolutions


def make_torchvision_trunk(name: TorchvisionName) -> tuple[nn.Module, int]:
    """Return the convolutions of a network, with random weights, and the number of channels of their output.

    Shapes: the trunk maps (B, 1, F, M) to (B, C, F/32, M/32), both rounded up.
    Source: initial weights of He et al., "Delving deep into rectifiers" (2015), as torchvision draws them.
    """
    match name:
        case "resnet18":
            trunk, features = _resnet(ResidualBlock, (2, 2, 2, 2), widening=1)
        case "resnet34":
            trunk, features = _resnet(ResidualBlock, (3, 4, 6, 3), widening=1)
        case "resnet50":
            trunk, features = _resnet(BottleneckBlock, (3, 4, 6, 3), widening=4)
        case "vgg16":
            trunk, features = _vgg16()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return trunk, features


def _resnet(
    block: type[ResidualBlock | BottleneckBlock], depths: tuple[int, ...], *, widening: int
) -> tuple[nn.Module, int]:
    """Source: He et al., "Deep residual learning for image recognition" (2016)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(64),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels_in = 64
    for number, depth in enumerate(depths, 1):
        channels = 64 * 2 ** (number - 1) * widening
        first = block(channels_in, channels, stride=1 if number == 1 else 2)
        others = [block(channels, channels, stride=1) for _ in range(depth - 1)]
        layers[f"layer{number}"] = nn.Sequential(first, *others)
        channels_in = channels
    return nn.Sequential(layers), channels_in


def _vgg16() -> tuple[nn.Module, int]:
    """Source: Simonyan and Zisserman, "Very deep convolutional networks" (2015), configuration D.

    Poolings include an incomplete window at an edge, which torchvision's drop: a crop of fewer than
    32 frames or bands would have an empty output. For multiples of 32 both are the same.
    """
    layers: list[nn.Module] = []
    channels_in = 1
    for channels, convolutions in VGG16_STAGES:
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels_in, channels, 3, padding=1), nn.ReLU(inplace=True)]
            channels_in = channels
        layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers))), channels_in
