"""One trial of a study: a model trained on the training tracks of a split, and its test tracks predicted.

The body of a Dask task: it needs one process, and trains as `train` does.

Axes: T tracks, G genres, D features.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from preprocessing.catalogue.splits import group_tracks
from preprocessing.mel.settings import MelSettings
from store.dataset.frame_reader import LOCATION_COLUMNS
from store.errors import BadInput
from store.fs.files import remove
from store.fs.parquet import read_table
from store.reader import Snapshot, open_snapshot
from training.evaluation.metrics import Scores, score
from training.feature_machine.feature_table import select_features
from training.feature_machine.fitting import (
    assemble_features,
    assign_folds_or_fewer,
    fit_feature_machine,
    fit_patch_dictionary,
    join_catalogue,
)
from training.feature_machine.track_features import compute_stored_patch_blocks
from training.fit.distributed import RankContext
from training.fit.loop import train
from training.fit.run import TrainingRun, read_history, read_run, targets_of, write_run
from training.fit.settings import TrainSettings
from training.inference.stored_tracks import predict_stored_tracks, run_identity
from training.networks.devices import one_thread
from training.networks.pretrained import read_pretrained
from training.selection.svm_baseline import limit_tracks
from training.studies.classical import Balancing, ClassicalName, predict_classically

CALIBRATION_FOLDS = 5
LIBROSA_SUFFIX = "-librosa"  # of models on the features that librosa computes from audio
PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("artist", pa.string()),
        ("truth", pa.list_(pa.int8())),
        ("probabilities", pa.list_(pa.float32())),
    ]
)
_open_snapshot_once = lru_cache(maxsize=2)(open_snapshot)
_read_table_once = lru_cache(maxsize=4)(read_table)
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trial:
    """A model to train. `tracks` are rows of LABELLED_SCHEMA; `features_url` is what a model without epochs reads."""

    model: str
    genres: tuple[str, ...]
    tracks: pa.Table
    snapshot_url: str
    training: TrainSettings
    folder: str
    features_url: str = ""
    keep_network: bool = False
    balancing: Balancing = "none"


@dataclass(frozen=True)
class TrialResult:
    """The scores of a trial on its test tracks, and its predictions of them, PREDICTIONS_SCHEMA."""

    scores: Scores
    predictions: pa.Table
    best_epoch: int | None = None
    train_s: float | None = None


def run_trial(trial: Trial, on_epoch: OnEpoch | None = None) -> TrialResult:
    """Train, predict the test tracks, and score them. `on_epoch` is called with the row of each epoch of a network.

    Raises: BadInput or TrainingStopped as the training does; what `on_epoch` raises.
    """
    snapshot = _open_snapshot_once(trial.snapshot_url)
    test = trial.tracks.filter(pc.equal(trial.tracks["split"], "test")).sort_by("track_id")
    history: dict[str, Any] = {}
    match trial.model.removesuffix(LIBROSA_SUFFIX):
        case "svm" | "logistic" | "boosting" as name:
            probability_TG = _predict_classically(name, trial, test)
        case "features":
            probability_TG = _predict_by_features(trial, test, snapshot)
        case _:
            probability_TG, history = _predict_by_network(trial, test, snapshot, on_epoch)
    predictions = pa.table(
        {
            "track_id": test["track_id"],
            "artist": join_catalogue(test, snapshot.tracks)["artist"],
            "truth": test["target"],
            "probabilities": probability_TG.tolist(),
        }
    ).cast(PREDICTIONS_SCHEMA)
    return TrialResult(
        scores=score(targets_of(test), probability_TG, trial.genres, "top"),
        predictions=predictions,
        best_epoch=history.get("best_epoch"),
        train_s=sum(epoch["seconds"] for epoch in history["epochs"]) if history else None,
    )


def _fitting_tracks(trial: Trial) -> pa.Table:
    """Return the tracks to fit on: the validation tracks too, since no epoch is chosen by them."""
    return trial.tracks.filter(pc.not_equal(trial.tracks["split"], "test"))


def _predict_classically(name: ClassicalName, trial: Trial, test: pa.Table) -> NDArray[np.float64]:
    table = _read_table_once(trial.features_url)
    fitted = _fitting_tracks(trial)
    target_TG = targets_of(fitted)
    _check_genres(trial, target_TG)
    used = limit_tracks(target_TG)
    train_TD, test_TD = (
        select_features(table, tracks["track_id"]) for tracks in (fitted.take(pa.array(used)), test)
    )
    return predict_classically(
        name, train_TD, target_TG[used], test_TD, balancing=trial.balancing, seed=trial.training.seed
    )


def _predict_by_features(trial: Trial, test: pa.Table, snapshot: Snapshot) -> NDArray[np.float64]:
    blocks, seed = _read_table_once(trial.features_url), trial.training.seed
    fitted = _fitting_tracks(trial)
    _check_genres(trial, targets_of(fitted))
    ids, test_ids = fitted["track_id"].to_pylist(), test["track_id"].to_pylist()
    dictionary = fit_patch_dictionary(blocks, ids, seed)
    _, patch_TD = compute_stored_patch_blocks(
        [*ids, *test_ids], snapshot_url=trial.snapshot_url, dictionary=dictionary
    )
    patches = dict(zip([*ids, *test_ids], patch_TD, strict=True))
    catalogue = join_catalogue(fitted, snapshot.tracks)
    fold_T, _ = assign_folds_or_fewer(catalogue, CALIBRATION_FOLDS, seed)
    machine = fit_feature_machine(
        blocks, patches, dictionary, fitted, group_tracks(catalogue), fold_T, "top", seed
    ).features
    return machine.predict(assemble_features(blocks, patches, test_ids), "top")


def train_network(trial: Trial, on_epoch: OnEpoch | None = None) -> tuple[TrainingRun, dict[str, Any]]:
    """Train in this process, or resume from the last checkpoint; return the run and the training history.

    The test tracks stay unread. Raises: as `run_trial`.
    """
    snapshot, training = _open_snapshot_once(trial.snapshot_url), trial.training
    weights, mel = training.pretrained.weights, MelSettings.model_validate(snapshot.mel_settings)
    start = read_pretrained(weights, training.model, trial.genres, "top", mel) if weights else None
    run = TrainingRun(
        snapshot_url=trial.snapshot_url,
        spectrograms_hash=snapshot.content_hash(_with_locations(trial.tracks, snapshot)),
        mel_fingerprint=snapshot.mel_fingerprint,
        genres=trial.genres,
        pretrained_sha256=hashlib.sha256(start).hexdigest() if start else "",
        settings=training,
    )
    write_run(trial.folder, run, trial.tracks, start)

    def emit(event: dict[str, Any]) -> None:
        if on_epoch is not None and event["event"] == "epoch":
            on_epoch(event)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with one_thread():  # the other cores train other trials
        train(trial.folder, *read_run(trial.folder), snapshot, RankContext(device=device), emit)
    return run, read_history(trial.folder)


def _predict_by_network(
    trial: Trial, test: pa.Table, snapshot: Snapshot, on_epoch: OnEpoch | None
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Train a network; return its probabilities for the test tracks, and the training history."""
    run, history = train_network(trial, on_epoch)
    predicted = predict_stored_tracks(
        test.rename_columns({"target": "truth"}).select(["track_id", "split", "truth"]).to_pylist(),
        snapshot_url=trial.snapshot_url,
        folder_url=trial.folder,
        identity=run_identity(run, snapshot),
    )
    if not trial.keep_network:
        remove(trial.folder)  # a study may have a thousand networks
    return np.array(predicted["probabilities"].to_pylist()), history


def _with_locations(tracks: pa.Table, snapshot: Snapshot) -> pa.Table:
    """Return tracks with the locations of their spectrograms in the snapshot."""
    if "shard" in tracks.column_names:
        return tracks
    locations = snapshot.read_index(tracks["track_id"], LOCATION_COLUMNS)
    for name in LOCATION_COLUMNS:
        tracks = tracks.append_column(name, locations[name])
    return tracks


def _check_genres(trial: Trial, target_TG: NDArray[np.int8]) -> None:
    tracks_G = target_TG.sum(axis=0).tolist()
    for genre, tracks in zip(trial.genres, tracks_G, strict=True):
        if not tracks:
            raise BadInput(f"no training track has the genre {genre}; leave it out or add tracks")
