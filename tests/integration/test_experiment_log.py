"""A model version whose MLflow server is gone."""

import json
import socket

import pytest

from flows.services.mlflow_log import MLFLOW_ENVIRONMENT, log_to_mlflow
from store.fs.files import join, write_atomic


@pytest.fixture
def dead_server(monkeypatch):
    """Hold a port on which nobody listens; and let the environment be as it was afterwards."""
    for name, value in {**MLFLOW_ENVIRONMENT, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.timeout(120)  # MLflow by itself would try for longer
def test_a_server_that_is_gone_is_warned_of_and_costs_nothing_else(dead_server, tmp_path, caplog):
    version, run = join(str(tmp_path), "v"), join(str(tmp_path), "run")
    write_atomic(join(run, "history.json"), json.dumps({"epochs": []}).encode())
    card = {"version": "v", "run": run, "trained": "2026-01-02T03:04:05+00:00"}
    write_atomic(join(version, "model.json"), json.dumps(card).encode())
    log_to_mlflow(dead_server, version)
    (warning,) = [each.getMessage() for each in caplog.records if each.name == "spectrogram_one"]
    assert warning.startswith(f"{version}: published, but not logged to MLflow at {dead_server}; ")
    assert "experiments/get-by-name" in warning
    caplog.clear()
    log_to_mlflow("", version)
    assert not caplog.records
