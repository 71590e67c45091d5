"""The networks: from log-mel crops to one logit for each genre.

Axes: B crops, F frames, M mel bands, C channels, G genres.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.networks.residual_blocks import ResidualBlock
from training.networks.settings import ModelSettings
from training.networks.torchvision_nets import make_torchvision_trunk

# Music lies at about -40 to +20 dB: this scales it to about -1 to +1 before there are batch-norm statistics.
INPUT_MEAN_DB = -10.0
INPUT_SCALE_DB = 30.0

WEIGHTS_FILE = "weights.safetensors"  # in the folder of a run or of a model version


def build_model(settings: ModelSettings, genres: int, bands: int) -> "GenreNet":
    """Return a network with random weights, drawn from torch's global generator.

    Shapes: the network maps (B, F, M) to (B, G), for any F of at least one frame.
    Units:  dB to logits.
    """
    width = settings.width
    match settings.network:
        case "short-chunk-resnet":
            trunk, features = _short_chunk_trunk(width, settings.depth)
        case "shallow":
            trunk, features = _shallow_trunk(width), 4 * width
        case "resnet18" | "resnet34" | "resnet50" | "vgg16" as name:
            trunk, features = make_torchvision_trunk(name)
    if not settings.batch_norm:
        replace_batch_norm(trunk)
    return GenreNet(trunk, features=features, genres=genres, bands=bands, dropout=settings.dropout)


class GenreNet(nn.Module):
    """A trunk of convolutions between the normalisation of mel bands and a linear head."""

    def __init__(self, trunk: nn.Module, *, features: int, genres: int, bands: int, dropout: float) -> None:
        super().__init__()
        # Recordings differ in tone: each band is normalised by itself.
        self.bn_bands = nn.BatchNorm1d(bands)
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * features, genres)
        self.trunk_frozen = False

    def freeze_trunk(self, frozen: bool) -> None:
        """Freeze the trunk, its batch-norm statistics included, or let it train again.

        Wrap the network in a new DistributedDataParallel afterwards: the old one recorded which weights
        have gradients, would wait for those that no longer do and not average those that now do.
        """
        self.trunk_frozen = frozen
        self.trunk.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "GenreNet":
        """Set training or evaluation mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.train(mode and not self.trunk_frozen)
        return self

    def forward(self, mel_BFM: Tensor) -> Tensor:
        """Return the logits of crops. Shapes: (B, F, M) dB -> (B, G)."""
        scaled_BMF = ((mel_BFM - INPUT_MEAN_DB) / INPUT_SCALE_DB).transpose(1, 2)
        image_B1FM = self.bn_bands(scaled_BMF).transpose(1, 2).unsqueeze(1)
        maps_BCFM = self.trunk(image_B1FM)
        # The mean measures how much of a pattern there is, the maximum whether there is any.
        features_BC = torch.cat([maps_BCFM.mean((2, 3)), maps_BCFM.amax((2, 3))], dim=1)
        logits_BG: Tensor = self.fc(self.dropout(features_BC))
        return logits_BG


class ChannelBias(nn.Module):
    """A bias for each channel: what is left where a convolution has no batch norm after it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, maps_BCFM: Tensor) -> Tensor:
        """Return the maps with their biases added. Shapes: (B, C, F, M) -> (B, C, F, M)."""
        return maps_BCFM + self.bias


def replace_batch_norm(trunk: nn.Module) -> None:
    """Replace each batch norm by a bias for each channel."""
    for module in list(trunk.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, ChannelBias(child.num_features))


def _short_chunk_trunk(width: int, depth: int) -> tuple[nn.Module, int]:
    """Return the trunk of a short-chunk CNN, with residual blocks, and the number of channels of its output.

    Source: Won et al., "Evaluation of CNN-based automatic music tagging models" (2020).
    """
    channels = [width * factor for factor in (1, 2, 2, 4, 4, 8)][: depth + 1]
    blocks = [ResidualBlock(before, after, stride=2) for before, after in pairwise(channels)]
    # A residual block here would spend half of all time on the shortcut of a single channel.
    layers = [
        ("stem", _conv_layer(1, width)),
        *((f"block{number}", block) for number, block in enumerate(blocks, 1)),
    ]
    return nn.Sequential(OrderedDict(layers)), channels[-1]


def _shallow_trunk(width: int) -> nn.Module:
    return nn.Sequential(*(_conv_layer(*channels) for channels in pairwise([1, width, 2 * width, 4 * width])))


def _conv_layer(channels_in: int, channels: int) -> nn.Module:
    """Return one 3x3 convolution with batch norm and ReLU that halves frames and bands."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
