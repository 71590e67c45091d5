"""The deployments: what `serve` imports for their forms, their file for `prefect deploy`, their schedule."""

import asyncio
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.deployments.runner import RunnerDeployment
from prefect.server.schemas.schedules import CronSchedule
from pydantic import ValidationError

from flows import deployments
from flows.deployments import deployment_specs, prefect_yaml, register_flows
from flows.services.automations import failed_runs, runs_without_heartbeat, silent_runs
from flows.settings import RegisterSettings, ScheduleSettings, ServeSettings
from tests.support.prefect_ui import FLOWS

SCRIPT = """
import sys
import flows.deployments
names = ("torch", "distributed", "dask", "sklearn", "scipy", "matplotlib", "zarr", "numba", "pyarrow")
print([name for name in names if name in sys.modules])
for spec in flows.deployments.deployment_specs(flows.deployments.ScheduleSettings()):
    print(spec.flow.name, list(spec.flow.parameters.properties))
"""


def test_the_forms_need_the_settings_only():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    imported, *forms = done.stdout.splitlines()
    assert imported == "[]"
    assert forms == [f"{name} ['settings']" for name in FLOWS]


def test_the_file_for_prefect_deploy_is_written_from_the_same_source():
    """To write it again: python -m flows.deployments > deploy/prefect.yaml"""
    written = Path("deploy/prefect.yaml").read_text()
    assert written == prefect_yaml(ScheduleSettings())
    PrefectYamlModel.model_validate(yaml.safe_load(written))


def test_runs_of_workers_keep_what_relative_paths_name(tmp_path, monkeypatch):
    """By default a worker makes a temporary folder for a run, and removes it with the store that was built there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    folders = []
    applied = lambda made, **_: folders.append(made.job_variables["working_dir"])  # noqa: E731
    monkeypatch.setattr(RunnerDeployment, "apply", applied)
    monkeypatch.setattr(deployments, "prefect_server", lambda: nullcontext("http://127.0.0.1:9/api"))
    monkeypatch.setattr(deployments, "_make_pool", lambda name: None)
    monkeypatch.setattr(deployments, "_schedules", lambda *_: None)
    monkeypatch.setattr(deployments, "apply_automations", lambda *_: None)
    register_flows(RegisterSettings())
    assert folders == [str(tmp_path)] * len(FLOWS)
    for deployment in yaml.safe_load(prefect_yaml(ScheduleSettings()))["deployments"]:
        assert deployment["work_pool"]["job_variables"]["working_dir"] == "{{ $PWD }}"


def test_every_deployment_has_a_description_and_runs_once_at_a_time():
    for deployment in yaml.safe_load(prefect_yaml(ScheduleSettings()))["deployments"]:
        assert deployment["description"].endswith("."), deployment["name"]
        assert deployment["concurrency_limit"]["limit"] == 1
        assert "spectrogram-one" in deployment["tags"]


def test_runs_of_a_pool_send_heartbeats_whatever_the_environment_of_the_worker():
    for deployment in yaml.safe_load(prefect_yaml(ScheduleSettings()))["deployments"]:
        environment = deployment["work_pool"]["job_variables"]["env"]
        assert environment == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}, deployment["name"]


def test_every_setting_of_a_form_has_a_description():
    for spec in deployment_specs(ScheduleSettings()):
        for model in spec.flow.parameters.definitions.values():
            for name, field in model.get("properties", {}).items():
                assert "description" in field or "$ref" in field or "allOf" in field, (spec.name, name)


@pytest.mark.parametrize(
    ("zone", "nights"),
    [
        # The clock goes back on 2026-10-25: that night is 25 hours long.
        ("Europe/Berlin", ["10-24 01:00", "10-25 02:00", "10-26 02:00"]),
        ("UTC", ["10-24 03:00", "10-25 03:00", "10-26 03:00"]),
    ],
)
def test_the_nightly_run_is_at_the_same_time_of_day_when_the_clock_changes(zone, nights):
    schedule = ScheduleSettings(timezone=zone)
    cron = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    dates = expand(cron, datetime(2026, 10, 23, 12, tzinfo=UTC), 3)
    assert [f"{it.astimezone(UTC):%m-%d %H:%M}" for it in dates] == nights
    assert {f"{it.astimezone(ZoneInfo(zone)):%H:%M}" for it in dates} == {"03:00"}


def test_a_time_that_a_night_does_not_have_is_run_once():
    """On 2026-03-29 the clock in Berlin goes from 02:00 to 03:00."""
    cron = CronSchedule(cron=ScheduleSettings(at="02:30").cron, timezone="Europe/Berlin")
    dates = expand(cron, datetime(2026, 3, 28, 12, tzinfo=UTC), 2)
    assert [f"{it.astimezone(UTC):%m-%d}" for it in dates] == ["03-29", "03-30"]


def expand(cron, start, count):
    """Return the next dates of a schedule, as Prefect's server computes them."""
    return asyncio.run(cron.get_dates(count, start))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused(zone):
    with pytest.raises(ValidationError, match="no such time zone"):
        ScheduleSettings(timezone=zone)


@pytest.mark.parametrize("at", ["24:00", "3:00", "03:60", "noon"])
def test_a_time_that_is_none_is_refused(at):
    with pytest.raises(ValidationError, match="at"):
        ServeSettings(nightly={"at": at})


@pytest.mark.parametrize("automation", [silent_runs(), runs_without_heartbeat()])
def test_a_run_that_died_is_set_to_crashed_unless_it_ended(automation):
    assert automation.trigger.within.total_seconds() >= 3 * 30
    assert {"prefect.flow-run.Completed", "prefect.flow-run.heartbeat"} <= automation.trigger.expect
    assert automation.actions[0].state == "CRASHED"


def test_only_runs_of_these_deployments_must_send_a_first_heartbeat():
    trigger = runs_without_heartbeat().trigger
    assert trigger.after == {"prefect.flow-run.Running"}
    assert trigger.match_related["prefect.resource.id"] == ["prefect.tag.spectrogram-one"]


def test_a_failed_run_of_these_flows_is_reported():
    automation = failed_runs(UUID(int=1))
    assert automation.trigger.expect == {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
    assert automation.trigger.match_related["prefect.resource.id"] == ["prefect.tag.spectrogram-one"]
    assert automation.actions[0].block_document_id == UUID(int=1)
