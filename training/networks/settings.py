"""The kind of model, its network, and the network's initial weights."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

NETWORK, FEATURES = "network", "features"  # the kinds of members of a model
NetworkName = Literal["short-chunk-resnet", "shallow", "resnet18", "resnet34", "resnet50", "vgg16"]

MOST_BLOCKS = 5  # of short-chunk-resnet


class ModelSettings(BaseModel, frozen=True, extra="forbid"):
    """The kind of model that is trained, and its network."""

    name: Literal[
        "auto",
        "features",
        "average",
        "short-chunk-resnet",
        "shallow",
        "resnet18",
        "resnet34",
        "resnet50",
        "vgg16",
    ] = Field(
        "auto",
        description="auto: the best of the following three by cross-validation; features: a kernel machine on six "
        "blocks of features; short-chunk-resnet: a network of eleven convolutions in residual blocks; average: both "
        "together; shallow: three convolutions; resnet18 to vgg16: torchvision's networks, which can start from its "
        "ImageNet weights",
    )
    musicnn: str = Field(
        "",
        description="Wheel of musicnn 0.1.0, a path or URL, whose embedding of a track becomes a seventh block of the "
        "feature machine; needs spectrograms of 16 kHz, window 512, hop 256 and 96 bands; empty for six blocks. "
        "Networks ignore this",
    )
    network_share: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Share of the network in the decision of an average; with auto it is fitted",
    )
    width: int = Field(
        16,
        ge=4,
        le=512,
        description="Channels after the first layer of short-chunk-resnet and shallow; later layers have more. "
        "The other networks have a fixed width and ignore this",
    )
    depth: int = Field(
        MOST_BLOCKS,
        ge=0,
        le=MOST_BLOCKS,
        description="Residual blocks of short-chunk-resnet, fewer without the last ones; other networks ignore this",
    )
    batch_norm: bool = Field(
        True, description="Batch norm after each convolution; without, each channel has a bias alone"
    )
    dropout: float = Field(
        0.5, ge=0.0, lt=1.0, description="Dropout: share of features that are zeroed before the last layer"
    )

    @property
    def has_musicnn(self) -> bool:
        """Whether musicnn's embedding is one of the features of the model, if a feature machine is a member."""
        return bool(self.musicnn) and self.name in ("auto", "features", "average")

    @property
    def architecture(self) -> str:
        """Return a name of the trunk's architecture: weights fit where two names are equal."""
        without = "" if self.batch_norm else " without batch norm"
        match self.network:
            case "short-chunk-resnet" as name:
                depth = "" if self.depth == MOST_BLOCKS else f" and {self.depth} blocks"
                return f"{name} of width {self.width}{depth}{without}"
            case "shallow" as name:
                return f"{name} of width {self.width}{without}"
            case name:
                return f"{name}{without}"

    @property
    def network(self) -> NetworkName:
        """Return the architecture of the model's network; the default one where the model's kind leaves it open."""
        match self.name:
            case "auto" | "features" | "average":
                return "short-chunk-resnet"
            case name:
                return name

    @property
    def members(self) -> tuple[str, ...]:
        """Return the kinds of the model's members. Before `auto` has chosen, a network."""
        match self.name:
            case "features":
                return (FEATURES,)
            case "average":
                return (NETWORK, FEATURES)
            case _:
                return (NETWORK,)


TORCH_SUFFIXES = (".pth", ".pt")
WEIGHT_SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")


class PretrainedSettings(BaseModel, frozen=True, extra="forbid"):
    """The weights that training starts from."""

    weights: str = Field(
        "",
        description="torchvision state dict (.pth, .pt or .safetensors), or a model version's folder; "
        "a path or URL; empty for random weights",
    )
    frozen_epochs: int = Field(0, ge=0, le=10_000, description="First epochs in which the trunk is frozen")

    @model_validator(mode="after")
    def _check_frozen_epochs(self) -> "PretrainedSettings":
        if self.frozen_epochs and not self.weights:
            raise ValueError(
                f"--frozen-epochs {self.frozen_epochs} needs --weights: a random trunk must be trained"
            )
        return self


def is_state_dict_file(weights: str) -> bool:
    """Return whether pretrained weights are a state dict file by their name; if not, they are a model version."""
    return lower_path(weights).endswith(WEIGHT_SUFFIXES)


def lower_path(url: str) -> str:
    """Return the path of a URL in lower case, without its query."""
    return url.partition("?")[0].lower() if "://" in url else url.lower()
