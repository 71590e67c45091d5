"""The networks: log-mel crops in, one logit a genre out.

Axes: B crops, F frames, M mel bands, C channels, G genres.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

# Music lies around -40 to +20 dB: this puts it around -1 to +1 before the first batch statistics exist.
MIDDLE_DB = -10.0
SPREAD_DB = 30.0


class ModelSettings(BaseModel, frozen=True, extra="forbid"):
    """Which network learns."""

    name: Literal["short-chunk-resnet", "shallow"] = Field(
        "short-chunk-resnet",
        description="short-chunk-resnet: eleven convolutions, in residual blocks; shallow: three",
    )
    width: int = Field(16, ge=4, le=512, description="Channels after the first block; later ones have more")
    dropout: float = Field(0.5, ge=0.0, lt=1.0, description="Share of features dropped before the last layer")


def build_model(settings: ModelSettings, genres: int, bands: int) -> nn.Module:
    """Make a network with fresh weights, drawn from torch's global random state.

    Shapes: it maps (B, F, M) to (B, G), for any F of at least one frame.
    Units:  dB in, logits out.
    """
    width = settings.width
    match settings.name:
        case "short-chunk-resnet":
            trunk, features = _short_chunk_trunk(width), 8 * width
        case "shallow":
            trunk, features = _shallow_trunk(width), 4 * width
    return GenreNet(trunk, features=features, genres=genres, bands=bands, dropout=settings.dropout)


class GenreNet(nn.Module):
    """A trunk of convolutions between one way in (dB) and one way out (logits)."""

    def __init__(self, trunk: nn.Module, *, features: int, genres: int, bands: int, dropout: float) -> None:
        super().__init__()
        self.bn_bands = nn.BatchNorm1d(
            bands
        )  # recordings differ in tone: each band has its own level and spread
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * features, genres)

    def forward(self, mel_BFM: Tensor) -> Tensor:
        """Shapes: (B, F, M) dB -> (B, G) logits."""
        scaled_BMF = ((mel_BFM - MIDDLE_DB) / SPREAD_DB).transpose(1, 2)
        image_B1FM = self.bn_bands(scaled_BMF).transpose(1, 2).unsqueeze(1)
        maps_BCFM = self.trunk(image_B1FM)
        # The mean tells how much of a pattern there is, the maximum whether there is any.
        features_BC = torch.cat([maps_BCFM.mean((2, 3)), maps_BCFM.amax((2, 3))], dim=1)
        logits_BG: Tensor = self.fc(self.dropout(features_BC))
        return logits_BG


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, halving frames and bands.

    Source: He et al. (2016), with torchvision's parameter names; the shape of the trunk is
            the short-chunk CNN of Won et al., "Evaluation of CNN-based automatic music
            tagging models" (2020).
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride=2, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, maps_BCFM: Tensor) -> Tensor:
        """Shapes: (B, C, F, M) -> (B, C', F/2, M/2), both rounded up."""
        inner = self.relu(self.bn1(self.conv1(maps_BCFM)))
        summed: Tensor = self.bn2(self.conv2(inner)) + self.downsample(maps_BCFM)
        out: Tensor = self.relu(summed)
        return out


def _short_chunk_trunk(width: int) -> nn.Module:
    channels = [width * factor for factor in (1, 2, 2, 4, 4, 8)]
    blocks = [ResidualBlock(before, after) for before, after in pairwise(channels)]
    # A first block would spend half of all time on the shortcut of a single channel.
    named = [
        ("stem", _plain_layer(1, width)),
        *((f"block{number}", block) for number, block in enumerate(blocks, 1)),
    ]
    return nn.Sequential(OrderedDict(named))


def _shallow_trunk(width: int) -> nn.Module:
    return nn.Sequential(*(_plain_layer(*sides) for sides in pairwise([1, width, 2 * width, 4 * width])))


def _plain_layer(channels_in: int, channels: int) -> nn.Module:
    """Make one 3x3 convolution that halves frames and bands."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
