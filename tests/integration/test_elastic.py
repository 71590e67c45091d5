"""Losses in mid-run: killed and stopped processes, a killed worker, a cancelled flow; real torchrun, real Dask."""

import os
import signal
import socket

import dask
import psutil
import pytest
import torch

from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings, HostSettings
from flows.cluster.training_hosts import TrainingStopped, find_hosts, train_on_hosts
from store.errors import BadInput, ServiceUnavailable
from tests.support.dask_cluster import list_rank_processes
from tests.support.processes import free_port
from tests.support.toy_training import SETTINGS, losses_of, publish_toy, weights_of, write_toy_run
from tests.support.waiting import wait_for

LONGER = SETTINGS.model_copy(
    update={"epochs": 7, "crops_per_track": 64, "checkpoint_steps": 5, "stall_timeout_s": 5.0}
)
HOSTS = HostSettings(processes_per_host=2)


@pytest.fixture(scope="module")
def client():
    with open_cluster(ClusterSettings(workers=1)) as cluster:
        yield cluster.client


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return publish_toy(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, client, snapshot):
    return train(client, write_toy_run(tmp_path_factory.mktemp("undisturbed"), snapshot, LONGER))


def train(client, folder, *, disturb=None, hosts=HOSTS, events=None):
    """Train on the host of `client`; after the epochs that are named, or later ones, call what is to disturb it."""
    left = dict(disturb or {})

    def on_event(event):
        if events is not None:
            events.append(event)
        if event["event"] == "epoch" and left and min(left) <= event["epoch"]:
            left.pop(min(left))()

    train_on_hosts(
        client, str(folder), hosts, micro_batches=2, stall_timeout_s=LONGER.stall_timeout_s, on_event=on_event
    )
    assert not left, "some epochs were never reported"
    return folder


def signal_one_rank(number):
    mine = list_rank_processes()
    assert len(mine) == 2
    os.kill(mine[1].pid, number)


def assert_same_run(folder, undisturbed):
    """The loss curve is that of the undisturbed run, and the weights are, bit for bit."""
    for name in ("train_loss", "validation_loss"):
        assert losses_of(folder, name) == losses_of(undisturbed, name)
    resumed, whole = weights_of(folder), weights_of(undisturbed)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def assert_no_rank_is_left():
    wait_for(lambda: not list_rank_processes(), within_s=60)


def kill_agent():
    (agent,) = {rank.parent().pid for rank in list_rank_processes()}
    psutil.Process(agent).kill()
    assert_no_rank_is_left()


class Cancelled(BaseException):
    pass


def cancel():
    assert len(list_rank_processes()) == 2
    raise Cancelled


def kill_workers_of(client):
    for pid in client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)


def assert_resumed_from_checkpoints(events, epochs):
    """Training started again after each of the epochs at which something was lost, and lost little."""
    starts = [event for event in events if event["event"] == "start"][-len(epochs) :]
    for done, start in zip(epochs, starts, strict=True):
        assert start["epochs_done"] >= done
        assert start["steps_done"] % LONGER.checkpoint_steps == 0
    notices = [event["message"] for event in events if event["event"] == "notice"]
    assert notices == [
        "training host 127.0.0.1 was lost; resuming from the last checkpoint on the remaining hosts"
    ]


def test_a_lost_rank_and_a_lost_host_cost_a_checkpoint_interval_and_change_no_bit(
    tmp_path, client, snapshot, undisturbed
):
    events = []
    folder = train(
        client,
        write_toy_run(tmp_path, snapshot, LONGER),
        disturb={3: lambda: signal_one_rank(signal.SIGKILL), 5: lambda: kill_workers_of(client)},
        hosts=HOSTS.model_copy(update={"port": free_port()}),  # it must be free again in time
        events=events,
    )
    assert_resumed_from_checkpoints(events, (3, 5))
    assert_same_run(folder, undisturbed)


@pytest.mark.soak
def test_a_killed_agent_a_cancelled_flow_and_a_stopped_rank_cost_no_more(
    tmp_path, client, snapshot, undisturbed
):
    folder = write_toy_run(tmp_path, snapshot, LONGER)
    with pytest.raises(TrainingStopped, match=r"torchrun on 127\.0\.0\.1 ended with status -9"):
        train(client, folder, disturb={1: kill_agent})
    with pytest.raises(Cancelled):
        train(client, folder, disturb={1: cancel})
    assert_no_rank_is_left()
    events = []
    disturb = {1: lambda: signal_one_rank(signal.SIGSTOP), 2: lambda: kill_workers_of(client)}
    train(client, folder, disturb=disturb, events=events)
    assert_resumed_from_checkpoints(events, (1, 2))
    assert_same_run(folder, undisturbed)


def test_a_port_that_is_taken_is_refused(tmp_path, client, snapshot):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        hosts = HOSTS.model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(BadInput, match=r"127.0.0.1: port \d+ is in use; free it, or choose another"):
            train(client, write_toy_run(tmp_path, snapshot), hosts=hosts)


def test_more_processes_than_groups_are_refused_if_asked_for(tmp_path, client, snapshot):
    hosts = HOSTS.model_copy(update={"processes_per_host": 3})
    with pytest.raises(BadInput, match=r"1 hosts with 3 processes each .*, but a step has 2 micro-batches"):
        train(client, write_toy_run(tmp_path, snapshot), hosts=hosts)


def test_one_host_fewer_than_min_hosts_is_refused(tmp_path, client):
    hosts = HOSTS.model_copy(update={"min_hosts": 2, "wait_s": 0.1})
    wanted = r"1 training hosts of 2 \(--hosts.min-hosts\): of 1 Dask workers"
    with pytest.raises(ServiceUnavailable, match=wanted):
        train(client, tmp_path, hosts=hosts)


def test_what_a_rank_finds_wrong_is_reported_in_one_line(tmp_path, client, snapshot):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInput, match=r"tracks.parquet is missing|not a training run"):
        train(client, tmp_path)
    assert_no_rank_is_left()


def test_a_host_is_found_by_its_resource(client):
    (host,) = find_hosts(client)
    assert host.name == "127.0.0.1"


def test_a_host_that_is_up_is_found_whenever_the_client_asks_for_totals_of_its_own():
    with (
        dask.config.set({"distributed.client.scheduler-info-interval": "1 ms"}),  # 2 s by default
        open_cluster(ClusterSettings(workers=1)) as cluster,
    ):
        client = cluster.client
        assert all(len(find_hosts(client)) == 1 for _ in range(300))
