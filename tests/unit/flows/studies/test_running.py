"""The running of a study, without a cluster: what is done, what is recorded, what follows."""

import csv
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from flows.cluster.client import Cluster
from flows.cluster.settings import ClusterSettings
from flows.run_experiments import choose_pending, fill_in, open_study, run_all
from flows.study_runs.ledger import check_folder, claim_folder, repeating_command
from flows.study_runs.settings import ExperimentSettings
from flows.study_runs.study import Conclusion, RunResult, Study, StudyRun
from store.errors import BadInput, TrainingStopped
from tests.support.toy_training import publish_toy_artists

CALLS = []


def body(number):
    CALLS.append(number)
    if number == 1:
        raise TrainingStopped("the loss is not finite")
    return RunResult({"accuracy": number / 10})


def run_of(number):
    return StudyRun({"number": number}, body, lambda: {"number": number})


def plan(context, rows):
    """One run, then the one that fails, then one that follows from the first: each alone needs no worker."""
    return [run_of(number) for number in range(3) if number <= len(rows)]


STUDY = Study(
    name="genres",
    question="?",
    plan=plan,
    conclude=lambda context, rows: Conclusion("yes"),
    defaults={"models": ("svm",), "seeds": (0, 1)},
    quick={"models": ("features",), "training": {"epochs": 2}},
)


@pytest.fixture
def context(tmp_path):
    CALLS.clear()
    settings = ExperimentSettings(
        study="genres", store=publish_toy_artists(str(tmp_path / "store")), results=str(tmp_path / "results")
    )
    return open_study(STUDY, settings, Cluster(ClusterSettings(), ExitStack()))


def test_a_failed_run_is_recorded_and_the_rest_goes_on(context, capfd):
    rows = run_all(STUDY, context)
    assert [(row["number"], row["status"]) for row in rows] == [(0, "done"), (1, "failed"), (2, "done")]
    assert rows[1]["error"] == "TrainingStopped: the loss is not finite"
    assert "failed: TrainingStopped" in capfd.readouterr().err
    table = list(csv.DictReader((Path(context.folder) / "results.csv").read_text().splitlines()))
    assert [(row["accuracy"], row["status"]) for row in table] == [
        ("0.0", "done"),
        ("", "failed"),
        ("0.2", "done"),
    ]

    run_all(STUDY, context)
    assert CALLS == [0, 1, 2, 1], "only the one that failed is tried again"


def test_a_bug_is_no_result(context, monkeypatch):
    def buggy(number):
        raise TypeError("a bug")

    study = Study(
        **{**vars(STUDY), "plan": lambda context, rows: [StudyRun({}, buggy, lambda: {"number": 0})]}
    )
    with pytest.raises(TypeError, match="a bug"):
        run_all(study, context)


def test_a_plan_that_is_refused_leaves_no_trace(context):
    def refuse(context, rows):
        raise BadInput("no such genre")

    with pytest.raises(BadInput, match="no such genre"):
        run_all(Study(**{**vars(STUDY), "plan": refuse}), context)
    assert not (Path(context.folder) / "study.json").exists()


def test_a_study_goes_on_with_the_wheel_of_musicnn_at_another_place_but_not_without_it(context):
    at = {wheel: with_musicnn(context, wheel) for wheel in ("old/musicnn.whl", "new/musicnn.whl", "")}
    claim_folder(at["old/musicnn.whl"])
    check_folder(at["new/musicnn.whl"])
    with pytest.raises(
        BadInput, match=r"its runs were made with training\.model\.musicnn musicnn \(now none\)"
    ):
        check_folder(at[""])


def with_musicnn(context, wheel):
    values = context.settings.model_dump()
    values["training"]["model"]["musicnn"] = wheel
    return replace(context, settings=ExperimentSettings.model_validate(values))


def test_a_run_that_does_not_exist_is_not_repeated():
    with pytest.raises(BadInput, match="--only abc: this study has no such run"):
        choose_pending([run_of(0)], {}, "abc")


def test_what_was_given_counts_more_than_the_study_s_own_choice():
    given = ExperimentSettings(study="genres", quick=True, seeds=(7,))
    filled = fill_in(given, STUDY)
    assert (filled.models, filled.seeds, filled.training.epochs) == (("features",), (7,), 2)
    assert fill_in(filled, STUDY) == filled


def test_the_command_of_a_row_has_all_that_was_given():
    settings = ExperimentSettings(
        study="genres", quick=True, genres=("Hip-Hop", "Old Time"), store="my store"
    )
    training = settings.training.model_copy(update={"epochs": 3, "balance": "genre"})
    settings = settings.model_copy(update={"training": training})
    assert repeating_command(settings, "abc") == (
        "spectrogram-one experiment genres --store 'my store' --quick --genres Hip-Hop --genres 'Old Time' --only abc "
        "--training.epochs 3 --training.balance genre"
    )
