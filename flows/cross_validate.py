"""Cross-validate settings over all labelled tracks: each fold is tested on artists not seen in its training."""

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from flows.checks import check_cross_validation
from flows.cluster.client import Cluster, open_cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.reporting.artifacts import show_table
from flows.reporting.progress import print_status, showing_progress
from flows.reporting.stage import stage
from flows.settings import CrossValidationSettings
from flows.train_model import TRACKS_PER_INFERENCE_BATCH, create_run_folder, predict_held_out, train
from store.fs.files import absolute, exists, join, read_bytes, write_atomic
from store.reader import Snapshot, open_snapshot
from training.fit.run import HISTORY_FILE
from training.fit.settings import TrainSettings
from training.selection.cross_validation import (
    FoldResult,
    confusion_csv,
    fold_predictions,
    folds_csv,
    score_folds,
    score_pooled,
    score_spread,
    select_cross_validation_tracks,
    split_folds,
)
from training.selection.svm_baseline import compute_stored_features, svm_predict

NETWORK, SVM = "network", "svm"


class ModelScore(BaseModel, frozen=True):
    """The scores of one kind of model: means over folds and seeds, standard deviations over folds."""

    model: str
    accuracy: float
    accuracy_std: float
    macro_f1: float
    macro_f1_std: float


class CrossValidationSummary(BaseModel, frozen=True):
    """The result of a cross-validation."""

    results: str
    genres: tuple[str, ...]
    tracks: int
    folds: int
    seeds: tuple[int, ...]
    chance: float
    scores: list[ModelScore]
    seconds: float

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        lines = [
            f"{self.tracks:,} tracks, {len(self.genres)} genres, {self.folds} folds that share no artist, "
            f"{len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}; chance {self.chance:.3f}; {self.seconds:.0f} s"
        ]
        lines += [
            f"{each.model:8} accuracy {each.accuracy:.3f} ± {each.accuracy_std:.3f}, "
            f"macro F1 {each.macro_f1:.3f} ± {each.macro_f1_std:.3f}   (± over folds)"
            for each in self.scores
        ]
        return [*lines, f"results: {self.results}/results.csv, confusion.csv, fold_predictions.parquet"]


@dataclass(frozen=True)
class Trial:
    """One network to train: a fold, its tracks with their splits, and a seed."""

    fold: int
    seed: int
    tracks: pa.Table
    training: TrainSettings


def cross_validate(settings: CrossValidationSettings) -> CrossValidationSummary:
    """Cross-validate a network and a baseline on the same folds. Rerun it to resume it."""
    check_cross_validation(settings)
    started = time.monotonic()
    snapshot = open_snapshot(settings.store)
    genres, labelled = select_cross_validation_tracks(
        snapshot.tracks, settings.training.target, settings.genres
    )
    folds = assign_folds(genres, labelled, settings)
    with open_cluster(settings.cluster) as cluster:
        predictions = [
            evaluate_fold(cluster, trial, genres, snapshot, settings)
            for trial in plan_trials(folds, settings)
        ]
        if settings.baseline:
            predictions += evaluate_svm(cluster, folds, snapshot)
    return summarise_cross_validation(
        pa.concat_tables(predictions), genres, snapshot, settings, seconds=time.monotonic() - started
    )


def assign_folds(
    genres: tuple[str, ...], labelled: pa.Table, settings: CrossValidationSettings
) -> list[pa.Table]:
    """Assign the labelled tracks to folds. Raises: BadInput if a genre has too few artists."""
    return split_folds(
        labelled,
        settings.training.target,
        genres,
        folds=settings.folds,
        validation_share=settings.validation_share,
        seed=settings.fold_seed,
    )


def plan_trials(folds: list[pa.Table], settings: CrossValidationSettings) -> Iterator[Trial]:
    """List the networks to train: all folds with the first seed, then with the next."""
    for seed in settings.seeds:
        training = settings.training.model_copy(update={"seed": seed})
        for fold, tracks in enumerate(folds):
            yield Trial(fold, seed, tracks, training)


def evaluate_fold(
    cluster: Cluster,
    trial: Trial,
    genres: tuple[str, ...],
    snapshot: Snapshot,
    settings: CrossValidationSettings,
) -> pa.Table:
    """Train one network as `train` does and predict its test tracks, unless that is done; return the predictions."""
    name = f"fold {trial.fold + 1} of {settings.folds}, seed {trial.seed}"
    folder, run = create_run_folder(snapshot, genres, trial.tracks, trial.training, settings.results)
    url = join(folder, "held_out_predictions.parquet")
    if exists(url):
        held_out = pq.read_table(io.BytesIO(read_bytes(url)))
    else:
        train(cluster, folder, run, settings.hosts, f"Training, {name}")
        held_out = predict_held_out(cluster, folder, run, snapshot, trial.tracks)
        write_atomic(url, _parquet(held_out))
    history = json.loads(read_bytes(join(folder, HISTORY_FILE)))
    predictions = fold_predictions(
        held_out.filter(pc.equal(held_out["split"], "test")),
        model=NETWORK,
        seed=trial.seed,
        fold=trial.fold,
        best_epoch=history["best_epoch"],
        train_s=sum(epoch["seconds"] for epoch in history["epochs"]),
    )
    (result,) = score_folds(predictions, genres, run.settings.target)
    print_status(f"{name}: {result.scores.correct} of {result.scores.tracks} right")
    return predictions


def evaluate_svm(cluster: Cluster, folds: list[pa.Table], snapshot: Snapshot) -> list[pa.Table]:
    """Predict the test tracks of each fold with a support-vector machine.

    It is trained on the validation tracks too, since it chooses no epoch by them.
    """
    features = compute_features(cluster, folds[0]["track_id"].to_pylist(), snapshot)
    predictions = []
    for fold, tracks in enumerate(folds):
        is_test = pc.equal(tracks["split"], "test")
        training, test = tracks.filter(pc.invert(is_test)), tracks.filter(is_test)
        probability_TG = svm_predict(
            _rows_of(training, features), training["target"].to_pylist(), _rows_of(test, features)
        )
        rows = pa.table(
            {
                "track_id": test["track_id"],
                "truth": test["target"],
                "probabilities": probability_TG.tolist(),
            }
        )
        predictions.append(fold_predictions(rows, model=SVM, fold=fold))
    return predictions


@stage
def compute_features(cluster: Cluster, track_ids: list[str], snapshot: Snapshot) -> dict[str, list[float]]:
    """Compute the features of each track for the baseline."""
    features: dict[str, list[float]] = {}
    with showing_progress("Computing features", len(track_ids), "tracks") as advance:
        batches = in_batches(track_ids, TRACKS_PER_INFERENCE_BATCH)
        for batch, table in fan_out(
            cluster, compute_stored_features, batches, snapshot_url=absolute(snapshot.url)
        ):
            features |= dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
            advance(len(batch), "")
    return features


def summarise_cross_validation(
    predictions: pa.Table,
    genres: tuple[str, ...],
    snapshot: Snapshot,
    settings: CrossValidationSettings,
    *,
    seconds: float,
) -> CrossValidationSummary:
    """Score the folds, write the tables into a folder, and summarise the result, in the Prefect UI as well."""
    target = settings.training.target
    results = score_folds(predictions, genres, target)
    models = list(dict.fromkeys(result.model for result in results))
    pooled = {model: score_pooled(predictions, model, genres, target) for model in models}
    summary = CrossValidationSummary(
        results=join(absolute(settings.results), _result_name(snapshot, settings)),
        genres=genres,
        tracks=pooled[NETWORK].tracks // len(settings.seeds),
        folds=settings.folds,
        seeds=settings.seeds,
        chance=pooled[NETWORK].chance,
        scores=[_model_score(model, results) for model in models],
        seconds=seconds,
    )
    files = {
        "results.csv": folds_csv(results),
        "confusion.csv": confusion_csv(pooled),
        "fold_predictions.parquet": _parquet(predictions),
        "summary.json": summary.model_dump_json(indent=1).encode(),
        "settings.json": settings.model_dump_json(indent=1).encode(),
    }
    for name, content in files.items():
        write_atomic(join(summary.results, name), content)
    table = list(csv.DictReader(io.StringIO(files["results.csv"].decode())))
    show_table("cross-validation", table, "; ".join(summary.lines()))
    return summary


def _model_score(model: str, results: list[FoldResult]) -> ModelScore:
    accuracy, macro_f1 = (score_spread(results, model, name=score) for score in ("accuracy", "macro_f1"))
    return ModelScore(
        model=model,
        accuracy=accuracy.mean,
        accuracy_std=accuracy.std,
        macro_f1=macro_f1.mean,
        macro_f1_std=macro_f1.std,
    )


def _result_name(snapshot: Snapshot, settings: CrossValidationSettings) -> str:
    """Return a hash of all settings that decide the result, and of no others."""
    content = settings.model_dump_json(exclude={"store", "results", "hosts", "cluster"})
    return hashlib.sha256(f"{absolute(snapshot.url)}{content}".encode()).hexdigest()[:12]


def _rows_of(tracks: pa.Table, features: dict[str, list[float]]) -> list[list[float]]:
    return [features[track_id] for track_id in tracks["track_id"].to_pylist()]


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()
