import json
import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch

from store.errors import BadInput, TrainingStopped
from tests.support.toy_training import gradient_tolerance
from training.fit.checkpoint import read_checkpoint
from training.fit.distributed import RankContext
from training.fit.epoch import learning_rate_at
from training.fit.loop import train
from training.fit.run import is_finished, run_hash
from training.fit.settings import AugmentSettings, TrainSettings
from training.networks.settings import ModelSettings, PretrainedSettings


class Stopped(Exception):
    """The run is killed here."""


def run_toy(folder, toy, *, stop_after=None, stop_at_step=None, rank_context=RankContext()):  # noqa: B008
    """Train and return the events; stop as soon as an epoch, or (epoch, step), is reported."""
    events = []

    def emit(event):
        events.append(event)
        if event["event"] == "epoch" and event["epoch"] == stop_after:
            raise Stopped
        if event["event"] == "step" and (event["epoch"], event["step"]) == stop_at_step:
            raise Stopped

    train(str(folder), toy.run, toy.tracks, toy.snapshot, rank_context, emit)
    return events


def weights_of(folder):
    return safetensors.torch.load((folder / "weights.safetensors").read_bytes())


def losses_of(folder):
    """Return the history of a run without its times."""
    timed = {"seconds", "crops_per_s", "data_wait_share", "communication_share", "compute_share"}
    history = json.loads((folder / "history.json").read_text())
    return [{name: row[name] for name in row if name not in timed} for row in history["epochs"]]


LEARNING = {
    "epochs": 10,
    "crops_per_track": 12,
    "micro_batch_size": 16,
    "label_smoothing": 0.0,
    "augment": AugmentSettings(masks=0, gain_db=0, tone_db=0),
}


@pytest.mark.parametrize("name", ["short-chunk-resnet", "shallow"])
@pytest.mark.parametrize("target", ["top", "multi"])
def test_a_toy_is_learned(tmp_path, toy, name, target):
    model = ModelSettings(name=name, width=8, dropout=0)
    events = run_toy(tmp_path, toy(target=target, model=model, **LEARNING))
    last = [event for event in events if event["event"] == "epoch"][-1]
    assert last["train_loss"] < 0.05
    assert last["validation_accuracy"] == last["validation_macro_f1"] == 1
    assert [event["event"] for event in events if event["event"] != "step"] == [
        "start",
        *["epoch"] * 10,
        "done",
    ]


@pytest.mark.parametrize("stop_after", [1, 3])
def test_resumed_equals_uninterrupted(tmp_path, toy, stop_after):
    run_toy(tmp_path / "whole", toy())
    with pytest.raises(Stopped):
        run_toy(tmp_path / "cut", toy(), stop_after=stop_after)
    events = run_toy(tmp_path / "cut", toy())
    assert events[0]["epochs_done"] == stop_after
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    ("killed_at", "resumes_from"), [((1, 2), (0, 0)), ((2, 4), (1, 3)), ((3, 7), (2, 6))]
)
def test_killed_in_mid_epoch_at_most_one_checkpoint_interval_is_lost(
    tmp_path, toy, monkeypatch, killed_at, resumes_from
):
    monkeypatch.setattr("training.fit.events.EVENT_INTERVAL_S", -1.0)
    settings = {"batch_size": 4, "checkpoint_steps": 3, "epochs": 3}
    run_toy(tmp_path / "whole", toy(**settings))
    with pytest.raises(Stopped):
        run_toy(tmp_path / "cut", toy(**settings), stop_at_step=killed_at)
    start, step, *_ = (it for it in run_toy(tmp_path / "cut", toy(**settings)) if it["event"] != "heartbeat")
    assert (start["epochs_done"], start["steps_done"]) == resumes_from
    assert step["step"] == resumes_from[1] + 1
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def pretrained_run(folder, toy, start_folder, **settings):
    """Return a run that starts from the weights of another one."""
    weights = (start_folder / "weights.safetensors").read_bytes()
    folder.mkdir()
    (folder / "pretrained.safetensors").write_bytes(weights)
    plain = toy(**settings)
    return replace(plain, run=plain.run.model_copy(update={"pretrained_sha256": sha256(weights).hexdigest()}))


def test_a_frozen_trunk_keeps_its_weights_and_is_trained_after_that(tmp_path, toy):
    run_toy(tmp_path / "first", toy(epochs=1))
    before = weights_of(tmp_path / "first")
    trunk = [name for name in before if name.startswith("trunk.") and "running" not in name]
    for epochs, alike in ((1, True), (2, True), (3, False)):
        folder = tmp_path / str(epochs)
        pretrained = PretrainedSettings(weights="first", frozen_epochs=2)
        run_toy(
            folder,
            pretrained_run(folder, toy, tmp_path / "first", epochs=max(epochs, 2), pretrained=pretrained),
        )
        after = weights_of(folder)
        assert all(torch.equal(before[name], after[name]) for name in trunk) == alike
        assert not torch.equal(before["fc.weight"], after["fc.weight"])


def test_resumed_while_frozen_equals_uninterrupted(tmp_path, toy):
    run_toy(tmp_path / "first", toy(epochs=1))
    settings = {"epochs": 3, "pretrained": PretrainedSettings(weights="first", frozen_epochs=2)}
    run_toy(tmp_path / "whole", pretrained_run(tmp_path / "whole", toy, tmp_path / "first", **settings))
    cut = pretrained_run(tmp_path / "cut", toy, tmp_path / "first", **settings)
    for epoch in (1, 2):
        with pytest.raises(Stopped):
            run_toy(tmp_path / "cut", cut, stop_after=epoch)
    run_toy(tmp_path / "cut", cut)
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")


def test_other_pretrained_weights_than_those_of_the_run_are_refused(tmp_path, toy):
    run_toy(tmp_path / "first", toy(epochs=1))
    run = pretrained_run(
        tmp_path / "run", toy, tmp_path / "first", pretrained=PretrainedSettings(weights="first")
    )
    (tmp_path / "run" / "pretrained.safetensors").write_bytes(b"other")
    with pytest.raises(
        BadInput, match=r"pretrained.safetensors: damaged or changed; delete this run's folder"
    ):
        run_toy(tmp_path / "run", run)
    (tmp_path / "run" / "pretrained.safetensors").unlink()
    with pytest.raises(BadInput, match=r"pretrained.safetensors: missing; run the same command again"):
        run_toy(tmp_path / "run", run)


def test_the_shares_of_an_epochs_time_add_up(tmp_path, toy):
    run_toy(tmp_path, toy(epochs=1))
    (row,) = json.loads((tmp_path / "history.json").read_text())["epochs"]
    shares = [row[f"{name}_share"] for name in ("data_wait", "communication", "compute")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= row["communication_share"] == 0, "one process does not communicate"


def test_a_finished_run_is_left_alone(tmp_path, toy):
    run_toy(tmp_path, toy(epochs=1))
    before = (tmp_path / "weights.safetensors").stat().st_mtime_ns
    assert run_toy(tmp_path, toy(epochs=1)) == [{"event": "done", "best_epoch": 1}]
    assert (tmp_path / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile uses what torch deprecates
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.soak  # the compiler takes longer than all other tests here
def test_a_compiled_network_learns_the_same(tmp_path, toy):
    model = ModelSettings(name="shallow", width=4, dropout=0)  # compiled, it draws other random numbers
    for compiled in (False, True):
        run_toy(tmp_path / str(compiled), toy(epochs=1, compile=compiled, model=model))
    (plain,), (compiled,) = (losses_of(tmp_path / name) for name in ("False", "True"))
    assert compiled == pytest.approx(plain, rel=gradient_tolerance(2, toy(model=model).run.settings))


def test_other_seeds_have_other_losses(tmp_path, toy):
    for seed in (0, 1):
        run_toy(tmp_path / str(seed), toy(epochs=1, seed=seed))
    assert losses_of(tmp_path / "0") != losses_of(tmp_path / "1")


def test_class_weights_change_what_unequal_genres_learn(tmp_path, toy):
    for weighted in (False, True):
        whole = toy(epochs=1, class_weights=weighted)
        run_toy(
            tmp_path / str(weighted), replace(whole, tracks=whole.tracks.slice(1))
        )  # three tracks against four
    assert losses_of(tmp_path / "False") != losses_of(tmp_path / "True")


def test_the_number_of_reading_threads_changes_nothing(tmp_path, toy):
    for threads in (1, 3):
        run_toy(tmp_path / str(threads), toy(epochs=1, loader_threads=threads))
    assert losses_of(tmp_path / "1") == losses_of(tmp_path / "3")


def test_the_best_epoch_is_kept_not_the_last(tmp_path, toy):
    plain = toy(**LEARNING)
    wrong = plain.tracks["target"].to_pylist()[:8] + [[1, 0], [0, 1]] * 2  # better training, worse score
    mislabelled = replace(
        plain, tracks=plain.tracks.set_column(2, "target", pa.array(wrong, pa.list_(pa.int8())))
    )
    run_toy(tmp_path / "whole", mislabelled)
    best_epoch = json.loads((tmp_path / "whole" / "history.json").read_text())["best_epoch"]
    rows = losses_of(tmp_path / "whole")
    lowest = min(rows, key=lambda row: row["validation_loss"])
    bound = lowest["validation_loss"] + lowest["validation_loss_standard_error"]
    within = [row["epoch"] for row in rows if row["validation_loss"] <= bound]
    assert best_epoch == max(within) < LEARNING["epochs"]
    with pytest.raises(Stopped):
        run_toy(tmp_path / "best", mislabelled, stop_after=best_epoch)
    state, _ = read_checkpoint(str(tmp_path / "best"), run_hash(mislabelled.run, mislabelled.tracks))
    assert all(
        torch.equal(weight, state.model[name]) for name, weight in weights_of(tmp_path / "whole").items()
    )


def test_of_epochs_within_one_standard_error_the_last_is_kept(tmp_path, toy):
    run_toy(tmp_path, toy())
    rows = losses_of(tmp_path)
    assert max(row["validation_loss"] for row in rows) < 0.7, "nothing is learned: the losses are alike"
    assert json.loads((tmp_path / "history.json").read_text())["best_epoch"] == len(rows)


def test_every_step_of_the_run_has_its_own_rate(tmp_path, toy, monkeypatch):
    monkeypatch.setattr("training.fit.events.EVENT_INTERVAL_S", -1.0)
    plain = toy(epochs=2)
    steps = [event for event in run_toy(tmp_path, plain) if event["event"] == "step"]
    assert [(event["epoch"], event["step"], event["steps"]) for event in steps] == [
        (1, 1, 2),
        (1, 2, 2),
        (2, 1, 2),
        (2, 2, 2),
    ]
    assert [event["learning_rate"] for event in steps] == [
        learning_rate_at(step, 4, plain.run.settings) for step in range(4)
    ]
    assert all(event["loss"] > 0 and event["grad_norm"] > 0 and event["crops_per_s"] > 0 for event in steps)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, toy):
    damaged = toy()
    for track_id in ("00", "03"):
        damaged.snapshot.mels[track_id][:] = np.nan
    with pytest.raises(TrainingStopped, match=r"epoch 1, at step 2 or before: loss nan.*lower learning_rate"):
        run_toy(tmp_path, damaged)
    assert list(tmp_path.iterdir()) == []


def test_a_validation_track_that_is_not_finite_is_named(tmp_path, toy):
    damaged = toy()
    damaged.snapshot.mels["09"][:] = np.nan
    with pytest.raises(BadInput, match="validation track 09: its spectrogram is not finite"):
        run_toy(tmp_path, damaged)


def test_other_settings_do_not_resume_from_a_checkpoint(tmp_path, toy):
    with pytest.raises(Stopped):
        run_toy(tmp_path, toy(), stop_after=1)
    with pytest.raises(BadInput, match="put them back, or train in another folder"):
        run_toy(tmp_path, toy(learning_rate=0.02))


def test_a_truncated_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, toy):
    run_toy(tmp_path / "whole", toy())
    with pytest.raises(Stopped):
        run_toy(tmp_path / "cut", toy(), stop_after=2)
    newest = tmp_path / "cut" / "checkpoint-a.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    events = run_toy(tmp_path / "cut", toy())
    assert events[0]["message"].startswith("checkpoint-a.pt is cut short")
    assert events[1]["epochs_done"] == 1
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")


def test_fewer_micro_batches_than_processes_are_refused(tmp_path, toy):
    with pytest.raises(BadInput, match=r"a step has 4 micro-batches .* for 5 processes"):
        run_toy(tmp_path, toy(), rank_context=RankContext(0, 5))


def test_other_mel_settings_are_refused(tmp_path, toy):
    plain = toy()
    other = plain.run.model_copy(update={"mel_fingerprint": "123456789abc"})
    with pytest.raises(BadInput, match="the run needs 123456789abc"):
        train(str(tmp_path), other, plain.tracks, plain.snapshot, RankContext(), print)


def test_a_track_without_spectrogram_is_refused(tmp_path, toy):
    plain = toy()
    del plain.snapshot.mels["05"]
    with pytest.raises(BadInput, match=r"no spectrogram of track 05 \(1 missing\)"):
        run_toy(tmp_path, plain)


def test_a_run_is_finished_when_its_weights_are_there(tmp_path, toy):
    with pytest.raises(Stopped):
        run_toy(tmp_path, toy(), stop_after=4)
    assert not is_finished(str(tmp_path))
    run_toy(tmp_path, toy())
    assert is_finished(str(tmp_path))


def test_the_rate_rises_then_falls_to_almost_nothing():
    settings = TrainSettings(learning_rate=0.1, warmup_share=0.1)
    rates = [learning_rate_at(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
    assert rates[10] == max(rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-4
