import pytest
import torch

from store.errors import BadInput
from training.fit.checkpoint import NAMES, Checkpoint, EpochProgress, read_checkpoint, write_checkpoint


def checkpoint(number):
    return Checkpoint(
        number=number,
        epoch=number // 2,
        epoch_progress=EpochProgress(steps=5 * (number % 2), loss=2.5),
        model={"fc.weight": torch.arange(6.0)},
        optimizer={
            "state": {0: {"step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
        },
        best_epoch=1,
        best_weights={"fc.weight": torch.ones(6)},
        history=[{"epoch": 1, "train_loss": 0.5}],
    )


def test_what_is_written_is_read_and_the_newest_wins(tmp_path):
    assert read_checkpoint(str(tmp_path), "run") == (None, [])
    for number in (1, 2, 3):
        write_checkpoint(str(tmp_path), checkpoint(number), "run")
        found, damaged = read_checkpoint(str(tmp_path), "run")
        assert (found.number, damaged) == (number, [])
    assert (found.epoch, found.epoch_progress) == (1, EpochProgress(steps=5, loss=2.5))
    assert torch.equal(found.model["fc.weight"], torch.arange(6.0))
    assert found.optimizer["param_groups"] == checkpoint(3).optimizer["param_groups"]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(NAMES)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:40], lambda data: b"", lambda data: b"[]\n" + data, "flip"],
)
def test_a_damaged_one_is_named_and_the_one_before_it_used(tmp_path, damage):
    for number in (1, 2):
        write_checkpoint(str(tmp_path), checkpoint(number), "run")
    newest = tmp_path / "checkpoint-a.pt"
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    newest.write_bytes(data if damage == "flip" else damage(bytes(data)))
    found, damaged = read_checkpoint(str(tmp_path), "run")
    assert (found.number, damaged) == (1, ["checkpoint-a.pt"])


def test_only_damaged_ones_are_refused(tmp_path):
    (tmp_path / "checkpoint-b.pt").write_bytes(b"half")
    with pytest.raises(BadInput, match=r"checkpoint-b.pt cut short or damaged; delete"):
        read_checkpoint(str(tmp_path), "run")


def test_one_of_another_run_is_refused(tmp_path):
    write_checkpoint(str(tmp_path), checkpoint(1), "this run")
    with pytest.raises(BadInput, match="is of run this run, but settings or tracks now make it run another"):
        read_checkpoint(str(tmp_path), "another")
