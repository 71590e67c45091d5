"""A model version, logged to an MLflow tracking server if one is set; MLflow is imported only then.

One MLflow run per version. The version is published before and contains all that is logged, so a
server that is down costs the MLflow run, never a training.
"""

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
from store.model_registry import MODEL_CARD_FILE, REPORT_FOLDER, read_card
from training.fit.run import read_history
from training.report.dotted_names import flatten

EXPERIMENT_NAME = "spectrogram-one"
MLFLOW_ENVIRONMENT = {  # defaults for what the operator did not set; MLflow reads some when it is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow ignores DO_NOT_TRACK=1
    "MLFLOW_CONFIGURE_LOGGING": "false",  # its log handlers would write to the terminal
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # s; with two retries a server that does not respond costs a minute, not 20
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
SQLITE_PREFIX = "sqlite:///"


def check_mlflow_uri(uri: str) -> None:
    """Check before hours of training whether `uri` can be logged to; "" logs nothing.

    Raises: BadInput if logging can never work. A server is not contacted: it may be down only now.
    """
    if not uri:
        return
    if uri.startswith(SQLITE_PREFIX) and uri not in (SQLITE_PREFIX, f"{SQLITE_PREFIX}:memory:"):
        _check_database(uri)
    elif not _is_server(uri):
        raise BadInput(
            f"--mlflow-uri {uri}: cannot be logged to; use sqlite:///PATH/mlflow.db or http(s)://HOST:PORT"
        )
    elif "@" in urlsplit(uri).netloc:  # settings are kept with the model and shown in the Prefect UI
        raise BadInput(
            f"--mlflow-uri of {urlsplit(uri).hostname}: contains a user name or password, which would be stored "
            "with every model; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    _import_mlflow(uri)


def log_to_mlflow(uri: str, version_url: str) -> None:
    """Log a model version to MLflow if `uri` is set. A failure is a warning: the version is published already."""
    if not uri:
        return
    try:
        log_version(uri, version_url)
    except Exception as why:  # noqa: BLE001 (an artifact store may raise anything; the version is published)
        reason = " ".join(f"{type(why).__name__}: {why}".split())
        run_logger().warning("%s: published, but not logged to MLflow at %s; %s", version_url, uri, reason)


@stage
def log_version(uri: str, version_url: str) -> str:
    """Log settings, epochs, test scores, origin, card and report as an MLflow run; return its id."""
    mlflow = _import_mlflow(uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    card = read_card(version_url)
    epochs = read_history(card["run"])["epochs"]
    end_ms = round(datetime.fromisoformat(card["trained"]).timestamp() * 1_000)
    start_ms = end_ms - round(1_000 * sum(row.get("seconds", 0.0) for row in epochs))
    run = client.create_run(
        _find_experiment(client, uri), start_ms, tags=mlflow_tags(card, version_url), run_name=card["version"]
    )
    run_id: str = run.info.run_id
    try:
        params = [mlflow.entities.Param(key, str(value)) for key, value in flatten(card["settings"])]
        rows = [*epoch_metrics(epochs, start_ms), *score_metrics(card, end_ms)]
        metrics = [mlflow.entities.Metric(*row) for row in rows]
        client.log_batch(run_id, metrics, params, synchronous=True)  # the client splits it into requests
        with tempfile.TemporaryDirectory() as folder:
            copy_report_files(version_url, Path(folder))
            client.log_artifacts(run_id, folder)
    except BaseException:  # a Ctrl-C or a cancellation too: MLflow would show the run as active forever
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED", end_ms)
    return run_id


def mlflow_tags(card: Mapping[str, Any], version_url: str) -> dict[str, str]:
    """Return the origin and the location of a version as tags."""
    origin = {name: card.get(name) for name in ("version", "snapshot", "data", "code", "parent", "run")}
    return {name: value for name, value in {**origin, "model": absolute(version_url)}.items() if value}


def epoch_metrics(
    epochs: Sequence[Mapping[str, Any]], start_ms: int
) -> Iterator[tuple[str, float, int, int]]:
    """Yield name, value, time in ms and epoch of each metric of each epoch."""
    at_ms = float(start_ms)
    for row in epochs:
        at_ms += 1_000 * row.get("seconds", 0.0)
        for name, value in row.items():
            if name != "epoch" and value is not None:
                yield name, value, round(at_ms), row["epoch"]


def score_metrics(card: Mapping[str, Any], at_ms: int) -> Iterator[tuple[str, float, int, int]]:
    """Yield name, value, time in ms and epoch of each test score, at the epoch of the published weights."""
    epoch = card["best_epoch"]
    yield "best_epoch", epoch, at_ms, epoch
    for name, value in flatten(card["metrics"]["test"]):
        if isinstance(value, int | float):
            yield f"test_{name}", value, at_ms, epoch


def copy_report_files(version_url: str, folder: Path) -> None:
    """Copy the model card and the report of a version into a local folder."""
    (folder / REPORT_FOLDER).mkdir()
    report = (f"{REPORT_FOLDER}/{name}" for name in list_names(join(version_url, REPORT_FOLDER)))
    for name in (MODEL_CARD_FILE, *report):
        (folder / name).write_bytes(read_bytes(join(version_url, name)))


def _is_server(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port, half an IPv6 address
        return False


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE_PREFIX).partition("?")[0]).absolute()


def _check_database(uri: str) -> None:
    """Open the database once: MLflow itself would retry for two minutes."""
    path = _database(uri)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA schema_version")
    except (OSError, sqlite3.DatabaseError) as why:
        raise BadInput(
            f"--mlflow-uri {uri}: no database can be opened there ({why}); use sqlite:///PATH/mlflow.db "
            "with a writable path"
        ) from None


def _find_experiment(client: Any, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT_NAME)
    if found is None:
        # Beside the database; MLflow's default is the working directory of the process.
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
            f"--mlflow-uri {uri}: MLflow is not installed here ({why}); `pip install -e .[mlflow]`, or leave "
            "--mlflow-uri empty"
        ) from None
    module: ModuleType = mlflow
    return module
