"""JSON logs: one object a line, with the ids of run, batch and track."""

import io
import json
import logging

import pytest

from flows.reporting.stage import run_logger
from flows.reporting.structured_log import LOGGERS, JsonFormatter, log_event, log_fields, log_json


@pytest.fixture
def lines(monkeypatch):
    """Log JSON into memory; return a function that reads the lines."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    before = {
        name: (list(it.handlers), it.level, it.propagate)
        for name in LOGGERS
        for it in [logging.getLogger(name)]
    }
    log_json()
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for name, (handlers, level, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_line_has_the_ids_that_are_known(lines):
    with log_fields(run="r1", flow="build_dataset"):
        with log_fields(batch="b7"):
            log_event("track rejected", track="000123", reason="empty")
        run_logger().warning("a disk is slow\nand old")
    first, second = lines()
    assert first.items() >= {"run": "r1", "batch": "b7", "track": "000123", "reason": "empty"}.items()
    assert first["level"] == "info"
    assert second["message"] == "a disk is slow\nand old"
    assert "batch" not in second
    assert second["time"].endswith("+00:00")


def test_an_exception_is_part_of_its_line(lines):
    try:
        raise ValueError("bad")
    except ValueError:
        run_logger().exception("failed")
    (line,) = lines()
    assert "ValueError: bad" in line["exception"]


def test_ids_of_a_prefect_run_are_named_as_ours():
    record = logging.LogRecord("prefect.task_runs", logging.INFO, "", 0, "hello %s", ("you",), None)
    record.flow_run_id, record.task_run_name = "f1", "build_tracks"
    line = json.loads(JsonFormatter().format(record))
    assert line.items() >= {"run": "f1", "stage": "build_tracks", "message": "hello you"}.items()


def test_events_are_for_json_only(capsys):
    log_event("track rejected", track="1")
    assert capsys.readouterr() == ("", "")
