"""A training that is cancelled in the Prefect UI, on a Dask cluster that stays up."""

from tests.support.dask_cluster import Host, list_rank_processes, scheduler, worker
from tests.support.prefect_ui import artifacts, end_of, submit
from tests.support.toy_training import publish_toy_artists
from tests.support.waiting import wait_for

TRAINING = {"epochs": 10_000, "crop_s": 0.5, "model": {"name": "shallow", "width": 8}}


def test_cancelled_in_the_ui_no_rank_is_left_and_the_next_run_starts(page, served, pictures, tmp_path):
    with scheduler() as url, worker(url, Host("127.0.0.1"), tmp_path):
        cluster = {"kind": "scheduler", "scheduler": url, "connect_timeout_s": 200}
        settings = {
            "store": publish_toy_artists(f"{tmp_path}/store"),
            "models": f"{tmp_path}/models",
            "cluster": cluster,
            "hosts": {"processes_per_host": 1},
        }
        run = submit(served, "train-model", {**settings, "training": TRAINING})
        wait_for(lambda: artifacts(served, run).get("training", {}).get("data"))
        assert len(list_rank_processes()) == 1
        page.goto(f"{served.url}/runs/flow-run/{run}")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        page.goto("about:blank")  # the page of a run that works draws its graph all the time
        wait_for(lambda: not list_rank_processes())
        assert end_of(served, run)["type"] == "CANCELLED"
        page.goto(f"{served.url}/runs/flow-run/{run}")
        page.get_by_text("Flow run was cancelled.").wait_for()
        page.screenshot(path=pictures / "6-training-cancelled.png")
        page.goto("about:blank")

        short = {**TRAINING, "epochs": 1}
        run = submit(served, "train-model", {**settings, "training": short})
        state = end_of(served, run)
        assert state["type"] == "COMPLETED", state["message"]
        page.goto(f"{served.url}/artifacts/artifact/{artifacts(served, run)['training-figure']['id']}")
        figure = page.locator("img[src^='data:image/png']").first
        figure.wait_for()
        assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        page.screenshot(path=pictures / "9-training-figure.png")
