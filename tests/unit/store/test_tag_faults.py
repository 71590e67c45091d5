"""Disks that fail and processes that are killed leave whole files, and the batch is completed by running it again."""

import errno
import random
import shutil
import signal
import statistics
import time
from functools import partial

import pytest

from tests.support.audio_formats import CODECS
from tests.support.disk_faults import faults
from tests.support.fork_server import ForkServer
from tests.support.tagging_scenario import TaggingScenario, request_row, tag, undo

KILLS_IN_A_ROW = 2  # the attempt that goes on is killed too
ACTS = {"tag": tag, "undo": undo}
CLEANING = ("unlink", "rmdir")  # a draft may be left where these fail


@pytest.fixture(scope="module")
def story():
    story = TaggingScenario([".mp3", ".flac", ".ogg", ".m4a", ".wav", ".wv"])
    yield story
    shutil.rmtree(story.folder)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("act", ["tag", "undo"])
def test_any_call_may_fail(story, act, code):
    old, new, status = (
        (story.old, story.new, "written") if act == "tag" else (story.new, story.old, "restored")
    )
    at = 0
    story.start(story.old)
    story.tag()
    while True:
        at += 1
        story.start(old)
        rows = {"rows": [request_row(path) for path in story.files]} if act == "tag" else {}
        arguments = {"run": story.run, **rows}
        with faults(at, code) as met:
            try:
                done = ACTS[act](**arguments)
                assert done == {status}
            except OSError as why:
                assert why.errno == code  # noqa: PT017
        story.assert_whole()
        if met.failed not in CLEANING:
            story.assert_clean()
        if met.failed is None:
            break
        with faults():
            assert ACTS[act](**arguments) == {status}
        assert story.content() == new
        story.assert_clean()
    assert at > 100
    assert {"file.write", "fsync", "replace", "open", "utime", "chmod", "listxattr"} <= set(met.calls)


@pytest.fixture(scope="module")
def server():
    server = ForkServer("tests.support.tagging_scenario")
    yield server
    server.close()


@pytest.mark.parametrize(
    "kills", [24, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1_200)])]
)
def test_a_killed_batch_leaves_whole_files_and_is_completed_when_run_again(server, kills):
    """Killed at random moments; and at random calls, every other one a swap, since all swaps are over in a moment."""
    story = TaggingScenario(list(CODECS), albums=2)
    draw = random.Random(5)
    killed = torn = 0
    seconds, calls = {"tag": [], "undo": []}, {}
    while killed < kills:
        story.start(story.old)
        asked = {"tag": {"rows": [request_row(path) for path in story.files]}, "undo": {}}
        for act, new in (("tag", story.new), ("undo", story.old)):
            arguments = {"run": story.run, **asked[act]}
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
                    call = draw.choice([draw.choice(swaps), draw.randrange(len(calls[act]))])
                    status = server.call("crash_at", number=call + 1, act=act, **arguments)
                killed += status == -signal.SIGKILL
                story.assert_whole()
                torn += story.content() not in (story.old, story.new)
            begun = time.monotonic()
            assert server.call(act, **arguments) == 0
            seconds[act].append(time.monotonic() - begun)
            assert story.content() == new
            story.assert_clean()
    shutil.rmtree(story.folder)
    assert torn > kills // 8, "many of the kills fell between two files"
