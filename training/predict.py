"""What a trained network says of tracks: stored ones, and files it listens to.

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

from preprocessing.build import Track
from preprocessing.errors import BadAudio
from preprocessing.mel import MelSettings
from preprocessing.sandbox import Sandbox, sandbox_of_this_thread
from preprocessing.spectrogram import ExcerptSettings, LimitSettings
from store.errors import BadInput
from store.files import join, local_path, read_bytes
from store.models import read_card
from store.predictions import PREDICTIONS_SCHEMA, signature
from store.reader import open_snapshot
from store.tags import read_genres
from training.crops import MelSlice, Tracks
from training.decision import Decision, ancestors
from training.model import build_model
from training.run import WEIGHTS, TrainSettings
from training.validation import hear

HEARD_SCHEMA = pa.schema(
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
    decision: Decision = Field(
        Decision(), description="What is made of its probabilities; older models have none"
    )

    @property
    def crop_frames(self) -> int:
        """Frames of one crop."""
        return self.mel.frames_in(self.training.crop_s)


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
    url = join(folder_url, WEIGHTS)
    try:
        model.load_state_dict(safetensors.torch.load(read_bytes(url)))
    except FileNotFoundError:
        raise BadInput(f"{url}: the weights are missing; train the model again") from None
    except (safetensors.SafetensorError, RuntimeError) as why:
        reason = str(why).splitlines()[0]
        raise BadInput(f"{url}: not the weights of this network ({reason}); train the model again") from None
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def hear_stored(
    track_rows: Sequence[dict[str, Any]], *, snapshot_url: str, folder_url: str, identity: ModelIdentity
) -> pa.Table:
    """Let a model listen to tracks of a snapshot; give HEARD_SCHEMA, one row a track.

    The probabilities are the network's own: the decision is fitted on them.

    Raises: BadInput if the spectrograms are not of the kind the model was trained on.
    """
    snapshot = _opened(snapshot_url)
    if snapshot.mel_fingerprint != identity.mel.fingerprint:
        raise BadInput(
            f"{snapshot_url}: mel settings {snapshot.mel_fingerprint}; the model was trained on "
            f"{identity.mel.fingerprint}: build a store with its settings"
        )
    frames_T = np.array([snapshot.frames(row["track_id"]) for row in track_rows], np.int64)
    ids = tuple(row["track_id"] for row in track_rows)
    chance_TG = _chances(load_model(folder_url, identity), snapshot.mel_slice, ids, frames_T, identity)
    rows = [
        {**row, "probabilities": chance_G}
        for row, chance_G in zip(track_rows, chance_TG.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=HEARD_SCHEMA)


# A snapshot never changes: what a worker has read of its index serves all batches.
_opened = lru_cache(maxsize=2)(open_snapshot)


def listen(
    tracks: Sequence[Track],
    *,
    version_url: str,
    identity: ModelIdentity,
    excerpt: ExcerptSettings,
    limits: LimitSettings,
    skip_tagged: bool,
) -> pa.Table:
    """Listen to audio files; give PREDICTIONS_SCHEMA, one row a track. A bad file is an answer.

    With `skip_tagged`, files that have a genre are not listened to. Nothing is written.
    """
    model, sandbox = load_model(version_url, identity), sandbox_of_this_thread(limits)
    rows = [_listen_to(track, model, identity, sandbox, excerpt, skip_tagged=skip_tagged) for track in tracks]
    version = version_url.rstrip("/").rsplit("/", 1)[-1]
    return pa.Table.from_pylist(
        [{**row, "model_version": version} for row in rows], schema=PREDICTIONS_SCHEMA
    )


def _listen_to(
    track: Track,
    model: nn.Module,
    identity: ModelIdentity,
    sandbox: Sandbox,
    excerpt: ExcerptSettings,
    *,
    skip_tagged: bool,
) -> dict[str, Any]:
    path = local_path(track.url)
    assert path is not None, "the flow lists local files only"
    row: dict[str, Any] = {"track_id": track.track_id, "url": track.url}
    try:
        row |= dict(zip(("size_bytes", "mtime_ns", "ctime_ns"), signature(path), strict=True))
        row["old_genres"] = read_genres(path)
        if row["old_genres"] and skip_tagged:
            return {**row, "status": "kept", "reason": "has-genre", "detail": ", ".join(row["old_genres"])}
        _, pieces = sandbox.mel(path, identity.mel, excerpt)
        mel_FM = np.concatenate(list(pieces))
    except FileNotFoundError:
        return {**row, "status": "rejected", "reason": "missing", "detail": "no such file"}
    except PermissionError:
        return {**row, "status": "rejected", "reason": "no-permission", "detail": "this user may not read it"}
    except BadAudio as why:
        return {**row, "status": "rejected", "reason": why.reason, "detail": why.detail}
    except BadInput as why:
        return {**row, "status": "rejected", "reason": "unsupported", "detail": str(why)}
    mel_slice = _slice_of(mel_FM)
    raw_TG = _chances(model, mel_slice, (track.track_id,), np.array([len(mel_FM)]), identity)
    (chance_G,) = identity.decision.calibrate(raw_TG, identity.genres, identity.training.target)
    genres = decide(chance_G, identity)
    return {
        **row,
        "status": "change" if genres else "unsure",
        "genres": genres,
        "confidence": float(chance_G.max()),
        "probabilities": chance_G.tolist(),
    }


def decide(chance_G: NDArray[np.float64], identity: ModelIdentity) -> list[str]:
    """Name the genres that calibrated probabilities stand for, the likeliest first.

    A genre is never likelier than what it is a kind of: of equally likely ones the wider comes first.
    """
    genres, decision = identity.genres, identity.decision
    (told_G,) = decision.tell(chance_G[None], genres, identity.training.target)
    depth_G = np.array([len(above) for above in ancestors(genres, decision.parents)])
    return [genres[place] for place in np.lexsort((depth_G, -chance_G)) if told_G[place]]


def _slice_of(mel_FM: NDArray[np.float32]) -> MelSlice:
    return lambda _, start, frames: mel_FM[start : start + frames]


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
    chance_TG = hear(model, mel_slice, tracks, identity.crop_frames, identity.training, torch.device("cpu"))
    return chance_TG.numpy()
