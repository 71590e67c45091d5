"""The identity of a trained network, and its weights."""

from functools import lru_cache

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import join, read_bytes
from store.model_registry import read_card
from training.evaluation.calibration import Calibration
from training.fit.settings import TrainSettings
from training.networks.network import WEIGHTS_FILE, build_model


class ModelIdentity(BaseModel, frozen=True, extra="ignore"):
    """What inference needs to know of a model; model.json contains it, and more."""

    genres: tuple[str, ...] = Field(description="In the order of the logits")
    mel: MelSettings = Field(description="Of the spectrograms it was trained on and expects")
    training: TrainSettings = Field(description="How it was trained: network, crops, target")
    calibration: Calibration = Field(
        Calibration(), description="Temperature, thresholds and genre tree; a model in training has none yet"
    )

    @property
    def crop_frames(self) -> int:
        """Frames of one crop."""
        return self.mel.count_frames(self.training.crop_s)


def read_identity(version_url: str) -> ModelIdentity:
    """Read the identity of a model version. Raises: BadInput if there is none, or its file is not ours."""
    try:
        return ModelIdentity.model_validate(read_card(version_url))
    except ValidationError as why:
        first = why.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{version_url}/model.json: {where}: {first['msg']}; train the model again") from None


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
        reason = str(why).splitlines()[0]
        raise BadInput(f"{url}: not the weights of this network ({reason}); train the model again") from None
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]
