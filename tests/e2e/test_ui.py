"""The Prefect UI as an operator uses it: a form is filled and submitted, its run looked at, cancelled, failed."""

from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest
from pydantic import BaseModel

from flows.build_dataset import BuildSettings
from flows.tag_catalogue import TagSettings
from flows.train_model import TrainModelSettings
from store.reader import open_snapshot
from tests.e2e.serving import (
    artifacts,
    ask,
    deployments,
    end_of,
    end_serving,
    free_port,
    start_serving,
    submit,
    wait_for,
)

MUSIC = Path("tests/data/demo_music").absolute()
REJECTS = {"200049": "empty", "200050": "not-audio", "200051": "truncated"}


def open_form(page, served, flow):
    page.goto(f"{served.url}/deployments/deployment/{deployments(served)[flow]['id']}/run")
    page.get_by_role("button", name="Submit").wait_for()


def field(page, label):
    """Find a text field by its label."""
    named = f".schema-form-property:has(> .p-label__header .schema-form-property__label:text-is('{label}'))"
    return page.locator(f"{named} > .p-label__body textarea")


def test_a_build_submitted_from_the_form_completes_with_its_artifacts(page, served, pictures, tmp_path):
    open_form(page, served, "build-dataset")
    field(page, "Source").fill(str(MUSIC))
    field(page, "Store (Optional)").fill(f"{tmp_path}/store")
    page.screenshot(path=pictures / "1-form-filled.png")
    page.get_by_role("button", name="Submit").click()
    run = wait_for(lambda: ask(served, "flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"}))[0]["id"]
    state = end_of(served, run)
    assert state["type"] == "COMPLETED", state["message"]

    page.goto(f"{served.url}/runs/flow-run/{run}")
    page.get_by_text("Completed").first.wait_for()
    page.screenshot(path=pictures / "2-run-completed.png")
    page.get_by_text("Artifacts", exact=True).click()
    page.wait_for_timeout(2000)
    page.screenshot(path=pictures / "3-artifacts.png", full_page=True)
    found = artifacts(served, run)
    for key in found:
        page.goto(f"{served.url}/artifacts/artifact/{found[key]['id']}")
        page.wait_for_timeout(2000)
        page.screenshot(path=pictures / f"4-{key}.png")
    snapshot = open_snapshot(f"{tmp_path}/store")
    assert len(snapshot.track_ids) == 48
    rejected = snapshot.tracks.filter(pc.equal(snapshot.tracks["status"], "rejected"))
    assert dict(zip(rejected["track_id"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == REJECTS
