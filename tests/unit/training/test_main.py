"""The error events of `python -m training`: their kind decides what the operator reads."""

import errno
import json
import signal

import pytest
import torch

from tests.support.toy_training import SETTINGS, publish_toy, write_toy_run
from training.__main__ import EXIT_REPORTED, main

SHORT = SETTINGS.model_copy(update={"epochs": 1})


@pytest.fixture(autouse=True)
def _same_signals_and_threads():
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def run_folder(tmp_path):
    return str(write_toy_run(tmp_path / "run", publish_toy(str(tmp_path / "store")), SHORT))


def error_of(capfd, *arguments):
    """Run the program; return kind and message of its error event."""
    assert main([*arguments]) == EXIT_REPORTED
    event = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (event["event"], event["rank"]) == ("error", 0)
    return event["kind"], event["message"]


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_run_reports_its_start_its_epochs_and_its_end(run_folder, capfd):
    assert main([run_folder]) == 0
    events = [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]
    assert [it for it in events if it != "step"] == ["start", "epoch", "done"]


def test_wrong_input_is_bad_input(tmp_path, capfd):
    assert error_of(capfd) == ("BadInput", "python -m training RUN_FOLDER: found 0 arguments")
    kind, message = error_of(capfd, str(tmp_path))
    assert (kind, "run.json is missing" in message) == ("BadInput", True)


def test_a_damaged_validation_track_is_bad_input(tmp_path, capfd):
    snapshot = publish_toy(str(tmp_path / "store"), not_finite=["08"])
    kind, message = error_of(capfd, str(write_toy_run(tmp_path / "run", snapshot, SHORT)))
    assert (kind, message[:20]) == ("BadInput", "validation track 08:")


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path, capfd):
    snapshot = publish_toy(str(tmp_path / "store"), not_finite=["00", "01"])
    kind, message = error_of(capfd, str(write_toy_run(tmp_path / "run", snapshot, SHORT)))
    assert (kind, "lower learning_rate" in message) == ("TrainingStopped", True)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_stops_the_training(run_folder, capfd, monkeypatch, code):
    monkeypatch.setattr("training.fit.checkpoint.write_atomic", failing(OSError(code, "no", "a.pt")))
    kind, message = error_of(capfd, run_folder)
    assert (kind, "run the same command again" in message) == ("TrainingStopped", True)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), "batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), "micro_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "micro_batch_size"),
    ],
)
def test_settings_that_need_too_much_memory_are_bad_input(run_folder, capfd, monkeypatch, error, advice):
    monkeypatch.setattr("training.fit.loop.train_epoch", failing(error))
    kind, message = error_of(capfd, run_folder)
    assert (kind, f"lower training.{advice}" in message) == ("BadInput", True)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "input/output error"), RuntimeError("a bug")])
def test_what_a_restart_may_fix_is_not_reported(run_folder, monkeypatch, error):
    monkeypatch.setattr("training.fit.loop.train_epoch", failing(error))
    with pytest.raises(type(error), match=str(error.args[-1])):
        main([run_folder])
