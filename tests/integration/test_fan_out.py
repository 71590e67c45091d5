"""Killed workers: the batches in flight are run again, and a file that kills costs that file only."""

import time

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cluster.client import open_cluster
from flows.cluster.dask_batches import MAX_SUSPECTS, WorkQueue
from flows.cluster.fan_out import fan_out, in_batches
from flows.cluster.settings import ClusterSettings
from store.errors import ServiceUnavailable
from tests.support.dying_batches import (
    die_always,
    die_in_company,
    die_often,
    die_once,
    die_until,
    fail,
    size_of,
)

POISON = -1


@pytest.fixture(scope="module")
def cluster():
    # Killed workers start again in a moment if they are forked from a process that has the imports.
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        open_cluster(ClusterSettings(workers=2)) as cluster,
    ):
        cluster.client.wait_for_workers(2)
        yield cluster


def test_batches_survive_the_death_of_their_workers(cluster, tmp_path):
    results = fan_out(cluster, die_once, in_batches(range(12), 1), folder=str(tmp_path))
    assert sorted(results) == [([number], [number * number]) for number in range(12)]
    assert len(list(tmp_path.iterdir())) == 3, "three workers died"


def test_a_number_that_kills_its_workers_costs_that_number_only(cluster):
    batches = in_batches(range(16), 4)
    results = list(
        fan_out(cluster, die_always, batches, on_poison=lambda number: [POISON - number], poison=[5])
    )
    assert sorted(number for batch, _ in results for number in batch) == list(range(16))
    assert [(batch, result) for batch, result in results if batch != result] == [([5], [POISON - 5])]


@pytest.mark.soak  # it takes as long as Dask would wait before it gives a worker up
def test_workers_come_back_however_often_they_die(cluster):
    batches = in_batches(range(24), 1)
    results = fan_out(cluster, die_until, batches, on_poison=lambda _: [POISON], end=time.time() + 18)
    assert sorted(number for batch, _ in results for number in batch) == list(range(24))
    cluster.client.wait_for_workers(2, timeout=60)


def test_a_number_that_kills_its_worker_is_named(cluster):
    wanted = r"the worker died each time it ran die_always-\S+ alone \(4 times\); .* The item: 2$"
    with pytest.raises(ServiceUnavailable, match=wanted):
        list(fan_out(cluster, die_always, [[1, 2]], poison=[2]))


def test_alone_a_number_has_lives_enough_for_deaths_of_another_cause(cluster, tmp_path):
    results = fan_out(cluster, die_often, [[3]], on_poison=lambda _: [POISON], folder=str(tmp_path), times=5)
    assert list(results) == [([3], [3])]
    assert size_of(tmp_path / "3") == 5, "two in company, three alone"


def test_nothing_else_runs_while_a_suspect_is_tried(cluster, tmp_path):
    results = fan_out(
        cluster,
        die_in_company,
        [["loud"], ["shy"]],
        on_poison=lambda _: ["poison"],
        folder=str(tmp_path),
    )
    assert sorted(results) == [(["loud"], ["loud"]), (["shy"], ["shy"])]
    assert size_of(tmp_path / "runs") == 3


@given(
    sizes=st.lists(st.integers(1, 9), max_size=20),
    poison=st.sets(st.integers(0, 60), max_size=12),
    in_flight=st.integers(1, 6),
)
def test_halving_ends_with_all_innocent_done_and_all_poison_suspected(sizes, poison, in_flight):
    numbers = iter(range(sum(sizes)))
    fresh = [[next(numbers) for _ in range(size)] for size in sizes]
    work, done, found, running = WorkQueue(iter(fresh)), [], [], []
    while True:
        while len(running) < in_flight and (batch := work.next_batch()) is not None:
            running.append(batch)
        if running:
            batch = running.pop(0)
            if poison & set(batch):
                work.requeue_failed(batch)
            else:
                done += batch
        elif work.suspects:
            found += work.suspects
            work.suspects.clear()
        else:
            break
    assert sorted(done + found) == list(range(sum(sizes)))
    assert set(found) == poison & set(range(sum(sizes)))


def test_where_everything_kills_no_more_is_drawn_than_is_soon_tried():
    work = WorkQueue(iter([number] for number in range(100)))
    drawn = 0
    while (batch := work.next_batch()) is not None:
        drawn += 1
        work.requeue_failed(batch)
    assert drawn == MAX_SUSPECTS


def test_what_a_batch_raises_is_raised_once_the_retries_are_used_up(cluster):
    with pytest.raises(OSError, match="Input/output error"):
        list(fan_out(cluster, fail, [[1]]))


def test_batches_are_drawn_as_others_finish(cluster):
    drawn = []

    def batches():
        for number in range(100):
            drawn.append(number)
            yield [number]

    results = fan_out(cluster, sum, batches())
    next(results)
    assert len(drawn) < 15
    results.close()
