"""Stages without Prefect; inside a flow run they are tested in tests/integration/test_recording.py."""

import logging
import sys

import pytest

from flows.reporting.artifacts import progress_artifact, show_image, show_table
from flows.reporting.stage import in_flow_run, run_logger, stage


@stage
def add(one: int, *, other: int = 1) -> int:
    """Add two numbers."""
    return one + other


def test_a_stage_is_a_plain_call_outside_of_a_flow_run():
    assert not in_flow_run()
    assert add(1, other=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add two numbers.")


def test_outside_of_a_flow_run_warnings_reach_the_log_and_artifacts_nobody(caplog):
    with caplog.at_level(logging.WARNING):
        run_logger().warning("slow")
    assert caplog.messages == ["slow"]
    show_table("key", [{"a": 1}], "nothing happens")
    show_image("key", lambda: pytest.fail("nothing is read"), "nothing happens")
    progress_artifact("key", "nothing happens")(50.0, "half")
    assert "prefect" not in sys.modules or not in_flow_run()
