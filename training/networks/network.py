"""The networks: log-mel crops in, one logit a genre out.

Axes: B crops, F frames, M mel bands, C channels, G genres.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.networks.residual_blocks import ResidualBlock
from training.networks.settings import ModelSettings
from training.networks.torchvision_nets import make_torchvision_trunk

# Music lies around -40 to +20 dB: this puts it around -1 to +1 before the first batch statistics exist.
INPUT_MEAN_DB = -10.0
INPUT_SCALE_DB = 30.0

WEIGHTS_FILE = "weights.safetensors"  # a network's file, in the folder of a run or of a model version


def build_model(settings: ModelSettings, genres: int, bands: int) -> "GenreNet":
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
        case "resnet18" | "resnet34" | "resnet50" | "vgg16" as name:
            trunk, features = make_torchvision_trunk(name)
    return GenreNet(trunk, features=features, genres=genres, bands=bands, dropout=settings.dropout)


class GenreNet(nn.Module):
    """A trunk of convolutions between one way in (dB) and one way out (logits)."""

    def __init__(self, trunk: nn.Module, *, features: int, genres: int, bands: int, dropout: float) -> None:
        super().__init__()
        # Recordings differ in tone: each band has its own level and spread.
        self.bn_bands = nn.BatchNorm1d(bands)
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * features, genres)
        self.trunk_frozen = False

    def freeze_trunk(self, frozen: bool) -> None:
        """Keep the trunk as it is, statistics of its batch norms included, or let it learn again.

        Under DistributedDataParallel wrap the network anew afterwards: it has noted which
        weights learn, and would wait for those that no longer do and not share those that now do.
        """
        self.trunk_frozen = frozen
        self.trunk.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "GenreNet":
        """Switch between learning and listening; a frozen trunk goes on listening."""
        super().train(mode)
        self.trunk.train(mode and not self.trunk_frozen)
        return self

    def forward(self, mel_BFM: Tensor) -> Tensor:
        """Shapes: (B, F, M) dB -> (B, G) logits."""
        scaled_BMF = ((mel_BFM - INPUT_MEAN_DB) / INPUT_SCALE_DB).transpose(1, 2)
        image_B1FM = self.bn_bands(scaled_BMF).transpose(1, 2).unsqueeze(1)
        maps_BCFM = self.trunk(image_B1FM)
        # The mean tells how much of a pattern there is, the maximum whether there is any.
        features_BC = torch.cat([maps_BCFM.mean((2, 3)), maps_BCFM.amax((2, 3))], dim=1)
        logits_BG: Tensor = self.fc(self.dropout(features_BC))
        return logits_BG


def _short_chunk_trunk(width: int) -> nn.Module:
    """Source: the short-chunk CNN of Won et al., "Evaluation of CNN-based automatic music tagging models" (2020)."""
    channels = [width * factor for factor in (1, 2, 2, 4, 4, 8)]
    blocks = [ResidualBlock(before, after, stride=2) for before, after in pairwise(channels)]
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
