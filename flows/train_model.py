"""Train a network on a snapshot, score it on tracks it never saw, and keep it as a model version."""

import hashlib
import json
import subprocess
import tempfile
from datetime import UTC, datetime
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
from flows.reporting.progress import showing_progress
from flows.reporting.stage import run_logger, stage
from flows.services.mlflow_log import check_mlflow_uri, log_to_mlflow
from flows.settings import TrainModelSettings
from preprocessing.catalogue.splits import SPLITS
from preprocessing.mel.settings import MelSettings
from store.fs.files import absolute, exists, join, read_bytes, write_atomic
from store.fs.parquet import read_table, to_parquet
from store.model_registry import champion, promote, publish_version, read_card, resolve_version
from store.reader import Snapshot, open_snapshot
from training.evaluation.calibration import Calibration
from training.evaluation.calibration_fitting import explain_calibration, fit_calibration
from training.evaluation.held_out_predictions import to_matrix
from training.evaluation.settings import CalibrationSettings
from training.evaluation.test_set_use import record_test_use
from training.fit.labels import restrict_genre_tree, select_labelled_tracks, select_training_genres
from training.fit.run import TrainingRun, hash_training_data, is_finished, run_hash, write_run
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity
from training.inference.stored_tracks import predict_stored_tracks
from training.networks.ancestry import check_data_leakage
from training.networks.network import WEIGHTS_FILE
from training.networks.pretrained import read_pretrained
from training.networks.settings import is_state_dict_file
from training.report.model_card import write_model_card
from training.report.page import write_report

TRACKS_PER_INFERENCE_BATCH = 64
TRACKS_FILE = "tracks.parquet"  # of a run: see write_run


class TrainSummary(BaseModel, frozen=True):
    """What came out of a training."""

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
        """Tell it in lines for a terminal."""
        return [
            f"model {self.version}{' (in service)' if self.is_champion else ''}: {self.test_correct} of "
            f"{self.test_tracks} test tracks right ({self.accuracy:.0%}, {self.accuracy_interval}; "
            f"chance {self.chance:.0%}), macro F1 {self.macro_f1:.2f}; best epoch {self.best_epoch}",
            f"report: {self.report}",
        ]


def train_model(settings: TrainModelSettings) -> TrainSummary:
    """Train a network, score it and keep it. Rerun it to resume it; done once, it is not done again."""
    check_training(settings)
    check_mlflow_uri(settings.mlflow_uri)
    snapshot = open_snapshot(settings.store)
    folder, run, tracks = prepare_run(snapshot, settings)
    known = find_published_version(folder, settings)
    if known is None:
        with open_cluster(settings.cluster) as cluster:
            train(cluster, folder, run, settings.hosts)
            heard = predict_held_out(cluster, folder, run, snapshot, tracks)
        version = publish_model(folder, run, snapshot, heard, settings)
        log_to_mlflow(settings.mlflow_uri, join(settings.models, version))
    else:
        version = known
    if settings.promote:
        promote(settings.models, version)
    return summarise_training(version, settings, trained_now=known is None)


def prepare_run(snapshot: Snapshot, settings: TrainModelSettings) -> tuple[str, TrainingRun, pa.Table]:
    """Choose genres and tracks by the splits of the catalogue, and lay out the run."""
    genres, tracks = select_training_data(snapshot, settings)
    training = resolve_start(settings.training, settings.models)
    folder, run = create_run_folder(snapshot, genres, tracks, training, settings.models)
    return folder, run, tracks


def select_training_data(
    snapshot: Snapshot, settings: TrainModelSettings
) -> tuple[tuple[str, ...], pa.Table]:
    """Choose genres and tracks by the splits of the catalogue."""
    target = settings.training.target
    genres = select_training_genres(snapshot.tracks, target, settings.genres)
    return genres, select_labelled_tracks(snapshot.tracks, target, genres)


def resolve_start(training: TrainSettings, models: str) -> TrainSettings:
    """Put a URL where the start is named "champion", "latest", or by the name of a version of ours."""
    weights = training.pretrained.weights
    if not weights or "/" in weights or is_state_dict_file(weights):
        return training
    start = training.pretrained.model_copy(update={"weights": resolve_version(absolute(models), weights)})
    return training.model_copy(update={"pretrained": start})


def create_run_folder(
    snapshot: Snapshot, genres: tuple[str, ...], tracks: pa.Table, training: TrainSettings, root: str
) -> tuple[str, TrainingRun]:
    """Write a run where the ranks find it, in `root`/runs; the same wish gives the same folder.

    Raises: BadInput if the start cannot be read, or has learned from validation or test tracks.
    """
    mel = MelSettings.model_validate(snapshot.mel_settings)
    weights = training.pretrained.weights
    start = read_pretrained(weights, training.model, genres, training.target, mel) if weights else None
    for note in check_data_leakage(weights, tracks, snapshot.root):
        run_logger().warning(note)
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
    """Say what is to be learned, and write nothing."""
    return TrainingRun(
        snapshot_url=absolute(snapshot.url),
        spectrograms_hash=snapshot.content_hash(tracks["track_id"].to_pylist()),
        mel_fingerprint=snapshot.mel_fingerprint,
        genres=genres,
        genre_parents=restrict_genre_tree(genres, snapshot.genre_parents),
        pretrained_sha256=hashlib.sha256(start).hexdigest() if start else "",
        settings=training,
    )


def find_published_version(folder: str, settings: TrainModelSettings) -> str | None:
    """Name the model version that this very run already became, decided in the same way; or None."""
    note = join(folder, "version.json")
    if not exists(note):
        return None
    name: str = json.loads(read_bytes(note))["version"]
    url = join(settings.models, name)
    if not exists(join(url, "model.json")):
        return None
    decided = read_card(url)["settings"].get("calibration")  # older versions do not tell
    return name if decided in (None, settings.calibration.model_dump(mode="json")) else None


@stage
def train(
    cluster: Cluster, folder: str, run: TrainingRun, hosts: HostSettings, called: str = "Training"
) -> None:
    """Train on all hosts that hold the resource, unless that is done; show every epoch."""
    if is_finished(folder):
        return
    log = run_logger()
    told = 0  # epochs: a run that was restarted tells some of them again
    with showing_progress(called, run.settings.epochs, "epochs") as advance:

        def on_event(event: dict[str, Any]) -> None:
            nonlocal told
            match event["event"]:
                case "start":
                    log.info("training: %s", {name: it for name, it in event.items() if name != "event"})
                    advance(max(0, event["epochs_done"] - told), "")
                    told = max(told, event["epochs_done"])
                case "epoch":
                    advance(max(0, event["epoch"] - told), _epoch_note(event))
                    told = max(told, event["epoch"])
                case "step":
                    advance(0, _step_note(event))
                case "notice":
                    log.warning(event["message"])
                case "log":
                    log.info("training: %s", event["line"])

        train_on_hosts(
            cluster.client,
            folder,
            hosts,
            micro_batches=run.settings.batch_size // run.settings.micro_batch_size,
            stall_timeout_s=run.settings.stall_timeout_s,
            on_event=on_event,
        )


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
    """Let the network listen to the validation and test tracks. This is where the test set is touched."""
    unseen = tracks.filter(pc.not_equal(tracks["split"], "training")).rename_columns({"target": "truth"})
    rows = pc.index_in(unseen["track_id"], value_set=snapshot.tracks["track_id"].combine_chunks())
    for name in ("artist", "title"):
        unseen = unseen.append_column(name, snapshot.tracks[name].take(rows))
    with showing_progress("Scoring", len(unseen), "tracks") as advance:
        heard = []
        for batch, table in fan_out(
            cluster,
            predict_stored_tracks,
            in_batches(unseen.to_pylist(), TRACKS_PER_INFERENCE_BATCH),
            snapshot_url=run.snapshot_url,
            folder_url=folder,
            identity=_identity(run, snapshot),
        ):
            heard.append(table)
            advance(len(batch), "")
    return pa.concat_tables(heard).sort_by("track_id")


@stage
def publish_model(
    folder: str, run: TrainingRun, snapshot: Snapshot, heard: pa.Table, settings: TrainModelSettings
) -> str:
    """Decide by the validation tracks, write the report, store all as a new version."""
    history = json.loads(read_bytes(join(folder, "history.json")))
    calibration, notes = calibrate_on_validation(heard, run, settings.calibration)
    about: dict[str, Any] = {
        "snapshot": run.snapshot_url,
        "code": code_version(),
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings.model_dump(mode="json"),
    }
    test_use = record_test_use(heard, settings.models, about["trained"])
    with tempfile.TemporaryDirectory() as scratch:
        page = write_report(
            Path(scratch),
            name=folder.rsplit("/", 1)[-1],
            predictions=heard,
            genres=run.genres,
            target=run.settings.target,
            calibration=calibration,
            notes=notes,
            test_use=test_use,
            history=history["epochs"],
            best_epoch=history["best_epoch"],
            about=about,
            rejects=list_rejects(snapshot),
            mel=MelSettings.model_validate(snapshot.mel_settings),
            read_mel=snapshot.mel,
        )
        report = {f"report/{path.name}": path.read_bytes() for path in page.parent.iterdir()}
    card = {
        **_identity(run, snapshot).model_copy(update={"calibration": calibration}).model_dump(mode="json"),
        **about,
        "run": folder,
        "data": hash_training_data(run, read_table(join(folder, TRACKS_FILE))),
        "parent": run.settings.model_dump().get("pretrained", {}).get("weights") or None,
        "best_epoch": history["best_epoch"],
        "tracks": _count_splits(folder),
        "calibration_notes": notes,
        "test_use": test_use,
        "metrics": json.loads(report["report/metrics.json"]),
    }
    files = {
        WEIGHTS_FILE: read_bytes(join(folder, WEIGHTS_FILE)),
        "report/held_out_predictions.parquet": to_parquet(heard),
        "MODEL_CARD.md": write_model_card(card).encode(),
        **report,
    }
    version = publish_version(settings.models, files, card)
    write_atomic(join(folder, "version.json"), json.dumps({"version": version}).encode())
    return version


def calibrate_on_validation(
    heard: pa.Table, run: TrainingRun, wish: CalibrationSettings
) -> tuple[Calibration, list[str]]:
    """Fit on the validation tracks what is made of the probabilities; say in words what came of it."""
    rows = heard.filter(pc.equal(heard["split"], "validation"))
    truth_TG, raw_TG = to_matrix(rows, "truth"), to_matrix(rows, "probabilities")
    target = run.settings.target
    calibration = fit_calibration(truth_TG, raw_TG, run.genres, target, wish, run.genre_parents)
    return calibration, list(explain_calibration(calibration, wish, truth_TG, run.genres, target))


def _count_splits(folder: str) -> dict[str, int]:
    splits = read_table(join(folder, TRACKS_FILE))["split"].to_pylist()
    return {split: splits.count(split) for split in SPLITS}


def summarise_training(version: str, settings: TrainModelSettings, *, trained_now: bool) -> TrainSummary:
    """Say what the model can do, in the Prefect UI as well."""
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
        accuracy_interval=_interval_words(test["accuracy_interval"]),
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
        "report": summary.report,  # a browser follows no link from the server to a local file
    }
    show_table("training-result", [row], f"{right} test tracks right ({summary.accuracy:.0%})")
    show_link("training-report", f"file://{summary.report}", "report.html")


def _interval_words(interval: dict[str, float] | None) -> str:
    if interval is None:
        return "no interval"
    return f"95 % interval {interval['low']:.0%} to {interval['high']:.0%}"


def code_version() -> str:
    """Name the code that runs: the release, and the commit where it runs from a checkout."""
    release = installed_version("spectrogram-one")
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return release
    return f"{release} ({said.stdout.strip()})"


def _identity(run: TrainingRun, snapshot: Snapshot) -> ModelIdentity:
    mel = MelSettings.model_validate(snapshot.mel_settings)
    return ModelIdentity(genres=run.genres, mel=mel, training=run.settings)
