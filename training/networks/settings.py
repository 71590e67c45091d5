"""Which network learns, and what it starts from."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class ModelSettings(BaseModel, frozen=True, extra="forbid"):
    """Which network learns."""

    name: Literal["short-chunk-resnet", "shallow", "resnet18", "resnet34", "resnet50", "vgg16"] = Field(
        "short-chunk-resnet",
        description="short-chunk-resnet: eleven convolutions, in residual blocks; shallow: three; "
        "resnet18 to vgg16: torchvision's, which can start from its ImageNet weights",
    )
    width: int = Field(
        16,
        ge=4,
        le=512,
        description="Channels after the first block, of short-chunk-resnet and shallow; later blocks have "
        "more. The other networks have a width of their own, and leave this unread",
    )
    dropout: float = Field(0.5, ge=0.0, lt=1.0, description="Share of features dropped before the last layer")

    @property
    def architecture(self) -> str:
        """Name what decides the shapes of the trunk's weights: these fit where two names are equal."""
        match self.name:
            case "short-chunk-resnet" | "shallow":
                return f"{self.name} of width {self.width}"
            case _:
                return self.name


TORCH_SUFFIXES = (".pth", ".pt")
WEIGHT_SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")


class PretrainedSettings(BaseModel, frozen=True, extra="forbid"):
    """What the network starts from."""

    weights: str = Field(
        "",
        description="torchvision state dict (.pth, .pt or .safetensors), or a model version's folder; "
        "a path or URL; empty for fresh weights",
    )
    frozen_epochs: int = Field(
        0, ge=0, le=10_000, description="Epochs at the beginning in which the trunk stays as it was"
    )

    @model_validator(mode="after")
    def _fresh_weights_must_learn(self) -> "PretrainedSettings":
        if self.frozen_epochs and not self.weights:
            raise ValueError(f"frozen_epochs {self.frozen_epochs} needs weights: a fresh trunk must learn")
        return self


def is_state_dict_file(weights: str) -> bool:
    """Say whether a start is named as a file of torchvision's; if not, it is a model version."""
    return lower_path(weights).endswith(WEIGHT_SUFFIXES)


def lower_path(url: str) -> str:
    """Return the path of a URL in lower case, without its query."""
    return url.partition("?")[0].lower() if "://" in url else url.lower()
