"""Two real processes under torchrun, over gloo, on a real store."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.toy_training import (
    SETTINGS,
    loss_tolerance,
    losses_of,
    publish_toy,
    write_toy_run,
)
from training.fit.distributed import RankContext
from training.fit.loop import train
from training.fit.run import read_run
from training.fit.train_state import BATCH_NORM_DECAY
from training.networks.settings import PretrainedSettings

ROOT = Path(__file__).parents[2]
STEPS = SETTINGS.epochs * math.ceil(
    7 * SETTINGS.crops_per_track / SETTINGS.batch_size
)  # of 7 training tracks


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return publish_toy(str(tmp_path_factory.mktemp("store")))


def torchrun(folder, processes=2):
    command = f"-m torch.distributed.run --standalone --nproc-per-node={processes} -m training {folder}"
    return subprocess.Popen(
        [sys.executable, "-W", "error", *command.split()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process, timeout=120):
    """Wait for the processes; leave none behind, whatever happens."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def run_alone(folder, snapshot):
    torch.set_num_threads(1)
    run, tracks = read_run(str(folder))
    train(str(folder), run, tracks, snapshot, RankContext(), lambda event: None)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, snapshot):
    """Return the run of two processes that are not stopped."""
    folder = write_toy_run(tmp_path_factory.mktemp("undisturbed"), snapshot)
    code, events, err = finish(torchrun(folder))
    assert code == 0, err
    assert [e["event"] for e in events if e["event"] != "step"] == ["start", *["epoch"] * 4, "done"]
    assert events[0]["processes"] == 2
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, snapshot):
    """Return a run of two processes that were terminated after the second epoch."""
    folder = write_toy_run(tmp_path_factory.mktemp("stopped"), snapshot)
    process = torchrun(folder)
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "epoch" and event["epoch"] == 2:
            os.kill(process.pid, signal.SIGTERM)
            break
    code, _, err = finish(process, timeout=25)
    assert code != 0
    assert "BadInput" not in err
    assert not (folder / "weights.safetensors").exists()
    assert list(folder.glob(".*.part*")) == []
    return folder


def assert_same_losses(folder, other):
    """The training losses of two runs differ by float32 rounding alone."""
    losses, wanted = losses_of(folder, "train_loss"), losses_of(other, "train_loss")
    np.testing.assert_allclose(losses, wanted, rtol=loss_tolerance(STEPS))


def test_two_processes_learn_what_one_learns(tmp_path, snapshot, undisturbed):
    alone = run_alone(write_toy_run(tmp_path, snapshot), snapshot)
    assert_same_losses(undisturbed, alone)
    # One process updates batch norm's running statistics twice in a step, by 1 - sqrt(0.9) each; two
    # processes once, by 1 - 0.9, and average: the weight of the last micro-batch differs by 2.6 %.
    weights = (1 - BATCH_NORM_DECAY**0.5, (1 - BATCH_NORM_DECAY) / 2)
    np.testing.assert_allclose(
        losses_of(undisturbed, "validation_loss"),
        losses_of(alone, "validation_loss"),
        rtol=weights[0] / weights[1] - 1,
    )


@pytest.mark.soak
def test_an_unfrozen_trunk_is_trained_on_all_processes(tmp_path, snapshot, undisturbed):
    """DDP records which weights have gradients: wrapped only once, ranks would diverge when the trunk is unfrozen."""
    weights = (undisturbed / "weights.safetensors").read_bytes()
    settings = SETTINGS.model_copy(
        update={"pretrained": PretrainedSettings(weights="other", frozen_epochs=2)}
    )
    shared, alone = (
        write_toy_run(tmp_path / name, snapshot, settings, weights) for name in ("shared", "alone")
    )
    code, _, err = finish(torchrun(shared))
    assert code == 0, err
    run_alone(alone, snapshot)
    assert_same_losses(shared, alone)


def test_one_process_resumes_where_two_were_stopped(tmp_path, snapshot, undisturbed, stopped):
    folder = run_alone(shutil.copytree(stopped, tmp_path / "run"), snapshot)
    assert_same_losses(folder, undisturbed)


def test_a_mistake_is_one_line_and_a_code_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "training", str(tmp_path / "nothing")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (3, "")
    assert "run.json is missing" in json.loads(line)["message"]
