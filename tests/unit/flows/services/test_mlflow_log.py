"""What is logged to MLflow, read back from a real sqlite store; and what is refused before a training.

MLflow is imported within tests only: at the head it would be imported before our settings silence it.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.services.mlflow_log import EXPERIMENT_NAME, MLFLOW_ENVIRONMENT, check_mlflow_uri, log_version
from store.errors import BadInput
from store.fs.files import join, write_atomic

EPOCHS = [
    {"epoch": 1, "train_loss": 1.5, "validation_accuracy": 0.5, "learning_rate": None, "seconds": 2.0},
    {"epoch": 2, "train_loss": 0.75, "validation_accuracy": 0.625, "seconds": 3.0},
]
CARD = {
    "version": "20260102T030405-aabbcc",
    "snapshot": "/store/snapshots/00000003.json",
    "data": "0123456789ab",
    "code": "0.1.0 (abc1234)",
    "parent": None,
    "trained": "2026-01-02T03:04:05+00:00",
    "best_epoch": 2,
    "settings": {
        "store": "/store",
        "mlflow_uri": "",
        "genres": ["Folk", "Rock"],
        "training": {"epochs": 2, "model": {"name": "shallow"}},
        **{f"many_{number}": number for number in range(120)},
    },
    "metrics": {
        "test": {
            "target": "top",
            "accuracy": 0.75,
            "top_k": None,
            "macro_f1": 0.5,
            "accuracy_interval": {"low": 0.25, "high": 1.0, "method": "bootstrap by artist"},
            "genres": [{"genre": "Folk"}],
        }
    },
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Leave the environment as it was: we set what MLflow reads there."""
    for name in MLFLOW_ENVIRONMENT:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def version(tmp_path):
    """A version as the flow publishes it, small, and the history of its run."""
    models = join(str(tmp_path), "models")
    url, run = join(models, CARD["version"]), join(models, "runs", "1a2b")
    write_atomic(join(run, "history.json"), json.dumps({"best_epoch": 2, "epochs": EPOCHS}).encode())
    write_atomic(join(url, "MODEL_CARD.md"), b"# Model card\n")
    write_atomic(join(url, "report", "metrics.json"), b"{}")
    write_atomic(join(url, "report", "report.html"), b"<html>")
    write_atomic(join(url, "weights.safetensors"), b"large")
    write_atomic(join(url, "model.json"), json.dumps({**CARD, "run": run}).encode())
    return url


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with MLflow's tables and nothing in them: to make them takes seconds."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in MLFLOW_ENVIRONMENT.items():
            patch.setenv(name, value)
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tables, tmp_path):
    shutil.copyfile(tables, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def read_runs(uri):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT_NAME)
    return client, client.search_runs([experiment.experiment_id])


def test_a_version_becomes_a_run(version, tmp_path):
    uri = f"sqlite:///{tmp_path}/new folder/mlflow.db"
    check_mlflow_uri(uri)
    run_id = log_version(uri, version)
    client, (run,) = read_runs(uri)
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, CARD["version"], "FINISHED")
    assert run.info.end_time - run.info.start_time == 5_000

    assert len(run.data.params) == 125
    assert run.data.params["training.model.name"] == "shallow"
    assert run.data.params["genres"] == "['Folk', 'Rock']"
    assert run.data.params["mlflow_uri"] == ""

    last = {"train_loss": 0.75, "validation_accuracy": 0.625, "seconds": 3.0, "best_epoch": 2.0}
    test = {"accuracy": 0.75, "macro_f1": 0.5, "accuracy_interval.low": 0.25, "accuracy_interval.high": 1.0}
    assert run.data.metrics == last | {f"test_{name}": value for name, value in test.items()}
    losses = client.get_metric_history(run_id, "train_loss")
    begun = run.info.start_time
    assert [(it.step, it.value, it.timestamp - begun) for it in losses] == [(1, 1.5, 2_000), (2, 0.75, 5_000)]

    ours = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    origin = {name: CARD[name] for name in ("version", "snapshot", "data", "code")}
    assert ours == origin | {"run": f"{tmp_path}/models/runs/1a2b", "model": version}


def test_card_and_report_lie_beside_the_database_and_the_weights_do_not(version, uri, tmp_path):
    run_id = log_version(uri, version)
    papers = tmp_path / "mlflow-artifacts" / run_id / "artifacts"
    found = {str(path.relative_to(papers)): path.read_bytes() for path in papers.rglob("*") if path.is_file()}
    assert found == {
        "MODEL_CARD.md": b"# Model card\n",
        "report/metrics.json": b"{}",
        "report/report.html": b"<html>",
    }


def test_each_version_is_a_run_of_one_experiment(version, uri, tmp_path):
    card = json.loads((tmp_path / "models" / CARD["version"] / "model.json").read_text())
    write_atomic(join(version, "model.json"), json.dumps({**card, "parent": "/models/older"}).encode())
    ids = {log_version(uri, version) for _ in range(2)}
    _, runs = read_runs(uri)
    assert {run.info.run_id for run in runs} == ids
    assert {run.data.tags["parent"] for run in runs} == {"/models/older"}
    assert len(ids) == 2


def test_what_breaks_off_is_marked_as_failed(version, uri, tmp_path):
    (tmp_path / "models" / CARD["version"] / "MODEL_CARD.md").unlink()
    with pytest.raises(FileNotFoundError, match="MODEL_CARD"):
        log_version(uri, version)
    _, (run,) = read_runs(uri)
    assert run.info.status == "FAILED"


@contextmanager
def server_that_answers(status, answer):
    """Answer every request alike; give the URL, and the list of what was asked: path and body."""
    asked = []
    body = json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, json.loads(sent or b"{}")))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_server_is_sent_no_more_at_once_than_it_takes(version, tmp_path):
    """100 params and 1,000 metrics in a request; sqlite takes any number."""
    epochs = [{"epoch": number, **dict.fromkeys("abcdefghijk", 0.5)} for number in range(1, 101)]
    run = tmp_path / "models" / "runs" / "1a2b"
    (run / "history.json").write_text(json.dumps({"best_epoch": 2, "epochs": epochs}))
    info = {"run_id": "r1", "artifact_uri": (tmp_path / "papers").as_uri()}
    answer = {"experiment": {"experiment_id": "7"}, "run": {"info": info, "data": {}}, "run_info": info}
    with server_that_answers(200, answer) as (uri, asked):
        assert log_version(uri, version) == "r1"
    sent = [body for path, body in asked if path.endswith("runs/log-batch")]
    params, metrics = ([len(body.get(kind, [])) for body in sent] for kind in ("params", "metrics"))
    assert (sum(params), max(params) <= 100) == (125, True)
    assert (sum(metrics), max(metrics) <= 1_000) == (1_105, True)
    assert asked[-1][1]["status"] == "FINISHED"
    assert (tmp_path / "papers" / "MODEL_CARD.md").exists()


def test_a_server_that_is_down_is_asked_three_times(version, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with server_that_answers(503, {}) as (uri, asked):
        check_mlflow_uri(uri)  # it may be up by the time
        assert asked == []
        from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
        from mlflow.exceptions import MlflowException

        with pytest.raises(MlflowException, match="too many 503 error responses"):
            log_version(uri, version)
        assert len([path for path, _ in asked if "experiments/get-by-name" in path]) == 3
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 15


def test_what_the_operator_set_stays(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    check_mlflow_uri("http://127.0.0.1:9")
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 3


def test_mlflow_calls_nobody_and_is_imported_only_when_wanted(tmp_path):
    """In a process of its own: this one has MLflow, and MLflow takes a test for a reason to be silent."""
    script = f"""
import os, sys
from flows.services.mlflow_log import check_mlflow_uri
check_mlflow_uri("")
assert "mlflow" not in sys.modules
check_mlflow_uri("sqlite:///{tmp_path}/mlflow.db")
from mlflow.telemetry.utils import is_telemetry_disabled
from mlflow.telemetry import get_telemetry_client
assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
print(is_telemetry_disabled(), get_telemetry_client())
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "false"
print(is_telemetry_disabled())
"""
    plain = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=plain | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.splitlines() == ["True None", "False"], ran.stderr


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "mlruns",
            "/srv/mlruns",
            "file:///srv/mlruns",
            "databricks",
            "postgresql://host/db",
            "sqlite://x.db",
        ),
        *("sqlite://", "sqlite:///", "sqlite:///:memory:", "http://", "https:/host", "http://host:port"),
        "http://[::1",
    ],
)
def test_what_can_never_be_logged_to_is_refused(uri):
    with pytest.raises(BadInput, match=r"cannot be logged to; use sqlite:///\S+ or http\(s\)"):
        check_mlflow_uri(uri)


def test_a_password_is_refused_and_not_repeated():
    with pytest.raises(
        BadInput, match=r"--mlflow-uri of host: .* set MLFLOW_TRACKING_USERNAME and"
    ) as refused:
        check_mlflow_uri("https://me:secret@host:5000")
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("These are notes, and many of them. " * 50)
    for path, why in (("notes.txt", "file is not a database"), ("notes.txt/mlflow.db", "File exists")):
        with pytest.raises(BadInput, match=f"no database can be opened there .*{why}"):
            check_mlflow_uri(f"sqlite:///{tmp_path}/{path}")


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # Python's own way to say that there is none
    with pytest.raises(BadInput, match=r"MLflow is not installed here .*`pip install -e \.\[mlflow\]`"):
        check_mlflow_uri("http://127.0.0.1:5000")
    check_mlflow_uri("")
