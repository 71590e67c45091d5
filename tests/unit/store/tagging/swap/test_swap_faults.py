"""Disks that fail and processes that are killed leave whole files, and the batch is completed by running it again."""

import errno
import random
import shutil
import signal
import statistics
import time
from collections import Counter
from functools import partial
from itertools import cycle

import pytest

from tests.support.audio_formats import CODECS
from tests.support.disk_faults import faults
from tests.support.fork_server import ForkServer
from tests.support.tagging_scenario import TaggingScenario, request_row, tag, undo

KILLS_IN_A_ROW = 2  # the attempt that goes on is killed too
ACTS = {"tag": tag, "undo": undo}
CLEANING = ("unlink", "rmdir")  # a draft may be left where these fail
FEW, MANY = [".mp3", ".flac"], [".mp3", ".flac", ".ogg", ".m4a", ".wav", ".wv"]
SOAK = pytest.mark.soak


@pytest.fixture(scope="module")
def scenario(request):
    scenario = TaggingScenario(request.param)
    yield scenario
    shutil.rmtree(scenario.folder)


@pytest.mark.parametrize(
    ("scenario", "act", "code"),
    [(FEW, "tag", errno.ENOSPC), (FEW, "undo", errno.EIO)]
    + [
        pytest.param(MANY, act, code, marks=SOAK)
        for act in ("tag", "undo")
        for code in (errno.EIO, errno.ENOSPC)
    ],
    indirect=["scenario"],
    ids=str,
)
def test_any_call_may_fail(scenario, act, code):
    old, new, status = (
        (scenario.old, scenario.new, "written") if act == "tag" else (scenario.new, scenario.old, "restored")
    )
    at = 0
    scenario.start(scenario.old)
    scenario.tag()
    while True:
        at += 1
        scenario.start(old)
        rows = {"rows": [request_row(path) for path in scenario.files]} if act == "tag" else {}
        arguments = {"run": scenario.run, **rows}
        with faults(at, code) as met:
            try:
                done = ACTS[act](**arguments)
                assert done == {status}
            except OSError as why:
                assert why.errno == code  # noqa: PT017
        scenario.assert_whole()
        if met.failed not in CLEANING:
            scenario.assert_clean()
        if met.failed is None:
            break
        with faults():
            assert ACTS[act](**arguments) == {status}
        assert scenario.content() == new
        scenario.assert_clean()
    assert at > 20 * len(scenario.files)
    assert {"file.write", "fsync", "replace", "open", "utime", "chmod", "listxattr"} <= set(met.calls)


@pytest.fixture(scope="module")
def server():
    server = ForkServer("tests.support.tagging_scenario")
    yield server
    server.close()


@pytest.mark.parametrize(
    ("suffixes", "kills"), [(FEW, 12), pytest.param(list(CODECS), 200, marks=SOAK)], ids=["few", "many"]
)
def test_a_killed_batch_leaves_whole_files_and_is_completed_when_run_again(server, suffixes, kills):
    """Killed at random moments; and at random calls, every other one between two swaps, which take a moment."""
    scenario = TaggingScenario(suffixes, albums=2)
    draw = random.Random(5)
    counts: Counter[str] = Counter()
    seconds, calls = {"tag": [], "undo": []}, {}
    between_swaps = cycle([True, False])
    while counts["killed"] < kills:
        scenario.start(scenario.old)
        rows = {"tag": {"rows": [request_row(path) for path in scenario.files]}, "undo": {}}
        for act, new in (("tag", scenario.new), ("undo", scenario.old)):
            arguments = {"run": scenario.run, **rows[act]}
            if act not in calls:  # the first time, nobody is killed
                with faults() as counted:
                    ACTS[act](**arguments)
                calls[act] = counted.calls
                continue
            for attempt in range(KILLS_IN_A_ROW if seconds[act] else 0):
                if attempt % 2:
                    until = partial(time.sleep, draw.random() * statistics.median(seconds[act]))
                    status = server.call(act, until=until, **arguments)
                else:
                    swaps = [number for number, name in enumerate(calls[act]) if name == "replace"]
                    later_swaps = swaps[1 - len(scenario.files) :]
                    call = draw.choice(later_swaps if next(between_swaps) else range(len(calls[act])))
                    status = server.call("crash_at", number=call + 1, act=act, **arguments)
                counts["killed"] += status == -signal.SIGKILL
                scenario.assert_whole()
                counts["torn"] += scenario.content() not in (scenario.old, scenario.new)
            start = time.monotonic()
            assert server.call(act, **arguments) == 0
            seconds[act].append(time.monotonic() - start)
            assert scenario.content() == new
            scenario.assert_clean()
    shutil.rmtree(scenario.folder)
    assert counts["torn"] > kills // 8, "many of the kills fell between two files"
