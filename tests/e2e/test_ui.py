"""The Prefect UI as an operator uses it: a form is filled and submitted, its run looked at, cancelled, failed."""

import json
import os
import shutil
from pathlib import Path

import psutil
import pyarrow.compute as pc
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from pydantic import BaseModel

from flows.settings import BuildSettings, NightlySettings, TagSettings, TrainModelSettings, UndoSettings
from store.reader import open_snapshot
from store.tags.write import read_genres
from tests.support.prefect_ui import FLOWS, artifacts, ask, deployments, end_of, serving, submit
from tests.support.tagging_model import copy_demo_music, publish_small_model
from tests.support.waiting import wait_for

MUSIC = Path("tests/data/demo_music").absolute()
SCHEDULED = ("retrain-nightly", "prune-prefect")
REJECTS = {"200049": "empty", "200050": "not-audio", "200051": "truncated"}


def open_form(page, served, flow):
    page.goto(f"{served.url}/deployments/deployment/{deployments(served)[flow]['id']}/run")
    page.get_by_role("button", name="Submit").wait_for()


def field(page, label):
    """Find what a label of the form names."""
    named = f".schema-form-property:has(> .p-label__header .schema-form-property__label:text-is('{label}'))"
    return page.locator(f"{named} > .p-label__body")


def submit_form(page, served):
    """Submit the form that is filled in; give the run's id once it is completed."""
    run = _click_submit(page)
    page.goto("about:blank")  # the page of a run that works draws its graph all the time
    state = end_of(served, run)
    assert state["type"] == "COMPLETED", state["message"]
    return run


def _click_submit(page):
    """Return the id of the run; on a busy machine a click is lost, or the database is locked, at times: click again."""
    problem = ""
    for _ in range(3):
        try:
            with page.expect_response(lambda it: it.url.endswith("/create_flow_run")) as found:
                page.get_by_role("button", name="Submit").click()
        except PlaywrightTimeoutError as error:
            problem = str(error)
            continue
        if found.value.ok:
            return found.value.json()["id"]
        problem = f"status {found.value.status}: {found.value.text()}"
    pytest.fail(f"no run was created: {problem}")


def described(settings: type[BaseModel]) -> list[str]:
    """List the descriptions of all settings, nested ones too."""
    found = [str(settings.__doc__).strip()]
    for each in settings.model_fields.values():
        if each.description is not None:
            found.append(each.description)
        if isinstance(each.annotation, type) and issubclass(each.annotation, BaseModel):
            doc, *rest = described(each.annotation)
            found += rest if each.description is not None else [doc, *rest]
    return found


def test_a_deployment_a_flow_is_offered_on_loopback_alone(served):
    offered = deployments(served)
    assert set(offered) == set(FLOWS)
    (nightly,) = offered["retrain-nightly"]["schedules"]
    assert nightly["schedule"]["cron"] == "0 3 * * *"
    assert not nightly["active"]
    filled_in = offered["retrain-nightly"]["parameters"]["settings"]  # nobody fills in the form of a night
    assert NightlySettings.model_validate(filled_in).build.source == "data/music"
    assert offered["retrain-nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert not any(offered[name]["schedules"] for name in FLOWS if name not in SCHEDULED)
    assert all("spectrogram-one" in offered[name]["tags"] for name in FLOWS)

    settings = ask(served, "admin/settings")
    assert not settings["server"]["analytics_enabled"]
    assert not settings["server"]["ui"]["show_promotional_content"]
    assert not settings["server"]["ui"]["v2_enabled"]

    ours = psutil.Process(served.process.pid)
    listening = [
        connection.laddr.ip
        for process in (ours, *ours.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_a_build_submitted_from_the_form_completes_with_its_artifacts(page, served, pictures, tmp_path):
    open_form(page, served, "build-dataset")
    field(page, "Source").get_by_role("textbox").fill(str(MUSIC))
    field(page, "Store (Optional)").get_by_role("textbox").fill(f"{tmp_path}/store")
    field(page, "Tracks Per Batch (Optional)").get_by_role("spinbutton").fill("8")
    field(page, "Source").scroll_into_view_if_needed()
    page.screenshot(path=pictures / "1-form-filled.png")
    run = submit_form(page, served)
    page.goto(f"{served.url}/runs/flow-run/{run}")
    page.get_by_text("Building: 51 of 51 tracks in").wait_for()
    page.screenshot(path=pictures / "2-run-completed.png")
    page.get_by_text("Artifacts", exact=True).click()
    for shown in (
        "48 tracks have a spectrogram; all files of the source (",
        "1 empty, 1 not-audio, 1 truncated",
        "building",
    ):
        page.get_by_text(shown).first.wait_for()
    page.screenshot(path=pictures / "3-artifacts.png", full_page=True)

    found = artifacts(served, run)
    assert set(found) == {
        "building",
        "build-result",
        "rejected-tracks",
        "duplicates",
        "workers",
        "slowest-files",
    }
    assert found["building"]["data"] == 100
    assert found["building"]["description"].endswith(" of audio, 3 rejected")
    (result,) = json.loads(found["build-result"]["data"])
    assert (result["tracks"], result["rejected"], result["tried now"]) == ("48", "3", "51")
    for key, shown in (
        ("build-result", f"{tmp_path}/store"),
        ("rejected-tracks", "it begins with b'<html><head>"),
        ("slowest-files", "200001.mp3"),
    ):
        page.goto(f"{served.url}/artifacts/artifact/{found[key]['id']}")
        page.locator("td", has_text=shown).wait_for()
        page.screenshot(path=pictures / f"4-{key}.png")

    snapshot = open_snapshot(f"{tmp_path}/store")
    assert len(snapshot.track_ids) == 48
    rejected = snapshot.tracks.filter(pc.equal(snapshot.tracks["status"], "rejected"))
    assert dict(zip(rejected["track_id"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == REJECTS


@pytest.mark.parametrize(
    ("flow", "settings"),
    [
        ("build-dataset", BuildSettings),
        ("train-model", TrainModelSettings),
        ("tag-catalogue", TagSettings),
        ("undo-tagging", UndoSettings),
        ("retrain-nightly", NightlySettings),
    ],
)
def test_every_setting_is_a_field_of_the_form_with_its_description(page, served, pictures, flow, settings):
    open_form(page, served, flow)
    for text in described(settings):
        page.get_by_text(text, exact=True).first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 4000})
    page.screenshot(path=pictures / f"form-{flow}.png")


def test_a_catalogue_is_tagged_and_undone_from_the_form(page, served, pictures, tmp_path):
    publish_small_model(f"{tmp_path}/models")
    music = copy_demo_music(
        tmp_path / "music", {"one.mp3": "200033", "<i>two.mp3": "200034", "page.mp3": "200050"}
    )
    before = {path: path.read_bytes() for path in music.iterdir()}
    open_form(page, served, "tag-catalogue")
    filled_in = {"Source": music, "Models": tmp_path / "models", "Runs": tmp_path / "runs"}
    for label, text in filled_in.items():
        field(page, f"{label} (Optional)").get_by_role("textbox").fill(str(text))
    field(page, "Write (Optional)").get_by_role("switch").click()
    page.screenshot(path=pictures / "6-tagging-form.png")
    run = submit_form(page, served)
    page.goto(f"{served.url}/runs/flow-run/{run}")
    page.get_by_text("Artifacts", exact=True).click()
    page.get_by_text("tagging-summary").first.wait_for()
    found = artifacts(served, run)
    page.goto(f"{served.url}/artifacts/artifact/{found['tagging-summary']['id']}")
    for shown in ("2 of 3 files were tagged", "not-audio", "<i>two.mp3"):
        page.get_by_text(shown).first.wait_for()
    page.screenshot(path=pictures / "7-tagging-summary.png", full_page=True)
    for name in ("one.mp3", "<i>two.mp3"):
        assert read_genres(music / name)[0] in ("Electronic", "Rock")

    open_form(page, served, "undo-tagging")
    field(page, "Run").get_by_role("textbox").fill("latest")
    field(page, "Runs (Optional)").get_by_role("textbox").fill(f"{tmp_path}/runs")
    undo = submit_form(page, served)
    page.goto(f"{served.url}/artifacts/artifact/{artifacts(served, undo)['tagging-summary']['id']}")
    page.get_by_text("2 of 2 files have their old tags back").first.wait_for()
    page.screenshot(path=pictures / "8-undo-summary.png", full_page=True)
    assert {path: path.read_bytes() for path in music.iterdir()} == before


def test_a_closed_set_is_a_dropdown_and_a_switch_a_toggle(page, served):
    open_form(page, served, "build-dataset")
    field(page, "Encoding (Optional)").get_by_role("button").press("ArrowDown")
    page.get_by_role("option").first.wait_for()
    assert set(page.get_by_role("option").all_inner_texts()) == {"float32", "float16", "uint8"}
    page.keyboard.press("Escape")
    assert field(page, "Retry Rejects (Optional)").get_by_role("switch").count() == 1


def test_a_run_that_cannot_work_says_why_in_one_line(served):
    state = end_of(served, submit(served, "build-dataset", {"source": "/no/such/folder"}))
    assert state["type"] == "FAILED"
    assert state["message"].endswith(
        "/no/such/folder: no such file or folder; check the path or URL of the source"
    )
    assert "\n" not in state["message"]


def test_a_build_cancelled_in_the_ui_ends_and_keeps_what_was_finished(page, served, pictures, tmp_path):
    long = tmp_path / "long"  # longer than a click takes on any machine
    long.mkdir()
    for song in MUSIC.glob("fma_small/*/*.mp3"):
        shutil.copy(song, long)
        for number in range(20):
            os.link(long / song.name, long / f"{song.stem}-{number}.mp3")
    slow = {
        "source": str(long),
        "store": f"{tmp_path}/store",
        "tracks_per_batch": 1,
        "cluster": {"workers": 1},
    }
    run = submit(served, "build-dataset", slow)
    wait_for(lambda: artifacts(served, run).get("building", {}).get("data"))
    page.goto(f"{served.url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    page.goto("about:blank")
    assert end_of(served, run)["type"] == "CANCELLED"
    page.goto(f"{served.url}/runs/flow-run/{run}")
    page.get_by_text("Cancelled", exact=True).first.wait_for()
    page.get_by_text("Flow run was cancelled.").wait_for()
    page.screenshot(path=pictures / "5-cancelled.png")
    assert 0 < len(open_snapshot(f"{tmp_path}/store").track_ids) < 48 * 21


def test_a_server_that_is_configured_is_used_and_a_schedule_switched_on_stays_on(served, tmp_path):
    nights = deployments(served)["retrain-nightly"]
    ask(
        served,
        f"deployments/{nights['id']}/schedules/{nights['schedules'][0]['id']}",
        method="PATCH",
        wanted={"active": True},
    )
    before = deployments(served)["retrain-nightly"]["updated"]
    with serving(tmp_path, 4200, PREFECT_API_URL=served.api_url) as other:
        wait_for(lambda: deployments(served)["retrain-nightly"]["updated"] > before)
        children = psutil.Process(other.process.pid).children()
        assert not any("server" in child.cmdline() for child in children), "it starts no server of its own"
        other.process.terminate()
        assert other.process.wait(60) == 0, other.log.read_text()
    assert "Warning" not in other.log.read_text()
    (nightly,) = deployments(served)["retrain-nightly"]["schedules"]
    assert nightly["active"]
