"""Flows as Prefect records them: stages, what they show, the guards of a scheduled night; how `serve` ends."""

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import prefect
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings
from prefect.states import Running, Scheduled

from flows.prefect_flows import retrain_nightly
from flows.retrain_nightly import show_comparison
from flows.services.exclusive import exclusive, limit_name
from flows.services.retention import prune_database
from flows.settings import BuildSettings, NightlySettings, PruneSettings, TrainModelSettings
from store.errors import BadInput
from tests.support.prefect_ui import COMMAND, artifacts, ask, serving, started_runs
from tests.support.processes import free_port, is_listening
from tests.support.tagging_model import copy_demo_music
from training.selection.comparison import Comparison, Gain, GenreGain


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve in the background of a shell, where SIGINT is ignored; SIGTERM ends `serve` and all it started."""
    port = free_port()
    with serving(tmp_path_factory.mktemp("served"), port, in_background=True) as served:
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        (ignored,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")]
        assert int(ignored, 16) >> (signal.SIGINT - 1) & 1, "SIGINT is ignored"
        yield served
    assert served.process.returncode == 0, served.log.read_text()
    assert not is_listening(port), "the Prefect server outlived `serve`"


@pytest.fixture
def recorded(served):
    """Have flows of this process recorded by the server."""
    with temporary_settings({PREFECT_API_URL: served.api_url}):
        yield
        for worker in (APILogWorker, EventsWorker):  # what they have not sent yet
            worker.drain_all(timeout=60)


def settings_of(folder, **changes):
    """Return the settings of a night that can begin, and finds no audio file."""
    (folder / "music").mkdir(exist_ok=True)
    build = BuildSettings(source=f"{folder}/music", store=f"{folder}/store")
    train = TrainModelSettings(store=f"{folder}/store", models=f"{folder}/models")
    return NightlySettings(build=build, train=train, start="scratch", **changes)


def artifacts_of(run_id):
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return {each.key: json.loads(each.data) for each in found}


def test_a_command_is_recorded_by_the_server_that_is_configured(served, tmp_path):
    music = copy_demo_music(tmp_path / "music", {f"{song}.mp3": song for song in ("200001", "200002")})
    before = started_runs(served)
    done = subprocess.run(
        [COMMAND, "build", music, f"--store={tmp_path}/store"],
        env={**os.environ, "PREFECT_API_URL": served.api_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = [each for name, each in started_runs(served).items() if name not in before]
    assert run["state"]["type"] == "COMPLETED"
    tasks = ask(served, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {each["state"]["type"] for each in tasks} == {"COMPLETED"}
    assert {each["name"].rpartition("-")[0] for each in tasks} >= {"list_tracks", "build_shards"}
    assert {"building", "build-result"} <= set(artifacts(served, run["id"]))


def test_a_comparison_with_the_champion_is_on_the_page_of_the_run(recorded):
    gain = Gain(0.5, 0.6, 0.1, None, None, None)
    comparison = Comparison(12, 4, 0.0, gain, gain, gain, (GenreGain("Rock", 4, 0.5, 0.6, 0.1, None, None),))

    @flow(name="compare")
    def compare():
        show_comparison(comparison, "old", "new")
        return flow_run.id

    rows = artifacts_of(compare())["nightly-comparison"]
    assert [row["score"] for row in rows] == ["macro F1", "accuracy", "log-loss", "F1 of Rock (4)"]
    assert (rows[0]["old"], rows[0]["new"], rows[0]["gain"]) == ("0.500", "0.600", "+0.100")


def test_a_store_is_held_by_one_run_and_old_runs_are_removed_with_their_logs(served, recorded, tmp_path):
    """In the database of the server, while it is used: one run ended long ago, another just now."""

    def slots():
        name = limit_name("store", str(tmp_path))
        (limit,) = [it for it in ask(served, "v2/concurrency_limits/filter", {}) if it["name"] == name]
        return limit["active_slots"]

    @flow(name="hold")
    def hold():
        with exclusive("store", str(tmp_path)):
            held = slots()
        return str(flow_run.id), held, slots()

    old, new = hold(), hold()
    assert (old[1:], new[1:]) == ((1, 0), (1, 0))
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=60)
    database = f"{served.log.parent}/spectrogram-one-{prefect.__version__}.db"
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        aged = "UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE id = ?"
        assert opened.execute(aged, [old[0]]).rowcount == 1
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}"}):
        summary = prune_database(PruneSettings(keep_days=30))
    assert summary.removed["runs"] == 1
    assert {old[0], new[0]} & {it["id"] for it in ask(served, "flow_runs/filter", {})} == {new[0]}
    logged = {it["flow_run_id"] for it in ask(served, "logs/filter", {"sort": "TIMESTAMP_DESC"})}
    assert {old[0], new[0]} & logged == {new[0]}


def test_a_night_that_begins_too_late_skips_itself(recorded, tmp_path):
    parameters = {"settings": settings_of(tmp_path, max_delay_minutes=30.0)}
    due = datetime.now(UTC) - timedelta(minutes=45)
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(
            retrain_nightly, parameters=parameters, state=Scheduled(scheduled_time=due)
        )
    late = run_flow(retrain_nightly, flow_run=run, parameters=parameters)
    assert late.outcome == "skipped"
    assert late.reason.startswith(
        f"too late: it was scheduled for {due:%Y-%m-%d %H:%M} UTC, 45 minutes ago; at most 30"
    )
    (row,) = artifacts_of(run.id)["nightly-result"]
    assert (row["outcome"], row["reason"]) == ("skipped", late.reason)


@pytest.fixture
def another_at_work(recorded, tmp_path):
    """Have the server believe that a run of the flow began before ours."""
    with get_client(sync_client=True) as client:
        other = client.create_flow_run(retrain_nightly, parameters={"settings": settings_of(tmp_path)})
        client.set_flow_run_state(other.id, Running(), force=True)
        yield other
        client.delete_flow_run(other.id)


def test_a_night_does_not_begin_while_another_is_at_work(tmp_path, another_at_work):
    skipped = retrain_nightly(settings_of(tmp_path))
    assert skipped.outcome == "skipped"
    assert skipped.reason.startswith(f"run {another_at_work.name} is active since ")
    assert "after 24 hours it is considered dead" in skipped.reason


def test_a_run_that_works_for_ever_is_taken_for_dead(tmp_path, another_at_work, caplog):
    with pytest.raises(BadInput, match="music: 0 files, none of them audio"):  # so it went on to the build
        retrain_nightly(settings_of(tmp_path, stale_after_hours=1e-6))
    assert f"run {another_at_work.name} is Running since" in caplog.text
    assert "considered dead" in caplog.text
