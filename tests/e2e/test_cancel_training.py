"""A training that is cancelled in the Prefect UI, on a Dask cluster that stays up."""

import time

from flows.cluster.training_agent import GRACE_S
from tests.support.dask_cluster import Host, list_rank_processes, scheduler, worker
from tests.support.prefect_ui import artifacts, end_of, submit, wait_for
from tests.support.toy_training import publish_toy_artists

WITHIN_S = 20.0  # from the click to the last process's end
TRAINING = {"epochs": 10_000, "crop_s": 0.5, "model": {"name": "shallow", "width": 8}}


def test_cancelled_in_the_ui_no_rank_is_left_and_the_next_run_starts(page, served, pictures, tmp_path):
    with scheduler() as url, worker(url, Host("127.0.0.1"), tmp_path):
        cluster = {"kind": "scheduler", "scheduler": url}
        wish = {
            "store": publish_toy_artists(f"{tmp_path}/store"),
            "models": f"{tmp_path}/models",
            "cluster": cluster,
        }
        run = submit(served, "train-model", {**wish, "training": TRAINING})
        wait_for(lambda: artifacts(served, run).get("training", {}).get("data"))
        assert len(list_rank_processes()) == 2
        page.goto(f"{served.url}/runs/flow-run/{run}")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        clicked = time.monotonic()
        wait_for(lambda: not list_rank_processes(), within_s=WITHIN_S + GRACE_S)
        took_s = time.monotonic() - clicked
        assert end_of(served, run)["type"] == "CANCELLED"
        page.reload()
        page.get_by_text("Flow run was cancelled.").wait_for()
        page.screenshot(path=pictures / "6-training-cancelled.png")
        print(f"from the click to the end of the last rank: {took_s:.1f} s")

        short = {**TRAINING, "epochs": 1}
        state = end_of(served, submit(served, "train-model", {**wish, "training": short}))
        assert state["type"] == "COMPLETED", state["message"]
