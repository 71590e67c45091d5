"""Log lines as JSON objects, one a line, with the ids of run, stage, batch and track."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from flows.reporting.stage import run_logger

LOGGERS = ("spectrogram_one", "prefect", "prefect.flow_runs", "prefect.task_runs")
RUN_FIELDS = {
    "flow_run_id": "run",
    "flow_run_name": "run_name",
    "flow_name": "flow",
    "task_run_name": "stage",
}
fields_now: ContextVar[dict[str, Any]] = ContextVar("fields_now", default={})  # noqa: B039 (never changed in place)


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, and the ids that are known where it was logged."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_now.get(),
            **{ours: str(it) for theirs, ours in RUN_FIELDS.items() if (it := getattr(record, theirs, None))},
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


@contextmanager
def log_fields(**fields: Any) -> Iterator[None]:
    """Add fields to every line that is logged within the block, such as the id of a run or a batch."""
    token = fields_now.set({**fields_now.get(), **fields})
    try:
        yield
    finally:
        fields_now.reset(token)


def log_event(message: str, **fields: Any) -> None:
    """Log what is of use to programs only: a line with fields, in JSON logs alone."""
    if is_json():
        run_logger().info(message, extra={"fields": fields})


def is_json() -> bool:
    """Return whether this process logs JSON."""
    return any(isinstance(it.formatter, JsonFormatter) for it in logging.getLogger(LOGGERS[0]).handlers)


def log_json() -> None:
    """Have this process write its log to standard error as JSON: ours, and Prefect's in place of its console's."""
    if is_json():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for other in [it for it in logger.handlers if type(it).__name__ == "PrefectConsoleHandler"]:
            logger.removeHandler(other)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
