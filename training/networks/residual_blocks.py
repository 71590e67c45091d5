"""The blocks of residual networks, with torchvision's parameter names.

Axes: B crops, C channels, F frames, M mel bands.
"""

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Source: He et al., "Deep residual learning for image recognition" (2016).
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels_in, channels, stride)

    def forward(self, maps_BCFM: Tensor) -> Tensor:
        """Return the maps of the next block. Shapes: (B, C, F, M) -> (B, C', F/stride, M/stride), rounded up."""
        inner = self.relu(self.bn1(self.conv1(maps_BCFM)))
        summed: Tensor = self.bn2(self.conv2(inner)) + self.downsample(maps_BCFM)
        out: Tensor = self.relu(summed)
        return out


class BottleneckBlock(nn.Module):
    """A 3x3 convolution on a quarter of the channels, between two 1x1 convolutions, and a shortcut.

    Source: He et al. (2016); the stride is in the 3x3 convolution, as torchvision has it, not in the
            first 1x1 of the paper.
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels_in, channels, stride)

    def forward(self, maps_BCFM: Tensor) -> Tensor:
        """Return the maps of the next block. Shapes: (B, C, F, M) -> (B, C', F/stride, M/stride), rounded up."""
        inner = self.relu(self.bn1(self.conv1(maps_BCFM)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        summed: Tensor = self.bn3(self.conv3(inner)) + self.downsample(maps_BCFM)
        out: Tensor = self.relu(summed)
        return out


def _shortcut(channels_in: int, channels: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
    )
