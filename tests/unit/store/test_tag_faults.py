"""Disks that fail and processes that are killed leave whole files, and the batch is completed by running it again."""

import errno
import random
import shutil
import statistics
import time
from functools import partial
from pathlib import Path

import pytest

from tests.disk_faults import faults
from tests.forked_calls import ForkServer
from tests.formats import CODECS
from tests.tag_stories import Story, row_of, tag, undo

KILLS = 200
KILLS_IN_A_ROW = 2  # the attempt that goes on is killed too
CLEANING = ("unlink", "rmdir")  # a draft may be left where these fail


@pytest.fixture(scope="module")
def story():
    story = Story([".mp3", ".flac", ".ogg", ".m4a", ".wav", ".wv"])
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
        rows = [row_of(path) for path in story.files]
        with faults(at, code) as met:
            try:
                done = tag(rows, story.run) if act == "tag" else undo(story.run)
                assert done == {status}
            except OSError as why:
                assert why.errno == code  # noqa: PT017
        story.assert_whole()
        if met.failed not in CLEANING:
            story.assert_clean()
        if met.failed is None:
            break
        with faults():
            assert (tag(rows, story.run) if act == "tag" else undo(story.run)) == {status}
        assert story.content() == new
        story.assert_clean()
    assert at > 100
    assert {"file.write", "fsync", "replace", "open", "utime", "chmod", "listxattr"} <= set(met.made)


@pytest.fixture(scope="module")
def server():
    server = ForkServer("tests.tag_stories")
    yield server
    server.close()


def test_a_killed_batch_leaves_whole_files_and_is_completed_when_run_again(server):
    story = Story(list(CODECS), albums=2)
    draw = random.Random(5)
    killed = torn = 0
    seconds = {"tag": [], "undo": []}
    while killed < KILLS:
        story.start(story.old)
        asked = {"tag": {"rows": [row_of(path) for path in story.files]}, "undo": {}}
        for act, new in (("tag", story.new), ("undo", story.old)):
            for attempt in range(KILLS_IN_A_ROW if seconds[act] else 0):
                span_s = statistics.median(seconds[act])
                if attempt == 0:
                    until = partial(wait_for_swap, draw.choice(story.files), span_s)
                else:
                    until = partial(wait_a_while, draw, span_s)
                killed += server.call(act, until=until, run=story.run, **asked[act]) == -9
                story.assert_whole()
                torn += story.content() not in (story.old, story.new)
            begun = time.monotonic()
            assert server.call(act, run=story.run, **asked[act]) == 0
            seconds[act].append(time.monotonic() - begun)
            assert story.content() == new
            story.assert_clean()
    shutil.rmtree(story.folder)
    assert torn > KILLS // 20, "some of the kills fell between two files"


def wait_a_while(draw: random.Random, span_s: float) -> None:
    """Wait for a random share of the time that a batch takes."""
    time.sleep(draw.random() * span_s)


def wait_for_swap(path: Path, span_s: float) -> None:
    """Wait until a file is swapped: all swaps take some milliseconds, and few random moments fall between them."""
    begun = time.monotonic()
    before = path.stat().st_ino
    while path.stat().st_ino == before and time.monotonic() < begun + span_s:
        pass
