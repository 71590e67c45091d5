"""Predictions for tracks whose spectrograms are stored: the body of a Dask task.

Axes: T tracks, G genres.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.reader import Snapshot, open_snapshot
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.fit.run import TrainingRun
from training.fit.validation import predict_tracks
from training.inference.model_version import ModelIdentity, load_model
from training.loading.crops import Tracks

# A snapshot never changes: the part of its index that a worker has read serves all batches.
_open_snapshot_once = lru_cache(maxsize=2)(open_snapshot)


def run_identity(run: TrainingRun, snapshot: Snapshot) -> ModelIdentity:
    """Return the identity of the network that a run trains, not calibrated yet."""
    mel = MelSettings.model_validate(snapshot.mel_settings)
    return ModelIdentity(genres=run.genres, mel=mel, training=run.settings)


def predict_stored_tracks(
    track_rows: Sequence[dict[str, Any]], *, snapshot_url: str, folder_url: str, identity: ModelIdentity
) -> pa.Table:
    """Predict tracks of a snapshot; return HELD_OUT_PREDICTIONS_SCHEMA, one row a track.

    The probabilities are the network's own, the mean over each track's crops: the calibration is fitted on them.

    Raises: BadInput if the spectrograms have other settings than those the model was trained on.
    """
    snapshot = _open_snapshot_once(snapshot_url)
    if snapshot.mel_fingerprint != identity.mel.settings_hash:
        raise BadInput(
            f"{snapshot_url}: mel settings {snapshot.mel_fingerprint}; the model was trained on "
            f"{identity.mel.settings_hash}: build a store with its settings"
        )
    ids = pa.chunked_array([[row["track_id"] for row in track_rows]], pa.string())
    no_target_TG = np.zeros((len(ids), len(identity.genres)), np.int8)
    probability_TG = predict_tracks(
        load_model(folder_url, identity),
        snapshot.reader,
        Tracks(ids, snapshot.locate(ids), no_target_TG),
        identity.crop_frames,
        identity.training,
        torch.device("cpu"),
    )
    rows = [
        {**row, "probabilities": probability_G}
        for row, probability_G in zip(track_rows, probability_TG.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=HELD_OUT_PREDICTIONS_SCHEMA)
