"""Cross-validate settings over all labelled tracks: each fold is tested on artists not seen in its training."""

import csv
import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from flows.checks import check_cross_validation
from flows.cluster.client import Cluster, open_cluster
from flows.model_stages.baseline import FIT_ONLY, predict_by_baseline
from flows.model_stages.training import create_run_folder, train_and_predict
from flows.reporting.artifacts import show_table
from flows.reporting.progress import print_status
from flows.settings import CrossValidationSettings
from store.fs.files import absolute, join, write_atomic
from store.fs.parquet import to_parquet
from store.reader import Snapshot, open_snapshot
from training.evaluation.calibration import Target
from training.evaluation.held_out_predictions import to_matrix
from training.fit.run import read_history
from training.fit.settings import TrainSettings
from training.inference.members import combine_members
from training.networks.settings import ModelSettings
from training.selection.cross_validation import (
    CONFUSION_FILE,
    FOLD_PREDICTIONS_FILE,
    FOLD_RESULTS_FILE,
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

SVM, AVERAGE = "svm", "average"
CANDIDATES = ("features", "short-chunk-resnet")  # of `auto`, which adds their average


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
        names = ", ".join((FOLD_RESULTS_FILE, CONFUSION_FILE, FOLD_PREDICTIONS_FILE))
        return [*lines, f"results: {self.results}/{names}"]


@dataclass(frozen=True)
class Trial:
    """One model to train: a fold, its tracks with their splits, and a seed."""

    fold: int
    seed: int
    tracks: pa.Table
    training: TrainSettings


def cross_validate(settings: CrossValidationSettings) -> CrossValidationSummary:
    """Cross-validate a model and a baseline on the same folds. Rerun it to resume it."""
    check_cross_validation(settings)
    started = time.monotonic()
    snapshot = open_snapshot(settings.store)
    genres, labelled = select_cross_validation_tracks(
        snapshot.tracks, settings.training.target, settings.genres
    )
    folds = assign_folds(genres, labelled, settings)
    with open_cluster(settings.cluster) as cluster:
        predictions = [
            table
            for trial in plan_trials(folds, settings)
            for table in evaluate_trial(cluster, trial, genres, snapshot, settings)
        ]
        if settings.baseline:
            predictions += evaluate_svm(cluster, folds, snapshot, settings)
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
    """List the models to train: all folds with the first seed, then with the next."""
    for seed in settings.seeds:
        training = settings.training.model_copy(update={"seed": seed})
        for fold, tracks in enumerate(folds):
            yield Trial(fold, seed, tracks, training)


def evaluate_trial(
    cluster: Cluster,
    trial: Trial,
    genres: tuple[str, ...],
    snapshot: Snapshot,
    settings: CrossValidationSettings,
) -> list[pa.Table]:
    """Evaluate the model of a trial on its test tracks; with `auto` each candidate, so that none is chosen on them."""
    if trial.training.model.name != "auto":
        return [evaluate_fold(cluster, trial, genres, snapshot, settings)]
    features, network = (
        evaluate_fold(cluster, name_model(trial, name), genres, snapshot, settings) for name in CANDIDATES
    )
    return [features, network, average_predictions(network, features, trial.training.target)]


def name_model(trial: Trial, name: str) -> Trial:
    """Return the trial of a named model."""
    model = ModelSettings.model_validate({**trial.training.model.model_dump(), "name": name})
    return replace(trial, training=trial.training.model_copy(update={"model": model}))


def evaluate_fold(
    cluster: Cluster,
    trial: Trial,
    genres: tuple[str, ...],
    snapshot: Snapshot,
    settings: CrossValidationSettings,
) -> pa.Table:
    """Train one model as `train` does and predict its test tracks, unless that is done; return the predictions."""
    name = f"fold {trial.fold + 1} of {settings.folds}, seed {trial.seed}"
    folder, run = create_run_folder(snapshot, genres, trial.tracks, trial.training, settings.results)
    held_out = train_and_predict(
        cluster,
        folder,
        run,
        snapshot,
        trial.tracks,
        hosts=settings.hosts,
        root=settings.results,
        title=f"Training, {name}",
    )
    history = read_history(folder)
    predictions = fold_predictions(
        held_out.filter(pc.equal(held_out["split"], "test")),
        model=_model_label(trial),
        seed=trial.seed,
        fold=trial.fold,
        best_epoch=history["best_epoch"] or None,
        train_s=sum(epoch["seconds"] for epoch in history["epochs"]),
    )
    (result,) = score_folds(predictions, genres, run.settings.target)
    print_status(f"{name}: {result.scores.correct} of {result.scores.tracks} right")
    return predictions


def average_predictions(network: pa.Table, features: pa.Table, target: Target) -> pa.Table:
    """Return the average, half each, of what two members predicted for the same test tracks."""
    rows = pc.index_in(network["track_id"], value_set=features["track_id"].combine_chunks())
    members = [to_matrix(table, "probabilities") for table in (network, features.take(rows))]
    average_TG = combine_members(members, [0.5, 0.5], target)
    table = network.select(["track_id", "truth"]).append_column(
        "probabilities", pa.array(average_TG.tolist())
    )
    (seed,), (fold,) = (set(network[name].to_pylist()) for name in ("seed", "fold"))
    return fold_predictions(table, model=AVERAGE, seed=seed, fold=fold)


def evaluate_svm(
    cluster: Cluster, folds: list[pa.Table], snapshot: Snapshot, settings: CrossValidationSettings
) -> list[pa.Table]:
    """Predict the test tracks of each fold with a support-vector machine.

    It is trained on the validation tracks too, since it chooses no epoch by them.
    """
    predictions = []
    for fold, tracks in enumerate(folds):
        is_test_T = pc.equal(tracks["split"], "test").to_numpy()
        fold_T = np.where(is_test_T, 0, FIT_ONLY)
        probability_TG = predict_by_baseline(cluster, tracks, fold_T, snapshot, settings.results)
        test = tracks.filter(pa.array(is_test_T))
        rows = pa.table(
            {
                "track_id": test["track_id"],
                "truth": test["target"],
                "probabilities": probability_TG[is_test_T].tolist(),
            }
        )
        predictions.append(fold_predictions(rows, model=SVM, fold=fold))
    return predictions


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
        tracks=pooled[models[0]].tracks // len(settings.seeds),
        folds=settings.folds,
        seeds=settings.seeds,
        chance=pooled[models[0]].chance,
        scores=[_model_score(model, results) for model in models],
        seconds=seconds,
    )
    files = {
        FOLD_RESULTS_FILE: folds_csv(results),
        CONFUSION_FILE: confusion_csv(pooled),
        FOLD_PREDICTIONS_FILE: to_parquet(predictions),
        "summary.json": summary.model_dump_json(indent=1).encode(),
        "settings.json": settings.model_dump_json(indent=1).encode(),
    }
    for name, content in files.items():
        write_atomic(join(summary.results, name), content)
    table = list(csv.DictReader(io.StringIO(files[FOLD_RESULTS_FILE].decode())))
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


def _model_label(trial: Trial) -> str:
    """Return the name of a model in the results: networks are called so, whatever their architecture."""
    members = trial.training.model.members
    return members[0] if len(members) == 1 else AVERAGE
