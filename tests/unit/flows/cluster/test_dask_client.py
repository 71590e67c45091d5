"""What a command reports when the connection to its scheduler breaks."""

import asyncio
import logging

import pytest
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from flows.cluster.dask_client import naming_lost_scheduler
from flows.cluster.settings import ClusterSettings
from store.errors import ServiceUnavailable

SETTINGS = ClusterSettings(kind="scheduler", scheduler="tcp://127.0.0.1:8786")


@pytest.mark.parametrize(
    "error",
    [FutureCancelledError("task", "scheduler-connection-lost", "Check it."), CommClosedError("in <TCP>")],
)
def test_a_lost_scheduler_is_one_line_with_what_to_do(error):
    wanted = (
        r"tcp://127.0.0.1:8786: the connection to the Dask scheduler was lost .*; when it is up, run the same"
    )
    with pytest.raises(ServiceUnavailable, match=wanted), naming_lost_scheduler(SETTINGS):
        raise error


@pytest.mark.parametrize(
    "error", [CommClosedError("in <TCP>"), asyncio.CancelledError(), ValueError("other")]
)
def test_what_dask_logs_of_a_lost_scheduler_has_no_traceback(error, caplog):
    with naming_lost_scheduler(SETTINGS):
        for name in ("distributed.client", "distributed.utils"):
            try:
                raise error
            except type(error):
                logging.getLogger(name).exception("lost")
    assert len(caplog.records) == (2 if isinstance(error, ValueError) else 0)
