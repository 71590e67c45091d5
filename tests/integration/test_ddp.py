"""Two real processes under torchrun, over gloo, on a real store."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch

from preprocessing.mel import MelSettings
from store.dataset import Recipe, publish, put_catalogue, write_shard
from store.reader import open_snapshot
from tests.snapshots import index_of
from training.augment import AugmentSettings
from training.loop import train
from training.model import ModelSettings
from training.ranks import Seat
from training.run import TrainingRun, TrainSettings, read_run, write_run

ROOT = Path(__file__).parents[2]
MEL = MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=8)
SETTINGS = TrainSettings(
    crop_s=0.5,
    crops_per_track=8,
    batch_size=16,
    crops_at_once=8,
    epochs=4,
    learning_rate=0.003,
    validation_crops=3,
    stall_s=60,
    # The deeper network makes so much of float32 rounding, on so small a toy, that nothing compares.
    model=ModelSettings(name="shallow", width=8, dropout=0.2),
    augment=AugmentSettings(mixup=0.3),
)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Publish the spectrograms of two genres, that differ in which half of the bands is loud."""
    root, random = str(tmp_path_factory.mktemp("store")), np.random.default_rng(7)
    mels = {}
    for number in range(12):
        mel_FM = random.normal(-30, 6, (30 + 5 * number, MEL.bands)).astype(np.float32)
        mel_FM[:, :4] += 20 * (number % 2)
        mels[f"{number:02d}"] = mel_FM
    shard = write_shard(
        root,
        ((it, [mel_FM]) for it, mel_FM in mels.items()),
        bands=MEL.bands,
        encoding="float16",
        attributes={},
    )
    file = publish(
        root,
        parent=None,
        shards=[shard.name],
        index=index_of(shard),
        catalogue=put_catalogue(root, pa.table({"track_id": list(mels)})),
        recipe=Recipe(MEL.model_dump(), MEL.fingerprint, "float16", {}),
        settings={},
    )
    assert file.number == 0
    return open_snapshot(root)


def lay_out(folder, snapshot, settings=SETTINGS):
    targets = [[number % 2, 1 - number % 2] for number in range(12)]
    table = pa.table(
        {
            "track_id": snapshot.track_ids,
            "split": ["training"] * 7 + ["validation"] * 3 + ["test"] * 2,
            "target": pa.array(targets, pa.list_(pa.int8())),
        }
    )
    run = TrainingRun(
        snapshot_url=snapshot.url, mel_fingerprint=MEL.fingerprint, genres=("low", "high"), settings=settings
    )
    write_run(str(folder), run, table)
    return folder


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
    """Wait for it; leave no process behind, whatever happens."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def run_alone(folder, snapshot):
    torch.set_num_threads(1)
    run, tracks = read_run(str(folder))
    train(str(folder), run, tracks, snapshot, Seat(), lambda event: None)
    return folder


def weights_of(folder):
    return safetensors.torch.load((folder / "weights.safetensors").read_bytes())


def losses_of(folder, name):
    return [row[name] for row in json.loads((folder / "history.json").read_text())["epochs"]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, snapshot):
    """What two processes learn that nobody stops."""
    folder = lay_out(tmp_path_factory.mktemp("undisturbed"), snapshot)
    code, events, err = finish(torchrun(folder))
    assert code == 0, err
    assert [e["event"] for e in events if e["event"] != "step"] == ["start", *["epoch"] * 4, "done"]
    assert events[0]["processes"] == 2
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, snapshot):
    """A run of two processes that were asked to end after the second epoch."""
    folder = lay_out(tmp_path_factory.mktemp("stopped"), snapshot)
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


def test_two_processes_learn_what_one_learns(tmp_path, snapshot, undisturbed):
    alone = run_alone(lay_out(tmp_path, snapshot), snapshot)
    np.testing.assert_allclose(
        losses_of(undisturbed, "train_loss"), losses_of(alone, "train_loss"), rtol=1e-4
    )
    # Batch norm's running statistics weigh the groups of a step a little differently.
    np.testing.assert_allclose(
        losses_of(undisturbed, "validation_loss"), losses_of(alone, "validation_loss"), rtol=0.05
    )


def test_resumed_equals_uninterrupted(tmp_path, undisturbed, stopped):
    folder = shutil.copytree(stopped, tmp_path / "run")
    code, events, err = finish(torchrun(folder))
    assert code == 0, err
    assert 2 <= events[0]["epochs_done"] < 4
    for name in ("train_loss", "validation_loss"):
        assert losses_of(folder, name) == losses_of(undisturbed, name)
    resumed, whole = weights_of(folder), weights_of(undisturbed)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_one_process_goes_on_where_two_were_stopped(tmp_path, snapshot, undisturbed, stopped):
    folder = run_alone(shutil.copytree(stopped, tmp_path / "run"), snapshot)
    np.testing.assert_allclose(
        losses_of(folder, "train_loss"), losses_of(undisturbed, "train_loss"), rtol=1e-4
    )


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
