"""Stages without Prefect; inside a flow run they are tested in tests/integration/test_recording.py."""

import logging
import sys

import pytest

from flows.reporting.artifacts import MAX_IMAGE_BYTES, progress_artifact, show_image, show_table
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


def test_a_figure_that_is_too_large_or_was_removed_is_left_out(monkeypatch, tmp_path):
    shown = {}
    monkeypatch.setattr("flows.reporting.artifacts.in_flow_run", lambda: True)
    monkeypatch.setattr(
        "prefect.artifacts.create_image_artifact", lambda url, key, description: shown.update({key: url})
    )
    show_image("small", lambda: b"png", "")
    show_image("large", lambda: bytes(MAX_IMAGE_BYTES + 1), "")
    show_image("removed", (tmp_path / "removed.png").read_bytes, "")
    assert shown == {"small": "data:image/png;base64,cG5n"}
