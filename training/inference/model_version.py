"""The identity of a trained model, its members, and its network's weights."""

from functools import lru_cache

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput, first_line
from store.fs.files import join, read_bytes
from store.model_registry import CARD_FILE, read_card
from training.evaluation.calibration import Calibration
from training.fit.settings import TrainSettings
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import FEATURES, NETWORK, ModelSettings


class MemberSettings(BaseModel, frozen=True, extra="ignore"):
    """One of the members whose predictions make up those of a model."""

    kind: str = Field(NETWORK, description="network or features")
    weight: float = Field(1.0, ge=0.0, description="Of the logarithms of its probabilities")
    extra: str = Field(
        "", description="Extra of this program that has to be installed for it; empty for none"
    )


class ModelIdentity(BaseModel, frozen=True, extra="ignore"):
    """What inference needs to know of a model; model.json contains it, and more."""

    genres: tuple[str, ...] = Field(description="In the order of the logits")
    mel: MelSettings = Field(description="Of the spectrograms it was trained on and expects")
    training: TrainSettings = Field(description="How it was trained: network, crops, target")
    calibration: Calibration = Field(
        Calibration(), description="Temperature, thresholds and genre tree; a model in training has none yet"
    )

    members: tuple[MemberSettings, ...] = Field(
        (MemberSettings(),), min_length=1, description="Their weights sum to 1"
    )

    @property
    def has_network(self) -> bool:
        """Whether one of the members is a network."""
        return any(member.kind == NETWORK for member in self.members)

    @property
    def crop_frames(self) -> int:
        """Frames of one crop of the network."""
        return self.mel.count_frames(self.training.crop_s)


def read_identity(version_url: str) -> ModelIdentity:
    """Read the identity of a model version. Raises: BadInput if there is none, or its file is not ours."""
    try:
        identity = ModelIdentity.model_validate(read_card(version_url))
    except ValidationError as why:
        first = why.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(
            f"{join(version_url, CARD_FILE)}: {where}: {first['msg']}; train the model again"
        ) from None
    _check_members(version_url, identity)
    return identity


def _check_members(version_url: str, identity: ModelIdentity) -> None:
    """Raise BadInput if this program lacks a member of the model."""
    for member in identity.members:
        if member.kind not in (NETWORK, FEATURES):
            remedy = (
                f"pip install 'spectrogram-one[{member.extra}]'"
                if member.extra
                else "use the release of this program that it was trained with"
            )
            raise BadInput(
                f"{version_url}: the model needs the member {member.kind!r}, which is not installed here; {remedy}"
            )


def members_of(settings: ModelSettings) -> tuple[MemberSettings, ...]:
    """Return the members of a model, with their weights."""
    weights = {NETWORK: settings.network_share, FEATURES: 1 - settings.network_share}
    kinds = settings.members
    return tuple(MemberSettings(kind=kind, weight=weights[kind] if len(kinds) > 1 else 1.0) for kind in kinds)


@lru_cache(maxsize=4)
def load_model(folder_url: str, identity: ModelIdentity) -> nn.Module:
    """Build a model's network with the weights that lie in a folder, ready for inference.

    Raises: BadInput if the file is truncated, or its weights are of another network.
    """
    model = build_model(identity.training.model, len(identity.genres), identity.mel.bands)
    url = join(folder_url, WEIGHTS_FILE)
    try:
        model.load_state_dict(safetensors.torch.load(read_bytes(url)))
    except FileNotFoundError:
        raise BadInput(f"{url}: the weights are missing; train the model again") from None
    except (safetensors.SafetensorError, RuntimeError) as why:
        raise BadInput(
            f"{url}: not the weights of this network ({first_line(why)}); train the model again"
        ) from None
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]
