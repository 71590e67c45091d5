"""JSON logs and a port for Prometheus, switched on by the environment, which Dask and Prefect pass on to processes."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

from flows.reporting.metrics import serving_metrics
from flows.reporting.stage import run_logger
from flows.reporting.structured_log import log_fields, log_json
from store.errors import BadInput

LOG_VARIABLE = "SPECTROGRAM_ONE_LOG"  # "json"
METRICS_VARIABLE = "SPECTROGRAM_ONE_METRICS"  # "9200" or "10.0.0.5:9200"


@contextmanager
def observed(flow: str) -> Iterator[None]:
    """Log and measure what runs within the block, if the environment asks for it."""
    with ExitStack() as opened:
        if os.environ.get(LOG_VARIABLE) == "json":
            log_json()
            opened.enter_context(log_fields(flow=flow, run=uuid4().hex))
        address = os.environ.get(METRICS_VARIABLE)
        if address:
            host, port = parse_address(address)
            try:
                opened.enter_context(serving_metrics(host, port))
            except OSError as why:  # another flow runs: its metrics are not worth this one's end
                run_logger().warning("%s: no metrics are served (%s)", address, why.strerror)
        yield


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of "PORT" or "HOST:PORT"; the host is loopback by default. Raises: BadInput."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise BadInput(f"{METRICS_VARIABLE}={text}: no port to serve metrics at; use PORT or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
