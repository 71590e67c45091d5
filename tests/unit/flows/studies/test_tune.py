"""Optuna's search: proposals, pruning and the file for `train`."""

import sys
import tomllib

import pytest

from flows.services import optuna_search
from flows.services.optuna_search import open_search, propose, rank_importance, with_settings
from flows.studies.tune import run_tuning_trial, to_toml
from flows.study_runs.settings import ExperimentSettings
from store.errors import BadInput, TrainingStopped
from training.fit.settings import TrainSettings
from training.studies.trial import Trial


def trial(folder):
    return Trial("shallow", ("a", "b"), None, "", TrainSettings(epochs=4), str(folder / "training"))


def test_the_file_of_the_best_settings_is_what_train_reads():
    tuned = with_settings(
        TrainSettings(cache_folder='fast "disk" \\ 1'),
        {"learning_rate": 0.01, "model.dropout": 0.25, "model.name": "shallow"},
    )
    content = tomllib.loads(to_toml(tuned))
    assert TrainSettings.model_validate(content["training"]) == tuned


def test_workers_share_proposals_and_prune_what_is_worse(tmp_path, monkeypatch):
    """The loss is the number of the run: whatever is above the median after the start-up is stopped."""

    def train_network(trial, on_epoch):
        for epoch in range(trial.training.epochs):
            on_epoch({"validation_loss": float(number), "epoch": epoch})

    monkeypatch.setattr(optuna_search, "train_network", train_network)
    results = []
    for number in range(7):
        results.append(run_tuning_trial(trial(tmp_path), str(tmp_path), number))
    assert [it.status for it in results] == ["done"] * 5 + ["pruned"] * 2
    assert [it.metrics["optuna_trial"] for it in results] == list(range(7))
    assert results[-1].metrics["epochs_done"] < 4
    assert sum(rank_importance(str(tmp_path)).values()) == pytest.approx(1)


def test_a_training_that_fails_is_a_failed_proposal(tmp_path, monkeypatch):
    def diverge(trial, on_epoch):
        raise TrainingStopped("the loss is not finite")

    monkeypatch.setattr(optuna_search, "train_network", diverge)
    with pytest.raises(TrainingStopped, match="not finite"):
        run_tuning_trial(trial(tmp_path), str(tmp_path), 0)
    (failed,) = open_search(str(tmp_path), 0).trials
    assert failed.state.name == "FAIL"


def test_the_checkpoint_of_a_killed_process_is_not_that_of_the_next_proposal(tmp_path, monkeypatch):
    def train_network(trial, on_epoch):
        assert not (tmp_path / "training").exists()
        on_epoch({"validation_loss": 1.0, "epoch": 0})

    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "checkpoint.pt").touch()
    monkeypatch.setattr(optuna_search, "train_network", train_network)
    assert run_tuning_trial(trial(tmp_path), str(tmp_path), 0).status == "done"


def test_proposals_are_settings_that_a_training_accepts(tmp_path):
    for _ in range(3):
        propose(open_search(str(tmp_path), 1).ask(), TrainSettings())


def test_without_optuna_the_line_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput, match=r"tune: Optuna is not installed here .*pip install -e .\[research\]"):
        optuna_search.import_optuna()


def test_a_journal_needs_a_disk():
    with pytest.raises(BadInput, match="Optuna's journal needs a disk"):
        open_search("s3://bucket/experiments/tune", 0)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="same value twice"):
        ExperimentSettings(study="tune", seeds=(1, 1))
    with pytest.raises(ValueError, match="one genre per track"):
        ExperimentSettings(study="tune", training=TrainSettings(target="multi"))
