import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from preprocessing.prefetch import prefetch

WAIT_S = 60  # a failure then, not a wait: what is waited for takes milliseconds


def test_results_come_in_the_order_of_the_jobs_and_errors_in_their_place():
    assert list(prefetch(lambda number: number * 2, range(5))) == [0, 2, 4, 6, 8]
    assert list(prefetch(str, [])) == []
    results = prefetch(lambda number: 1 // number, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError, match="modulo by zero"):
        next(results)


@pytest.mark.parametrize("depth", [1, 3])
def test_so_many_jobs_and_no_more_are_under_way_while_the_caller_has_a_result(depth):
    started = [threading.Event() for _ in range(10)]

    def work(number):
        started[number].set()
        return number

    results = prefetch(work, range(10), depth=depth)
    for number in results:
        for later in started[number + 1 : number + 1 + depth]:
            assert later.wait(WAIT_S)
        assert not any(event.is_set() for event in started[number + 1 + depth :])


def test_jobs_run_side_by_side_on_the_threads_of_an_executor():
    both_there = threading.Barrier(2, timeout=WAIT_S)
    with ThreadPoolExecutor(2) as threads:
        assert (
            list(prefetch(lambda _: both_there.wait() >= 0, range(4), depth=2, executor=threads))
            == [True] * 4
        )
        assert threads.submit(str, 1).result() == "1", "the executor stays open"


def test_results_that_nobody_takes_are_released():
    second_started, released = threading.Event(), []

    def work(number):
        if number == 1:
            second_started.set()
        return 1 // (2 - number)

    results = prefetch(work, range(3), depth=2, release=released.append)
    assert next(results) == 0
    assert second_started.wait(WAIT_S)
    results.close()
    assert released == [1]
