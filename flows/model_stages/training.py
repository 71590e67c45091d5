"""The stages of a training that `train`, `cross-validate` and the choice of a model share."""

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.cluster.settings import HostSettings
from flows.cluster.training_hosts import train_on_hosts
from flows.model_stages.features import fit_run_features, load_musicnn
from flows.reporting import metrics
from flows.reporting.progress import Advance, showing_progress
from flows.reporting.stage import run_logger, stage
from flows.reporting.structured_log import log_event
from flows.services.exclusive import exclusive
from preprocessing.mel.settings import MelSettings
from store.dataset.genre_tree import parents_among
from store.fs.files import absolute, exists, join
from store.fs.parquet import read_table, write_table
from store.reader import Snapshot
from training.fit.run import TrainingRun, is_finished, run_hash, write_run
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity
from training.inference.stored_tracks import predict_stored_tracks, run_identity
from training.networks.ancestry import check_data_leakage
from training.networks.pretrained import read_pretrained
from training.networks.settings import FEATURES, NETWORK
from training.run_files import RUN_PREDICTIONS_FILE

TRACKS_PER_INFERENCE_BATCH = 64


def create_run_folder(
    snapshot: Snapshot, genres: tuple[str, ...], tracks: pa.Table, training: TrainSettings, root: str
) -> tuple[str, TrainingRun]:
    """Write a run into a folder of `root`/runs, named by a hash of its settings and data.

    Raises: BadInput if the pretrained weights cannot be read, or were trained on validation or test tracks; or if
        musicnn cannot be read, or needs other spectrograms.
    """
    load_musicnn(training.model, snapshot)
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
    cache_folder = training.cache_folder and absolute(training.cache_folder)
    return TrainingRun(
        snapshot_url=absolute(snapshot.url),
        spectrograms_hash=snapshot.content_hash(tracks),
        mel_fingerprint=snapshot.mel_fingerprint,
        genres=genres,
        genre_parents=parents_among(genres, snapshot.genre_parents),
        pretrained_sha256=hashlib.sha256(start).hexdigest() if start else "",
        settings=training.model_copy(update={"cache_folder": cache_folder}),
    )


def train_members(
    cluster: Cluster,
    folder: str,
    run: TrainingRun,
    snapshot: Snapshot,
    tracks: pa.Table,
    *,
    hosts: HostSettings,
    root: str,
    title: str = "Training",
) -> None:
    """Train each member of the model of a run, unless that is done; features of tracks are kept in `root`."""
    if NETWORK in run.settings.model.members:
        train_network(cluster, folder, run, hosts, title)
    if FEATURES in run.settings.model.members:
        fit_run_features(cluster, folder, run, snapshot, tracks, root)


def train_and_predict(
    cluster: Cluster,
    folder: str,
    run: TrainingRun,
    snapshot: Snapshot,
    tracks: pa.Table,
    *,
    hosts: HostSettings,
    root: str,
    title: str,
) -> pa.Table:
    """Train the model of a run and predict its held-out tracks, unless that is done; return the predictions."""
    url = join(folder, RUN_PREDICTIONS_FILE)
    if exists(url):
        return read_table(url)
    train_members(cluster, folder, run, snapshot, tracks, hosts=hosts, root=root, title=title)
    predictions = predict_held_out(cluster, folder, run, snapshot, tracks)
    write_table(url, predictions)
    return predictions


@stage
def train_network(
    cluster: Cluster, folder: str, run: TrainingRun, hosts: HostSettings, title: str = "Training"
) -> None:
    """Train on all hosts that have the training resource, unless that is done; show every epoch."""
    if is_finished(folder):
        return
    with (
        exclusive("training", cluster.name),
        showing_progress(title, run.settings.epochs, "epochs") as advance,
    ):
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
            metrics.set_gauge("training_data_wait_share", event["data_wait_share"])
            log_event("epoch", **{name: value for name, value in event.items() if name != "event"})
        case "step":
            _measure_step(event)
            advance(0, _step_note(event))
        case "notice":
            log.warning(event["message"])
        case "log":
            log.info("training: %s", event["line"])


def _measure_step(event: dict[str, Any]) -> None:
    metrics.set_gauge("training_crops_per_second", event["crops_per_s"])
    metrics.set_gauge("training_step_seconds", event["step_s"])
    metrics.set_gauge("training_loss", event["loss"])
    metrics.set_gauge("gpu_memory_bytes", event["gpu_memory_bytes"])


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
    predictions = predict_on_workers(
        cluster,
        held_out,
        run.snapshot_url,
        folder,
        run_identity(run, snapshot),
        "Predicting",
        across_folds=True,
    )
    return predictions.sort_by("track_id")


def predict_on_workers(
    cluster: Cluster,
    rows: pa.Table,
    snapshot_url: str,
    folder_url: str,
    identity: ModelIdentity,
    title: str,
    *,
    across_folds: bool = False,
) -> pa.Table:
    """Predict tracks of a snapshot with the model in a folder; return the rows with their probabilities."""
    with showing_progress(title, len(rows), "tracks") as advance:
        tables = []
        for batch, table in fan_out(
            cluster,
            predict_stored_tracks,
            in_batches(rows.to_pylist(), TRACKS_PER_INFERENCE_BATCH),
            snapshot_url=snapshot_url,
            folder_url=folder_url,
            identity=identity,
            across_folds=across_folds,
        ):
            tables.append(table)
            advance(len(batch), "")
    return pa.concat_tables(tables)
