"""What a trained network is, and what it says of tracks whose spectrograms are stored.

Axes: T tracks, F frames, M mel bands, G genres.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import join, read_bytes
from store.model_registry import read_card
from store.reader import open_snapshot
from training.evaluation.calibration import Calibration
from training.fit.crops import MelSlice, Tracks
from training.fit.settings import TrainSettings
from training.fit.validation import predict_tracks
from training.networks.network import WEIGHTS_FILE, build_model

HELD_OUT_PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("split", pa.string()),
        ("artist", pa.string()),
        ("title", pa.string()),
        ("truth", pa.list_(pa.int8())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)


class ModelIdentity(BaseModel, frozen=True, extra="ignore"):
    """What must be known of a model to listen with it; model.json holds it, and more."""

    genres: tuple[str, ...] = Field(description="In the order of the logits")
    mel: MelSettings = Field(description="The spectrograms it was trained on, and must be given")
    training: TrainSettings = Field(description="How it was trained: network, crops, target")
    calibration: Calibration = Field(
        Calibration(), description="What is made of its probabilities; older models have none"
    )

    @property
    def crop_frames(self) -> int:
        """Frames of one crop."""
        return self.mel.count_frames(self.training.crop_s)


def read_identity(version_url: str) -> ModelIdentity:
    """Read what a model version is. Raises: BadInput if there is none, or another program made it."""
    try:
        return ModelIdentity.model_validate(read_card(version_url))
    except ValidationError as why:
        first = why.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{version_url}/model.json: {where}: {first['msg']}; train the model again") from None


@lru_cache(maxsize=4)
def load_model(folder_url: str, identity: ModelIdentity) -> nn.Module:
    """Load the weights that lie in a folder into the network they belong to, ready to listen.

    Raises: BadInput if the file is cut short, or its weights are of another network.
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


def predict_stored_tracks(
    track_rows: Sequence[dict[str, Any]], *, snapshot_url: str, folder_url: str, identity: ModelIdentity
) -> pa.Table:
    """Let a model listen to tracks of a snapshot; give HELD_OUT_PREDICTIONS_SCHEMA, one row a track.

    The probabilities are the network's own: the calibration is fitted on them.

    Raises: BadInput if the spectrograms are not of the kind the model was trained on.
    """
    snapshot = _opened(snapshot_url)
    if snapshot.mel_fingerprint != identity.mel.settings_hash:
        raise BadInput(
            f"{snapshot_url}: mel settings {snapshot.mel_fingerprint}; the model was trained on "
            f"{identity.mel.settings_hash}: build a store with its settings"
        )
    frames_T = np.array([snapshot.frames(row["track_id"]) for row in track_rows], np.int64)
    ids = tuple(row["track_id"] for row in track_rows)
    probability_TG = _chances(load_model(folder_url, identity), snapshot.mel_slice, ids, frames_T, identity)
    rows = [
        {**row, "probabilities": probability_G}
        for row, probability_G in zip(track_rows, probability_TG.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=HELD_OUT_PREDICTIONS_SCHEMA)


# A snapshot never changes: what a worker has read of its index serves all batches.
_opened = lru_cache(maxsize=2)(open_snapshot)


def _chances(
    model: nn.Module,
    mel_slice: MelSlice,
    ids: tuple[str, ...],
    frames_T: NDArray[np.int64],
    identity: ModelIdentity,
) -> NDArray[np.float64]:
    """Shapes: (T, G), the mean over each track's crops."""
    unknown_TG = np.zeros((len(ids), len(identity.genres)), np.float32)
    tracks = Tracks(ids, frames_T, unknown_TG)
    probability_TG = predict_tracks(
        model, mel_slice, tracks, identity.crop_frames, identity.training, torch.device("cpu")
    )
    return probability_TG.numpy()
