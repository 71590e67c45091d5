"""A model version, told to an MLflow tracking server where somebody wants that; MLflow is imported only then.

One MLflow run for each version. The version is published first and holds all that is told here, so a
server that is down costs its own copy, never a training.
"""

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from flows.reporting.stage import run_logger, stage
from store.errors import BadInput
from store.fs.files import absolute, join, list_names, read_bytes
from store.model_registry import read_card
from training.report.dotted_names import flatten

EXPERIMENT_NAME = "spectrogram-one"
MLFLOW_ENVIRONMENT = {  # what MLflow is told unless the operator told it otherwise; it reads some of it at its import
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing here calls home; the DO_NOT_TRACK=1 of others it does not know
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its handlers would write between the lines of ours
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # s; with two retries a silent server holds us for a minute, not for 20
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
SQLITE_PREFIX = "sqlite:///"


def check_mlflow_uri(uri: str) -> None:
    """Look, before hours of training, whether anything can be logged to `uri`; "" logs nothing.

    Raises: BadInput if that can never work. A server may be down now and up by then: it is not asked.
    """
    if not uri:
        return
    if uri.startswith(SQLITE_PREFIX) and uri not in (SQLITE_PREFIX, f"{SQLITE_PREFIX}:memory:"):
        _check_database(uri)
    elif not _is_server(uri):
        raise BadInput(
            f"mlflow_uri {uri}: nothing that can be logged to here; give sqlite:///PATH/mlflow.db or "
            "http(s)://HOST:PORT"
        )
    elif "@" in urlsplit(uri).netloc:  # settings are kept with the model and shown in the Prefect UI
        raise BadInput(
            f"mlflow_uri of {urlsplit(uri).hostname}: holds a name or password, which every model would "
            "keep; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    _import_mlflow(uri)


def log_to_mlflow(uri: str, version_url: str) -> None:
    """Log a model version to MLflow if `uri` is set. If that fails, say so and go on: the version is safe."""
    if not uri:
        return
    try:
        log_version(uri, version_url)
    except Exception as why:  # noqa: BLE001 (an artifact store may raise anything; the version is published)
        reason = " ".join(f"{type(why).__name__}: {why}".split())
        run_logger().warning(
            "%s: not logged to MLflow at %s, but whole and published; %s", version_url, uri, reason
        )


@stage
def log_version(uri: str, version_url: str) -> str:
    """Make an MLflow run of a version: settings, epochs, test scores, origin, card and report. Give its id."""
    mlflow = _import_mlflow(uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    card = read_card(version_url)
    epochs = read_epochs(card["run"])
    end_ms = round(datetime.fromisoformat(card["trained"]).timestamp() * 1_000)
    start_ms = end_ms - round(1_000 * sum(row.get("seconds", 0.0) for row in epochs))
    run = client.create_run(
        _find_experiment(client, uri), start_ms, tags=mlflow_tags(card, version_url), run_name=card["version"]
    )
    run_id: str = run.info.run_id
    try:
        params = [mlflow.entities.Param(key, str(value)) for key, value in flatten(card["settings"])]
        told = [*epoch_metrics(epochs, start_ms), *score_metrics(card, end_ms)]
        metrics = [mlflow.entities.Metric(*row) for row in told]
        client.log_batch(run_id, metrics, params, synchronous=True)  # split there, if it is much
        with tempfile.TemporaryDirectory() as folder:
            copy_report_files(version_url, Path(folder))
            client.log_artifacts(run_id, folder)
    except (
        BaseException
    ):  # a Ctrl-C or a cancellation too: whatever ends us, MLflow's run would be at work for ever
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED", end_ms)
    return run_id


def read_epochs(run: str) -> list[dict[str, Any]]:
    """Read what a training noted of each epoch."""
    epochs: list[dict[str, Any]] = json.loads(read_bytes(join(run, "history.json")))["epochs"]
    return epochs


def mlflow_tags(card: Mapping[str, Any], version_url: str) -> dict[str, str]:
    """Say where a version came from and where it lies."""
    origin = {name: card.get(name) for name in ("version", "snapshot", "data", "code", "parent", "run")}
    return {name: value for name, value in {**origin, "model": absolute(version_url)}.items() if value}


def epoch_metrics(
    epochs: Sequence[Mapping[str, Any]], start_ms: int
) -> Iterator[tuple[str, float, int, int]]:
    """Give name, value, time in ms and epoch of all that was measured after each epoch."""
    at_ms = float(start_ms)
    for row in epochs:
        at_ms += 1_000 * row.get("seconds", 0.0)
        for name, value in row.items():
            if name != "epoch" and value is not None:
                yield name, value, round(at_ms), row["epoch"]


def score_metrics(card: Mapping[str, Any], at_ms: int) -> Iterator[tuple[str, float, int, int]]:
    """Give name, value, time in ms and epoch of the test scores: those of the weights that were kept."""
    epoch = card["best_epoch"]
    yield "best_epoch", epoch, at_ms, epoch
    for name, value in flatten(card["metrics"]["test"]):
        if isinstance(value, int | float):
            yield f"test_{name}", value, at_ms, epoch


def copy_report_files(version_url: str, folder: Path) -> None:
    """Copy what a version has for people to read, from wherever it lies, into a local folder."""
    (folder / "report").mkdir()
    report = (f"report/{name}" for name in list_names(join(version_url, "report")))
    for name in ("MODEL_CARD.md", *report):
        (folder / name).write_bytes(read_bytes(join(version_url, name)))


def _is_server(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        return False


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE_PREFIX).partition("?")[0]).absolute()


def _check_database(uri: str) -> None:
    """Open it once: MLflow itself would try for two minutes."""
    path = _database(uri)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
    except (OSError, sqlite3.DatabaseError) as why:
        raise BadInput(
            f"mlflow_uri {uri}: no database can be kept there ({why}); give sqlite:///PATH/mlflow.db "
            "with a path that can be written to"
        ) from None


def _find_experiment(client: Any, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT_NAME)
    if found is None:
        # Beside the database; MLflow's own choice is the folder in which the process happens to run.
        beside = (
            (_database(uri).parent / "mlflow-artifacts").as_uri() if uri.startswith(SQLITE_PREFIX) else None
        )
        made: str = client.create_experiment(EXPERIMENT_NAME, artifact_location=beside)
        return made
    known: str = found.experiment_id
    return known


def _import_mlflow(uri: str) -> ModuleType:
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow  # takes seconds
    except ModuleNotFoundError as why:
        raise BadInput(
            f"mlflow_uri {uri}: MLflow is not installed here ({why}); `pip install -e .[mlflow]`, or leave "
            "mlflow_uri empty"
        ) from None
    module: ModuleType = mlflow
    return module
