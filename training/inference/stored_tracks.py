"""Predictions for tracks whose spectrograms are stored: the body of a Dask task.

Axes: T tracks, G genres.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.reader import Snapshot, open_snapshot
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.feature_machine.track_features import read_crops
from training.feature_machine.version_file import read_across_folds
from training.fit.run import TrainingRun
from training.fit.validation import predict_tracks
from training.inference.members import combine_members, open_feature_member
from training.inference.model_version import ModelIdentity, load_model, members_of
from training.loading.crops import Tracks
from training.networks.settings import FEATURES

# A snapshot never changes: the part of its index that a worker has read serves all batches.
_open_snapshot_once = lru_cache(maxsize=2)(open_snapshot)


def run_identity(run: TrainingRun, snapshot: Snapshot) -> ModelIdentity:
    """Return the identity of the model that a run trains, not calibrated yet."""
    mel = MelSettings.model_validate(snapshot.mel_settings)
    members = members_of(run.settings.model)
    return ModelIdentity(genres=run.genres, mel=mel, training=run.settings, members=members)


def predict_stored_tracks(
    track_rows: Sequence[dict[str, Any]],
    *,
    snapshot_url: str,
    folder_url: str,
    identity: ModelIdentity,
    across_folds: bool = False,
) -> pa.Table:
    """Predict tracks of a snapshot; return HELD_OUT_PREDICTIONS_SCHEMA, one row a track.

    The probabilities are those before the calibration, which is fitted on them. With `across_folds`, a track that
    a run's feature machine was fitted on is predicted by the one that was fitted without it.

    Raises: BadInput if the spectrograms have other settings than those the model was trained on.
    """
    snapshot = _open_snapshot_once(snapshot_url)
    if snapshot.mel_fingerprint != identity.mel.settings_hash:
        raise BadInput(
            f"{snapshot_url}: mel settings {snapshot.mel_fingerprint}; the model was trained on "
            f"{identity.mel.settings_hash}: build a store with its settings"
        )
    ids = tuple(row["track_id"] for row in track_rows)
    members = [
        _predict_by_features(snapshot, ids, folder_url, identity, across_folds=across_folds)
        if member.kind == FEATURES
        else _predict_by_network(snapshot, ids, folder_url, identity)
        for member in identity.members
    ]
    weights = [member.weight for member in identity.members]
    probability_TG = combine_members(members, weights, identity.training.target)
    rows = [
        {**row, "probabilities": probability_G}
        for row, probability_G in zip(track_rows, probability_TG.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=HELD_OUT_PREDICTIONS_SCHEMA)


def _predict_by_features(
    snapshot: Snapshot, ids: Sequence[str], folder_url: str, identity: ModelIdentity, *, across_folds: bool
) -> NDArray[np.float64]:
    probability_of = read_across_folds(folder_url) if across_folds else {}
    left = [track_id for track_id in ids if track_id not in probability_of]
    if left:
        member = open_feature_member(folder_url, identity)
        mean_TD = np.stack(
            [
                member.describe_crops(read_crops(snapshot, track_id, identity.mel)).mean(axis=0)
                for track_id in left
            ]
        )
        probability_of |= dict(zip(left, member.predict(mean_TD), strict=True))
    return np.stack([probability_of[track_id] for track_id in ids])


def _predict_by_network(
    snapshot: Snapshot, ids: tuple[str, ...], folder_url: str, identity: ModelIdentity
) -> NDArray[np.float64]:
    """Return the mean probabilities of each track's crops. Shapes: (T, G)."""
    id_column = pa.chunked_array([list(ids)], pa.string())
    no_target_TG = np.zeros((len(ids), len(identity.genres)), np.int8)
    probability_TG = predict_tracks(
        load_model(folder_url, identity),
        snapshot.reader,
        Tracks(id_column, snapshot.locate(id_column), no_target_TG),
        identity.crop_frames,
        identity.training,
        torch.device("cpu"),
    )
    return np.asarray(probability_TG.numpy())
