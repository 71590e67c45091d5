"""Studies as a flow: real Dask workers, a store of two genres by eight artists."""

import csv
import html
import re
from pathlib import Path

import pytest

from flows.cluster.settings import ClusterSettings
from flows.run_experiments import run_experiments
from flows.study_runs.settings import ExperimentSettings
from store.errors import BadInput
from tests.support.toy_training import publish_toy_artists
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

TRAINING = TrainSettings(
    crop_s=0.5,
    crops_per_track=1,
    epochs=1,
    validation_crops=1,
    model=ModelSettings(width=4),
)


def test_a_study_is_run_resumed_and_repeated(tmp_path, capfd):
    """Rows that are done are not done again."""
    settings = ExperimentSettings(
        study="repeats",
        store=publish_toy_artists(str(tmp_path / "store")),
        results=str(tmp_path / "results"),
        models=("svm", "shallow"),
        splits=("official", "artist", "random"),
        folds=2,
        seeds=(0,),
        split_seeds=(0,),
        training=TRAINING,
        cluster=ClusterSettings(workers=1),
    )
    summary = run_experiments(settings)
    folder = Path(summary.folder)
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["model"], row["split"], row["fold"], row["status"]) for row in rows] == [
        (model, split, fold, "done")
        for split, folds in (("official", "0"), ("artist", "01"), ("random", "01"))
        for model in ("svm", "shallow")
        for fold in folds
    ]
    assert {row["known_artists"] for row in rows if row["split"] != "random"} == {"0.0"}
    assert all(float(row["accuracy"]) == 1 for row in rows if row["model"] == "svm"), "such genres are easy"
    assert not (folder / "runs" / rows[1]["run"] / "training").exists(), "no network is kept"
    page = (folder / "index.html").read_text()
    assert rows[-1]["run"] in page
    plain = html.unescape(page).replace("\N{NARROW NO-BREAK SPACE}", "")
    assert "svm, split artist: 100% right on average of 2 runs, standard deviation 0.0 points" in plain
    noise = r"(within|by more than) noise: p [<=] \d\.\d+ by \d+ artists"
    assert re.search(rf"svm is \d+\.\d points above shallow \(split artist\), {noise}", plain)
    assert not re.search(r"(src|srcset|href)=\"(?!data:|results\.csv\")", page), "the page loads nothing"
    assert '<a href="results.csv">' in page

    kept = folder / "runs" / rows[0]["run"] / "row.json"
    before = kept.stat().st_mtime_ns
    assert run_experiments(settings).runs == len(rows)
    assert kept.stat().st_mtime_ns == before
    run_experiments(settings.model_copy(update={"only": rows[0]["run"]}))
    assert kept.stat().st_mtime_ns > before
    assert f"--only {rows[0]['run']}" in rows[0]["command"]
    with pytest.raises(BadInput, match=r"its runs were made with folds 2 \(now 3\)"):
        run_experiments(settings.model_copy(update={"folds": 3}))
