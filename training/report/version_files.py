"""The files and the card (model.json) of a new model version, assembled from a finished run and its predictions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from preprocessing.catalogue.splits import SPLITS
from preprocessing.mel.settings import MelSettings
from store.fs.files import join, last_part, read_bytes
from store.fs.parquet import to_parquet
from store.model_registry import MODEL_CARD_FILE, REPORT_FOLDER
from store.reader import Snapshot
from training.evaluation.calibration import Calibration
from training.evaluation.calibration_fitting import explain_calibration, fit_calibration
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE, select_split, to_matrix
from training.evaluation.metrics import Scores
from training.evaluation.settings import CalibrationSettings
from training.evaluation.test_set_use import record_test_use
from training.feature_machine.version_file import FEATURES_FILE
from training.fit.run import TrainingRun, hash_training_data, read_history, read_run_tracks
from training.inference.stored_tracks import run_identity
from training.networks.network import WEIGHTS_FILE
from training.networks.settings import FEATURES, NETWORK
from training.report.model_card import write_model_card
from training.report.page import METRICS_FILE, ReportInputs, render_report
from training.selection.model_choice import ModelChoice


def assemble_version(
    folder: str,
    run: TrainingRun,
    predictions: pa.Table,
    *,
    snapshot: Snapshot,
    models: str,
    calibration_settings: CalibrationSettings,
    rejects: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    baseline: Scores | None = None,
    choice: ModelChoice | None = None,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Fit the calibration of a finished run, and return the files and the card of the version it becomes.

    `predictions` are rows of HELD_OUT_PREDICTIONS_SCHEMA; `models` is the folder of the earlier versions;
    `about` is shown in the report and stored in the card: when, by which code and with which settings it was
    trained.
    """
    calibration, notes = _calibrate(predictions, run, calibration_settings)
    inputs = replace(
        _report_inputs(folder, run, snapshot, predictions, about, rejects),
        calibration=calibration,
        notes=notes,
        test_use=record_test_use(predictions, models, about["trained"]),
        baseline=baseline,
        choice=choice,
    )
    report = render_report(inputs)
    card = _make_card(folder, run, snapshot, inputs, json.loads(report[METRICS_FILE]))
    return _files(folder, predictions, report, card), card


def _report_inputs(
    folder: str,
    run: TrainingRun,
    snapshot: Snapshot,
    predictions: pa.Table,
    about: Mapping[str, Any],
    rejects: Sequence[Mapping[str, Any]],
) -> ReportInputs:
    """Return what a report shows of a run as it is, without calibration, baseline and the choice of the model."""
    history = read_history(folder)
    return ReportInputs(
        name=last_part(folder),
        predictions=predictions,
        genres=run.genres,
        target=run.settings.target,
        history=history["epochs"],
        best_epoch=history["best_epoch"],
        about=about,
        rejects=rejects,
        mel=MelSettings.model_validate(snapshot.mel_settings),
        read_mel=snapshot.mel,
    )


def _make_card(
    folder: str, run: TrainingRun, snapshot: Snapshot, inputs: ReportInputs, metrics: dict[str, Any]
) -> dict[str, Any]:
    identity = run_identity(run, snapshot).model_copy(update={"calibration": inputs.calibration})
    return {
        **identity.model_dump(mode="json"),
        **inputs.about,
        **_run_inputs(folder, run),
        "best_epoch": inputs.best_epoch,
        "calibration_notes": inputs.notes,
        "test_use": inputs.test_use,
        "baseline": describe_baseline(inputs.baseline),
        "choice": inputs.choice.model_dump(mode="json") if inputs.choice else None,
        "metrics": metrics,
    }


def describe_baseline(scores: Scores | None) -> dict[str, Any] | None:
    """Return what the card states of the baseline on the test tracks."""
    if scores is None:
        return None
    return {
        "name": "support-vector machine on MFCC statistics",
        "correct": scores.correct,
        "tracks": scores.tracks,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
    }


def _files(
    folder: str, predictions: pa.Table, report: Mapping[str, bytes], card: Mapping[str, Any]
) -> dict[str, bytes]:
    file_of = {NETWORK: WEIGHTS_FILE, FEATURES: FEATURES_FILE}
    member_files = [file_of[member["kind"]] for member in card["members"]]
    return {
        **{name: read_bytes(join(folder, name)) for name in member_files},
        HELD_OUT_PREDICTIONS_FILE: to_parquet(predictions),
        MODEL_CARD_FILE: write_model_card(card).encode(),
        **{f"{REPORT_FOLDER}/{name}": content for name, content in report.items()},
    }


def _run_inputs(folder: str, run: TrainingRun) -> dict[str, Any]:
    tracks = read_run_tracks(folder)
    splits = tracks["split"].to_pylist()
    return {
        "run": folder,
        "data": hash_training_data(run, tracks),
        "parent": run.settings.pretrained.weights or None,
        "tracks": {split: splits.count(split) for split in SPLITS},
    }


def _calibrate(
    predictions: pa.Table, run: TrainingRun, settings: CalibrationSettings
) -> tuple[Calibration, list[str]]:
    """Fit a calibration on the validation tracks, and explain what could be fitted."""
    rows, target = select_split(predictions, "validation"), run.settings.target
    truth_TG, raw_TG = to_matrix(rows, "truth"), to_matrix(rows, "probabilities")
    calibration = fit_calibration(truth_TG, raw_TG, run.genres, target, settings, run.genre_parents)
    return calibration, list(explain_calibration(calibration, settings, truth_TG, run.genres, target))
