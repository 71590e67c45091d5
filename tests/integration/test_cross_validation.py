"""Cross-validation as a flow: real Dask workers, real torchrun, a store of two genres by eight artists."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.cluster.settings import ClusterSettings, HostSettings
from flows.cross_validate import cross_validate
from flows.settings import CrossValidationSettings
from tests.support.toy_training import publish_toy_artists
from training.fit.settings import AugmentSettings, TrainSettings
from training.networks.settings import ModelSettings

TRAINING = TrainSettings(
    crop_s=0.5,
    crops_per_track=4,
    batch_size=16,
    micro_batch_size=8,
    epochs=2,
    validation_crops=2,
    model=ModelSettings(name="shallow", width=4, dropout=0.1),
    augment=AugmentSettings(masks=0),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return publish_toy_artists(str(tmp_path_factory.mktemp("store")))


def test_each_fold_is_trained_once_and_every_track_predicted(tmp_path, store, capfd):
    settings = CrossValidationSettings(
        store=store,
        results=str(tmp_path),
        folds=2,
        validation_share=0.4,
        training=TRAINING,
        hosts=HostSettings(processes_per_host=1),
        cluster=ClusterSettings(workers=1),
    )
    summary = cross_validate(settings)

    folder = Path(summary.results)
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["model"], row["fold"], row["tracks"]) for row in rows] == [
        ("network", "0", "8"),
        ("network", "1", "8"),
        ("svm", "0", "8"),
        ("svm", "1", "8"),
    ]
    answers = pq.read_table(folder / "fold_predictions.parquet").to_pylist()
    for model in ("network", "svm"):
        answered = [row["track_id"] for row in answers if row["model"] == model]
        assert sorted(answered) == [f"{number:02d}" for number in range(16)]
    network, svm = summary.scores
    assert svm.accuracy > 0.8, "the baseline tells such genres apart"
    assert network.accuracy == pytest.approx(np.mean([float(row["accuracy"]) for row in rows[:2]]), abs=1e-5)
    assert f"network  accuracy {network.accuracy:.3f} ± {network.accuracy_std:.3f}" in summary.lines()[1]

    runs = sorted(tmp_path.glob("runs/*/history.json"))
    assert [len(json.loads(run.read_bytes())["epochs"]) for run in runs] == [2, 2]
    written = [run.stat().st_mtime_ns for run in runs]
    capfd.readouterr()
    again = cross_validate(settings.model_copy(update={"baseline": False}))
    assert again.scores == [network]
    assert [run.stat().st_mtime_ns for run in runs] == written, "a finished fold was done again"
    assert "fold 1 of 2, seed 0" in capfd.readouterr().err
