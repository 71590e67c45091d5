"""An interrupted run, a full disk: nothing is lost, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest

from store.reader import open_snapshot
from tests.support.processes import start_in_foreground

MUSIC = "tests/data/demo_music"
LONGEST_S = 120


def command_line(*arguments, **more):
    """Start `spectrogram-one` as a terminal does."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    return start_in_foreground(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)


def run(*arguments):
    process = command_line(*arguments)
    out, err = process.communicate(timeout=LONGEST_S)
    return process.returncode, out, err


def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path):
    store = tmp_path / "store"
    arguments = ["build", MUSIC, "--store", str(store), "--tracks-per-batch", "1", "--cluster.workers", "1"]
    process = command_line(*arguments)
    deadline = time.monotonic() + LONGEST_S
    while len(list(store.glob("shards/*"))) < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130
    assert "error: interrupted; run the same command again to resume" in err
    assert "Traceback" not in err
    kept = len(open_snapshot(str(store)).track_ids)
    assert 3 <= kept < 48

    status, out, err = run(*arguments[:4])
    assert status == 0, err
    assert len(open_snapshot(str(store)).track_ids) == 48
    assert "51 built now" not in out, "what was kept is not built again"


@pytest.fixture
def small_disk(tmp_path, need):
    """A file system of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True)
    need(mounted.returncode == 0, "mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_one_clear_line_and_space_is_all_it_takes(small_disk):
    store = small_disk / "store"
    arguments = [
        "build",
        MUSIC,
        "--store",
        str(store),
        "--tracks-per-batch",
        "4",
        "--batches-per-commit",
        "2",
    ]
    status, _, err = run(*arguments)
    assert status == 1
    assert "No space left on device" in err
    assert "Traceback" not in err
    before = open_snapshot(str(store))
    assert 0 < len(before.track_ids) < 48
    assert all(before.mel(track_id).shape[1] == 128 for track_id in before.track_ids)

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    status, _, err = run(*arguments)
    assert status == 0, err
    assert len(open_snapshot(str(store)).track_ids) == 48
