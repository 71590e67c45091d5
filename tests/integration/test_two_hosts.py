"""Two hosts, each a network namespace of its own: a real scheduler, workers, torchrun and gloo between them."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings, HostSettings
from flows.settings import TrainModelSettings
from flows.train_model import prepare_run, train_model
from store.reader import open_snapshot
from tests.support.dask_cluster import list_rank_processes, scheduler, workers
from tests.support.network_namespaces import two_hosts, unavailable_reason
from tests.support.toy_training import publish_toy_artists
from tests.support.waiting import wait_for
from training.fit.distributed import RankContext
from training.fit.loop import train
from training.fit.run import read_run
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

EPOCHS = 6
TRAINING = TrainSettings(
    crop_s=0.5,
    epochs=EPOCHS,
    crops_per_track=96,
    batch_size=16,
    micro_batch_size=8,
    validation_crops=3,
    checkpoint_steps=4,
    stall_timeout_s=20,
    model=ModelSettings(name="shallow", width=8),
)
CUT_AFTER_CHECKPOINT = 15  # in the second epoch


@pytest.fixture(scope="module")
def network(need):
    why_not = unavailable_reason()
    if "not allowed" in why_not:
        pytest.skip(why_not)  # in CI too: what a machine forbids cannot be installed
    need(not why_not, why_not)
    with two_hosts() as network:
        yield network


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return publish_toy_artists(str(tmp_path_factory.mktemp("two-hosts")))


def settings(store, models, scheduler_url, **hosts):
    return TrainModelSettings(
        store=store,
        models=str(models),
        training=TRAINING,
        hosts=HostSettings(processes_per_host=1, **hosts),
        cluster=ClusterSettings(
            kind="scheduler", scheduler=scheduler_url, allow_plaintext=True, connect_timeout_s=200
        ),
    )


def history_of(models):
    (folder,) = (Path(models) / "runs").iterdir()
    return json.loads((folder / "history.json").read_text())["epochs"]


def cut_in_mid_run(network, models, cut):
    """Wait for a checkpoint of the second epoch, then cut the first host, where the ranks meet."""
    while not cut.wait(0.05):
        if any(_number(path) >= CUT_AFTER_CHECKPOINT for path in Path(models).glob("runs/*/checkpoint-?.pt")):
            network.cut(network.hosts[0])
            cut.set()


def _number(checkpoint):
    with checkpoint.open("rb") as file:
        return json.loads(file.readline())["number"]


def undisturbed(store, models):
    """Train the same run alone, in this process."""
    folder, _, _ = prepare_run(open_snapshot(store), settings(store, models, "tcp://nobody"))
    run, tracks = read_run(folder)
    torch.set_num_threads(1)
    train(folder, run, tracks, open_snapshot(run.snapshot_url), RankContext(), lambda event: None)
    return history_of(models)


@pytest.mark.soak
def test_a_run_on_two_hosts_goes_on_when_the_link_of_one_is_cut(network, store, tmp_path):
    cut = threading.Event()
    with scheduler(network.here) as url, workers(url, network.hosts, tmp_path):
        cutter = threading.Thread(target=cut_in_mid_run, args=(network, tmp_path / "cut", cut))
        cutter.start()
        with open_cluster(
            ClusterSettings(kind="scheduler", scheduler=url, allow_plaintext=True, connect_timeout_s=200)
        ) as cluster:
            cluster.client.wait_for_workers(2)
        summary = train_model(settings(store, tmp_path / "cut", url, wait_s=90))
        was_cut = cut.is_set()
        cut.set()
        cutter.join()
    assert was_cut, "the run was over before the link was cut"
    whole, disturbed = undisturbed(store, tmp_path / "whole"), history_of(tmp_path / "cut")
    assert [row["epoch"] for row in disturbed] == list(range(1, EPOCHS + 1))
    for name, tolerance in (("train_loss", 2e-3), ("validation_loss", 2e-2)):
        np.testing.assert_allclose(
            [row[name] for row in disturbed], [row[name] for row in whole], rtol=tolerance
        )
    assert summary.test_tracks == 4
    wait_for(lambda: not list_rank_processes())  # those on the host that was cut off end by themselves
