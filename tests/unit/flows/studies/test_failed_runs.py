"""A run that failed keeps none from being planned that depends on the others."""

from contextlib import ExitStack

import pytest

from flows.cluster.client import Cluster
from flows.cluster.settings import ClusterSettings
from flows.run_experiments import open_study
from flows.studies import balance, metadata, tune
from flows.study_runs.settings import ExperimentSettings
from tests.support.toy_training import publish_toy_artists


@pytest.fixture
def context_of(tmp_path):
    store = publish_toy_artists(str(tmp_path / "store"))

    def open_it(study, **chosen):
        settings = ExperimentSettings(
            study=study.name, store=store, results=str(tmp_path), folds=2, splits=("artist",), **chosen
        )
        return open_study(study, settings, Cluster(ClusterSettings(), ExitStack()))

    return open_it


def row(run, status, **metrics):
    return {"run": run.name, **run.settings, "status": status, **metrics}


def done(run, number, loss):
    return row(run, "done", optuna_trial=number, validation_loss=loss, learning_rate=0.002)


def test_the_best_settings_are_tested_though_a_proposal_diverged(context_of):
    context = context_of(tune.STUDY, trials=3)
    one, two, three = tune.plan(context, [])
    ended = [done(one, 0, 0.9), done(two, 1, 0.8), row(three, "failed")]
    tests = tune.plan(context, ended)[3:]
    assert [run.settings["settings"] for run in tests] == ["given"] * 2 + ["best"] * 2

    retried = tune.plan(context, [*ended[:2], done(three, 2, 0.7)])[3:]
    assert [run.name for run in retried[:2]] == [run.name for run in tests[:2]]
    assert not {run.name for run in retried[2:]} & {run.name for run in tests[2:]}, (
        "other settings are the best now"
    )


def test_the_worst_pair_is_looked_at_though_a_way_to_balance_failed(context_of, monkeypatch):
    context = context_of(balance.STUDY, models=("svm",))
    runs = balance.plan(context, [])
    failed = [row(run, "failed") for run in runs]
    assert len(balance.plan(context, failed)) == len(runs), "no pair is known"

    monkeypatch.setattr(balance, "find_worst_pair", lambda context, rows, among: ("high", "low"))
    ended = [row(run, "done") for run in runs[:-1]] + failed[-1:]
    assert len(balance.plan(context, ended)) > len(runs)


def test_sources_are_added_only_to_a_fold_that_was_predicted(context_of):
    context = context_of(metadata.STUDY, split_seeds=(0,))
    one, two = metadata.plan(context, [])
    added = metadata.plan(context, [row(one, "done"), row(two, "failed")])[2:]
    assert added
    assert {run.settings["fold"] for run in added} == {one.settings["fold"]}
