"""Train a model on a snapshot, evaluate it on held-out tracks, and publish it as a model version.

The flow chooses genres and tracks, writes the run into a folder that its settings name, trains there,
predicts the held-out tracks, and publishes the model, its report and its card together.
"""

import json
import subprocess
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from flows.checks import check_training
from flows.cluster.client import Cluster, open_cluster
from flows.model_stages.baseline import FIT_ONLY, predict_by_baseline
from flows.model_stages.choice import apply_choice, choose_model
from flows.model_stages.training import create_run_folder, predict_held_out, train_members
from flows.reporting.artifacts import show_image, show_link, show_table
from flows.reporting.build_report import list_rejects
from flows.reporting.stage import stage
from flows.services.mlflow_log import check_mlflow_uri, log_to_mlflow
from flows.settings import TrainModelSettings
from store.dataset.frame_reader import LOCATION_COLUMNS
from store.fs.files import absolute, exists, join, read_bytes, write_atomic
from store.model_registry import (
    CARD_FILE,
    REPORT_FOLDER,
    REPORT_PAGE,
    champion,
    promote,
    publish_version,
    read_card,
    resolve_version,
)
from store.reader import Snapshot, open_snapshot
from training.evaluation.metrics import Scores, score
from training.fit.labels import label_columns, select_labelled_tracks, select_training_genres
from training.fit.run import TrainingRun
from training.fit.settings import TrainSettings
from training.networks.settings import is_state_dict_file
from training.report.page import SCORE_FIGURES
from training.report.version_files import assemble_version
from training.selection.model_choice import ModelChoice

VERSION_POINTER_FILE = "version.json"  # in the folder of a run: the version that it was published as


class TrainSummary(BaseModel, frozen=True):
    """The result of a training."""

    version: str
    url: str
    report: str
    test_tracks: int
    test_correct: int
    accuracy: float
    macro_f1: float
    chance: float
    accuracy_interval: str
    model: str = ""
    baseline_correct: int | None = None
    best_epoch: int
    trained_now: bool
    is_champion: bool

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        return [
            f"model {self.version}{' (in service)' if self.is_champion else ''}: "
            f"{'' if self.beats_baseline else 'no better than its baseline: '}{self.test_correct} of "
            f"{self.test_tracks} test tracks right ({self.accuracy:.0%}, {self.accuracy_interval}; "
            f"chance {self.chance:.0%}), macro F1 {self.macro_f1:.2f}; {self._describe_model()}",
            f"report: {self.report}",
            *(
                ()
                if self.trained_now
                else ("nothing was trained: the version has the same data and settings",)
            ),
        ]

    def _describe_model(self) -> str:
        """Describe the model and its baseline; the baseline is missing where it cannot predict the target."""
        model = f"{self.model}, best epoch {self.best_epoch}" if self.best_epoch else self.model
        return model if self.baseline_correct is None else f"{model}; baseline {self.baseline_correct} right"

    @property
    def beats_baseline(self) -> bool:
        """Whether more test tracks are right than those of the baseline; True where there is none."""
        return self.baseline_correct is None or self.test_correct > self.baseline_correct


def train_model(settings: TrainModelSettings) -> TrainSummary:
    """Train a model, evaluate and publish it. Rerun it to resume it; a finished training is not repeated."""
    check_training(settings)
    check_mlflow_uri(settings.mlflow_uri)
    snapshot = open_snapshot(settings.store)
    with open_cluster(settings.cluster) as cluster:
        choice, resolved = resolve_model(cluster, snapshot, settings)
        folder, run, tracks = prepare_run(snapshot, resolved)
        version = published = find_published_version(folder, settings)
        if version is None:
            train_members(cluster, folder, run, snapshot, tracks, hosts=settings.hosts, root=settings.models)
            predictions = predict_held_out(cluster, folder, run, snapshot, tracks)
            baseline = score_baseline(cluster, tracks, run, snapshot, settings.models)
            version = publish_model(folder, run, snapshot, predictions, settings, baseline, choice)
            log_to_mlflow(settings.mlflow_uri, join(settings.models, version))
    if settings.promote:
        promote(settings.models, version)
    return summarise_training(version, settings, trained_now=published is None)


def resolve_model(
    cluster: Cluster, snapshot: Snapshot, settings: TrainModelSettings
) -> tuple[ModelChoice | None, TrainModelSettings]:
    """Choose a model where the settings leave it open; return the choice, and settings that name the model."""
    if settings.training.model.name != "auto":
        return None, settings
    genres, tracks = select_training_data(snapshot, settings)
    training = resolve_start(settings.training, settings.models)
    choice = choose_model(
        cluster, snapshot, genres, tracks, settings.model_copy(update={"training": training})
    )
    return choice, settings.model_copy(update={"training": apply_choice(training, choice)})


def score_baseline(
    cluster: Cluster, tracks: pa.Table, run: TrainingRun, snapshot: Snapshot, root: str
) -> Scores | None:
    """Score the baseline on the test tracks; None where tracks have several genres, which it cannot predict."""
    if run.settings.target == "multi":
        return None
    is_test_T = pc.equal(tracks["split"], "test").to_numpy()
    fold_T = np.where(is_test_T, 0, FIT_ONLY)
    probability_TG = predict_by_baseline(cluster, tracks, fold_T, snapshot, root)
    truth_TG = np.array(tracks["target"].to_pylist())
    return score(truth_TG[is_test_T], probability_TG[is_test_T], run.genres, run.settings.target)


def prepare_run(snapshot: Snapshot, settings: TrainModelSettings) -> tuple[str, TrainingRun, pa.Table]:
    """Choose genres and tracks, and write the folder of the run."""
    genres, tracks = select_training_data(snapshot, settings)
    training = resolve_start(settings.training, settings.models)
    folder, run = create_run_folder(snapshot, genres, tracks, training, settings.models)
    return folder, run, tracks


def select_training_data(
    snapshot: Snapshot, settings: TrainModelSettings
) -> tuple[tuple[str, ...], pa.Table]:
    """Choose the genres, and the labelled tracks of each split."""
    target = settings.training.target
    columns = label_columns(target, settings.training.balance)
    tracks = snapshot.track_columns(columns, LOCATION_COLUMNS)
    genres = select_training_genres(tracks, target, settings.genres)
    return genres, select_labelled_tracks(tracks, target, genres)


def resolve_start(training: TrainSettings, models: str) -> TrainSettings:
    """Replace "champion", "latest" or the name of a version as start by the URL of that version."""
    weights = training.pretrained.weights
    if not weights or "/" in weights or is_state_dict_file(weights):
        return training
    start = training.pretrained.model_copy(update={"weights": resolve_version(absolute(models), weights)})
    return training.model_copy(update={"pretrained": start})


def find_published_version(folder: str, settings: TrainModelSettings) -> str | None:
    """Return the model version already published from this run with the same calibration settings, or None."""
    pointer = join(folder, VERSION_POINTER_FILE)
    if not exists(pointer):
        return None
    version: str = json.loads(read_bytes(pointer))["version"]
    url = join(settings.models, version)
    if not exists(join(url, CARD_FILE)):
        return None
    calibration = read_card(url)["settings"]["calibration"]
    return version if calibration == settings.calibration.model_dump(mode="json") else None


@stage
def publish_model(
    folder: str,
    run: TrainingRun,
    snapshot: Snapshot,
    predictions: pa.Table,
    settings: TrainModelSettings,
    baseline: Scores | None,
    choice: ModelChoice | None,
) -> str:
    """Fit the calibration, write the report, and store both with the model as a new version."""
    files, card = assemble_version(
        folder,
        run,
        predictions,
        snapshot=snapshot,
        models=settings.models,
        calibration_settings=settings.calibration,
        rejects=list_rejects(snapshot),
        baseline=baseline,
        choice=choice,
        about={
            "snapshot": run.snapshot_url,
            "code": code_version(),
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings.model_dump(mode="json"),
        },
    )
    version = publish_version(settings.models, files, card)
    write_atomic(join(folder, VERSION_POINTER_FILE), json.dumps({"version": version}).encode())
    return version


def summarise_training(version: str, settings: TrainModelSettings, *, trained_now: bool) -> TrainSummary:
    """Summarise the scores of a version, in the Prefect UI as well."""
    url = join(settings.models, version)
    card = read_card(url)
    test = card["metrics"]["test"]
    summary = TrainSummary(
        version=version,
        url=url,
        report=join(absolute(url), REPORT_FOLDER, REPORT_PAGE),
        test_tracks=test["tracks"],
        test_correct=test["correct"],
        accuracy=test["accuracy"],
        macro_f1=test["macro_f1"],
        chance=test["chance"],
        accuracy_interval=_format_interval(test["accuracy_interval"]),
        model=card["training"]["model"]["name"],
        baseline_correct=card["baseline"] and card["baseline"]["correct"],
        best_epoch=card["best_epoch"],
        trained_now=trained_now,
        is_champion=champion(settings.models) == version,
    )
    show_training_result(summary)
    figure = SCORE_FIGURES[card["training"]["target"]]
    show_image(
        "training-figure",
        partial(read_bytes, join(url, REPORT_FOLDER, figure)),
        "Predictions of the test tracks",
    )
    return summary


def show_training_result(summary: TrainSummary) -> None:
    """Put the result on the page of the run in the Prefect UI."""
    right = f"{summary.test_correct} of {summary.test_tracks}"
    row = {
        "test tracks right": right,
        "accuracy": f"{summary.accuracy:.0%} ({summary.accuracy_interval}; chance {summary.chance:.0%})",
        "macro F1": f"{summary.macro_f1:.2f}",
        "model": summary.model,
        "baseline": "none" if summary.baseline_correct is None else f"{summary.baseline_correct} right",
        "in service": "yes" if summary.is_champion else "no",
        "version": summary.version,
        "report": summary.report,  # as text: browsers follow no link from a server to a local file
    }
    show_table("training-result", [row], f"{right} test tracks right ({summary.accuracy:.0%})")
    show_link("training-report", f"file://{summary.report}", REPORT_PAGE)


def _format_interval(interval: dict[str, float] | None) -> str:
    if interval is None:
        return "no interval"
    return f"95 % interval {interval['low']:.0%} to {interval['high']:.0%}"


def code_version() -> str:
    """Return the version of this code: the release, and the commit if it runs from a checkout."""
    release = installed_version("spectrogram-one")
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return release
    return f"{release} ({described.stdout.strip()})"
