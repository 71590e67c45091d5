"""Train a network on a snapshot, evaluate it on held-out tracks, and publish it as a model version.

The flow chooses genres and tracks, writes the run into a folder that its settings name, trains there,
predicts the held-out tracks, and publishes weights, report and model card together.
"""

import hashlib
import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from flows.checks import check_training
from flows.cluster.client import Cluster, open_cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.cluster.settings import HostSettings
from flows.cluster.training_hosts import train_on_hosts
from flows.reporting.artifacts import show_link, show_table
from flows.reporting.build_report import list_rejects
from flows.reporting.progress import Advance, showing_progress
from flows.reporting.stage import run_logger, stage
from flows.services.mlflow_log import check_mlflow_uri, log_to_mlflow
from flows.settings import TrainModelSettings
from preprocessing.mel.settings import MelSettings
from store.dataset.frame_reader import LOCATION_COLUMNS
from store.fs.files import absolute, exists, join, read_bytes, write_atomic
from store.model_registry import champion, promote, publish_version, read_card, resolve_version
from store.reader import Snapshot, open_snapshot
from training.fit.labels import restrict_genre_tree, select_labelled_tracks, select_training_genres
from training.fit.run import TrainingRun, is_finished, run_hash, write_run
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity
from training.inference.stored_tracks import predict_stored_tracks, run_identity
from training.networks.ancestry import check_data_leakage
from training.networks.pretrained import read_pretrained
from training.networks.settings import is_state_dict_file
from training.report.version_files import assemble_version

TRACKS_PER_INFERENCE_BATCH = 64


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
    best_epoch: int
    trained_now: bool
    is_champion: bool

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        return [
            f"model {self.version}{' (in service)' if self.is_champion else ''}: {self.test_correct} of "
            f"{self.test_tracks} test tracks right ({self.accuracy:.0%}, {self.accuracy_interval}; "
            f"chance {self.chance:.0%}), macro F1 {self.macro_f1:.2f}; best epoch {self.best_epoch}",
            f"report: {self.report}",
        ]


def train_model(settings: TrainModelSettings) -> TrainSummary:
    """Train a network, evaluate and publish it. Rerun it to resume it; a finished training is not repeated."""
    check_training(settings)
    check_mlflow_uri(settings.mlflow_uri)
    snapshot = open_snapshot(settings.store)
    folder, run, tracks = prepare_run(snapshot, settings)
    version = published = find_published_version(folder, settings)
    if version is None:
        with open_cluster(settings.cluster) as cluster:
            train(cluster, folder, run, settings.hosts)
            predictions = predict_held_out(cluster, folder, run, snapshot, tracks)
        version = publish_model(folder, run, snapshot, predictions, settings)
        log_to_mlflow(settings.mlflow_uri, join(settings.models, version))
    if settings.promote:
        promote(settings.models, version)
    return summarise_training(version, settings, trained_now=published is None)


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
    tracks = snapshot.track_columns(("split", "genre_top", "genres"), LOCATION_COLUMNS)
    genres = select_training_genres(tracks, target, settings.genres)
    return genres, select_labelled_tracks(tracks, target, genres)


def resolve_start(training: TrainSettings, models: str) -> TrainSettings:
    """Replace "champion", "latest" or the name of a version as start by the URL of that version."""
    weights = training.pretrained.weights
    if not weights or "/" in weights or is_state_dict_file(weights):
        return training
    start = training.pretrained.model_copy(update={"weights": resolve_version(absolute(models), weights)})
    return training.model_copy(update={"pretrained": start})


def create_run_folder(
    snapshot: Snapshot, genres: tuple[str, ...], tracks: pa.Table, training: TrainSettings, root: str
) -> tuple[str, TrainingRun]:
    """Write a run into a folder of `root`/runs, named by a hash of its settings and data.

    Raises: BadInput if the pretrained weights cannot be read, or were trained on validation or test tracks.
    """
    mel = MelSettings.model_validate(snapshot.mel_settings)
    weights = training.pretrained.weights
    start = read_pretrained(weights, training.model, genres, training.target, mel) if weights else None
    for warning in check_data_leakage(weights, tracks, snapshot.root):
        run_logger().warning(warning)
    run = plan_run(snapshot, genres, tracks, training, start)
    folder = join(absolute(root), "runs", run_hash(run, tracks))
    write_run(folder, run, tracks, start)
    return folder, run


def plan_run(
    snapshot: Snapshot,
    genres: tuple[str, ...],
    tracks: pa.Table,
    training: TrainSettings,
    start: bytes | None = None,
) -> TrainingRun:
    """Describe a run: genres, data and settings. Writes nothing."""
    return TrainingRun(
        snapshot_url=absolute(snapshot.url),
        spectrograms_hash=snapshot.content_hash(tracks),
        mel_fingerprint=snapshot.mel_fingerprint,
        genres=genres,
        genre_parents=restrict_genre_tree(genres, snapshot.genre_parents),
        pretrained_sha256=hashlib.sha256(start).hexdigest() if start else "",
        settings=training,
    )


def find_published_version(folder: str, settings: TrainModelSettings) -> str | None:
    """Return the model version already published from this run with the same calibration settings, or None."""
    pointer = join(folder, "version.json")
    if not exists(pointer):
        return None
    version: str = json.loads(read_bytes(pointer))["version"]
    url = join(settings.models, version)
    if not exists(join(url, "model.json")):
        return None
    calibration = read_card(url)["settings"]["calibration"]
    return version if calibration == settings.calibration.model_dump(mode="json") else None


@stage
def train(
    cluster: Cluster, folder: str, run: TrainingRun, hosts: HostSettings, title: str = "Training"
) -> None:
    """Train on all hosts that have the training resource, unless that is done; show every epoch."""
    if is_finished(folder):
        return
    with showing_progress(title, run.settings.epochs, "epochs") as advance:
        train_on_hosts(
            cluster.client,
            folder,
            hosts,
            micro_batches=run.settings.batch_size // run.settings.micro_batch_size,
            stall_timeout_s=run.settings.stall_timeout_s,
            on_event=partial(_show_event, advance, EpochCount()),
        )


@dataclass
class EpochCount:
    """Epochs shown so far: a run that was restarted reports some of them again."""

    shown: int = 0

    def count_new(self, epochs: int) -> int:
        """Count up to `epochs`; return how many of them are new."""
        new = max(0, epochs - self.shown)
        self.shown += new
        return new


def _show_event(advance: Advance, epochs: EpochCount, event: dict[str, Any]) -> None:
    """Show an event of the training in the progress or in the log."""
    log = run_logger()
    match event["event"]:
        case "start":
            log.info("training: %s", {name: value for name, value in event.items() if name != "event"})
            advance(epochs.count_new(event["epochs_done"]), "")
        case "epoch":
            advance(epochs.count_new(event["epoch"]), _epoch_note(event))
        case "step":
            advance(0, _step_note(event))
        case "notice":
            log.warning(event["message"])
        case "log":
            log.info("training: %s", event["line"])


def _step_note(event: dict[str, Any]) -> str:
    return (
        f"epoch {event['epoch']}, step {event['step']} of {event['steps']}: loss {event['loss']:.3f}, "
        f"{event['crops_per_s']:.0f} crops/s"
    )


def _epoch_note(event: dict[str, Any]) -> str:
    return (
        f"loss {event['train_loss']:.3f}, validation {event['validation_loss']:.3f}, "
        f"{event['validation_accuracy']:.0%} right"
    )


@stage
def predict_held_out(
    cluster: Cluster, folder: str, run: TrainingRun, snapshot: Snapshot, tracks: pa.Table
) -> pa.Table:
    """Predict the validation and test tracks. The only place where the test set is read."""
    held_out = tracks.filter(pc.not_equal(tracks["split"], "training")).rename_columns({"target": "truth"})
    rows = pc.index_in(held_out["track_id"], value_set=snapshot.tracks["track_id"].combine_chunks())
    for name in ("artist", "title"):
        held_out = held_out.append_column(name, snapshot.tracks[name].take(rows))
    predictions = predict_tracks(
        cluster, held_out, run.snapshot_url, folder, run_identity(run, snapshot), "Predicting"
    )
    return predictions.sort_by("track_id")


def predict_tracks(
    cluster: Cluster,
    rows: pa.Table,
    snapshot_url: str,
    folder_url: str,
    identity: ModelIdentity,
    title: str,
) -> pa.Table:
    """Predict tracks of a snapshot with the weights in a folder; return the rows with their probabilities."""
    with showing_progress(title, len(rows), "tracks") as advance:
        tables = []
        for batch, table in fan_out(
            cluster,
            predict_stored_tracks,
            in_batches(rows.to_pylist(), TRACKS_PER_INFERENCE_BATCH),
            snapshot_url=snapshot_url,
            folder_url=folder_url,
            identity=identity,
        ):
            tables.append(table)
            advance(len(batch), "")
    return pa.concat_tables(tables)


@stage
def publish_model(
    folder: str, run: TrainingRun, snapshot: Snapshot, predictions: pa.Table, settings: TrainModelSettings
) -> str:
    """Fit the calibration, write the report, and store both with the network as a new version."""
    files, card = assemble_version(
        folder,
        run,
        predictions,
        snapshot=snapshot,
        models=settings.models,
        calibration_settings=settings.calibration,
        rejects=list_rejects(snapshot),
        about={
            "snapshot": run.snapshot_url,
            "code": code_version(),
            "trained": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": settings.model_dump(mode="json"),
        },
    )
    version = publish_version(settings.models, files, card)
    write_atomic(join(folder, "version.json"), json.dumps({"version": version}).encode())
    return version


def summarise_training(version: str, settings: TrainModelSettings, *, trained_now: bool) -> TrainSummary:
    """Summarise the scores of a version, in the Prefect UI as well."""
    url = join(settings.models, version)
    card = read_card(url)
    test = card["metrics"]["test"]
    summary = TrainSummary(
        version=version,
        url=url,
        report=join(absolute(url), "report", "report.html"),
        test_tracks=test["tracks"],
        test_correct=test["correct"],
        accuracy=test["accuracy"],
        macro_f1=test["macro_f1"],
        chance=test["chance"],
        accuracy_interval=_format_interval(test["accuracy_interval"]),
        best_epoch=card["best_epoch"],
        trained_now=trained_now,
        is_champion=champion(settings.models) == version,
    )
    show_training_result(summary)
    return summary


def show_training_result(summary: TrainSummary) -> None:
    """Put the result on the page of the run in the Prefect UI."""
    right = f"{summary.test_correct} of {summary.test_tracks}"
    row = {
        "test tracks right": right,
        "accuracy": f"{summary.accuracy:.0%} ({summary.accuracy_interval}; chance {summary.chance:.0%})",
        "macro F1": f"{summary.macro_f1:.2f}",
        "best epoch": summary.best_epoch,
        "in service": "yes" if summary.is_champion else "no",
        "version": summary.version,
        "report": summary.report,  # as text: browsers follow no link from a server to a local file
    }
    show_table("training-result", [row], f"{right} test tracks right ({summary.accuracy:.0%})")
    show_link("training-report", f"file://{summary.report}", "report.html")


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
