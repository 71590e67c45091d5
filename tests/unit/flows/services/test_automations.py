"""What the Prefect server does by itself, on a real one."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.services import automations
from flows.services.automations import HEARTBEAT, TAG, apply_automations
from tests.support.prefect_ui import Served, ask, serving
from tests.support.processes import free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.soak


def begin_run(served: Served, *tags: str) -> str:
    """Make a run that is Running and that no process executes; return its id."""
    flow = ask(served, "flows/", {"name": "killed"})["id"]
    run = ask(served, "flow_runs/", {"flow_id": flow, "tags": list(tags), "state": {"type": "PENDING"}})["id"]
    ask(served, f"flow_runs/{run}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    return run


def state_of(served: Served, run: str) -> str:
    return ask(served, f"flow_runs/{run}")["state_type"]


def test_a_run_that_was_killed_before_its_first_heartbeat_becomes_crashed(tmp_path, monkeypatch):
    monkeypatch.setattr(automations, "SILENCE_S", 15.0)
    with serving(tmp_path, free_port()) as served, temporary_settings({PREFECT_API_URL: served.api_url}):
        apply_automations()
        silent, foreign = begin_run(served, TAG), begin_run(served)
        wait_for(lambda: state_of(served, silent) == "CRASHED")
        message = ask(served, f"flow_runs/{silent}")["state"]["message"]
        assert message == "no heartbeat for 15 s: the process or its machine is gone; run it again to resume"
        assert state_of(served, foreign) == "RUNNING", "it may be of a worker without heartbeats"
        assert not ask(served, "events/filter", {"filter": {"event": {"name": [HEARTBEAT]}}})["events"]
