"""A flow whose MLflow server is gone, with a real Prefect server."""

import json
import logging
import socket

import pytest
from prefect import flow

from flows.services.mlflow_log import MLFLOW_ENVIRONMENT, log_to_mlflow
from store.fs.files import join, write_atomic

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def dead_server(monkeypatch):
    """Hold a port on which nobody listens; and let the environment be as it was afterwards."""
    for name, value in {**MLFLOW_ENVIRONMENT, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def warnings_told():
    """Collect what flow runs warn of."""
    told = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("prefect.flow_runs")
    logger.addHandler(handler)
    yield told
    logger.removeHandler(handler)


@pytest.mark.timeout(120)  # MLflow by itself would try for longer
def test_a_server_that_is_gone_is_told_of_and_costs_nothing_else(
    dead_server, warnings_told, tmp_path, capsys
):
    version, run = join(str(tmp_path), "v"), join(str(tmp_path), "run")
    write_atomic(join(run, "history.json"), json.dumps({"epochs": []}).encode())
    card = {"version": "v", "run": run, "trained": "2026-01-02T03:04:05+00:00"}
    write_atomic(join(version, "model.json"), json.dumps(card).encode())

    @flow(name="finish-a-training")
    def finish(uri):
        log_to_mlflow(uri, version)
        return "the version"

    assert finish(dead_server) == "the version"
    (warning,) = warnings_told
    assert warning.startswith(f"{version}: published, but not logged to MLflow at {dead_server}; ")
    assert "experiments/get-by-name" in warning
    assert f"warning: {warning}" in capsys.readouterr().err
    assert finish("") == "the version"
    assert len(warnings_told) == 1
