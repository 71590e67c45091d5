"""The main job on real music, with real Dask processes and real DDP."""

import json
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.build_dataset import build_dataset
from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings
from flows.services.mlflow_log import EXPERIMENT_NAME
from flows.settings import BuildSettings, TrainModelSettings
from flows.train_model import prepare_run, train_model
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.model_registry import list_versions, read_card
from store.reader import open_snapshot
from tests.support.snapshots import publish_mels
from tests.support.tagging_model import copy_demo_music
from tests.support.toy_training import MEL, publish_toy_artists
from training.evaluation.settings import CalibrationSettings
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

MUSIC = "tests/data/demo_music"
QUICK = TrainSettings(epochs=2, crops_per_track=2, model=ModelSettings(name="shallow", width=8))


@pytest.fixture(scope="module")
def cluster():
    """One Dask cluster for all tests here: to start one takes longer than the build."""
    with open_cluster(ClusterSettings(workers=1)) as started:
        yield ClusterSettings(kind="scheduler", scheduler=started.client.scheduler.address)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cluster):
    """A store and a model made from the bundled music, once for all tests here."""
    folder = tmp_path_factory.mktemp("story")
    build_dataset(BuildSettings(source=MUSIC, store=f"{folder}/store", tracks_per_batch=8, cluster=cluster))
    train_model(settings_to_train(folder, cluster))
    return folder


def settings_to_train(folder, cluster):
    return TrainModelSettings(
        store=f"{folder}/store",
        models=f"{folder}/models",
        mlflow_uri=f"sqlite:///{folder}/mlflow.db",
        training=QUICK,
        cluster=cluster,
    )


def test_the_store_holds_every_track_or_says_why_not(folder):
    snapshot = open_snapshot(f"{folder}/store")
    assert len(snapshot.track_ids) == 48
    rejected = {
        row["track_id"]: row["reason"] for row in snapshot.tracks.to_pylist() if row["status"] == "rejected"
    }
    assert rejected == {"200049": "empty", "200050": "not-audio", "200051": "truncated"}
    assert all(np.isfinite(snapshot.mel(track_id)).all() for track_id in snapshot.track_ids)


def test_a_build_again_builds_nothing(folder, cluster):
    summary = build_dataset(BuildSettings(source=MUSIC, store=f"{folder}/store", cluster=cluster))
    assert (summary.processed, summary.tracks) == (0, 48)
    assert open_snapshot(f"{folder}/store").number == summary.snapshot


def test_new_files_are_added_and_old_ones_are_not_built_again(tmp_path, cluster):
    source = tmp_path / "music"
    source.mkdir()
    for number in (1, 2):
        shutil.copy(f"{MUSIC}/fma_small/200/20000{number}.mp3", source)
    settings = BuildSettings(source=str(source), store=f"{tmp_path}/store", cluster=cluster)
    assert build_dataset(settings).processed == 2
    shutil.copy(f"{MUSIC}/fma_small/200/200003.mp3", source)
    summary = build_dataset(settings)
    assert (summary.processed, summary.tracks, summary.snapshot) == (1, 3, 1)


def test_other_mel_settings_are_refused_by_name(folder):
    other = SpectrogramSettings(mel=MelSettings(hop=256))
    settings = BuildSettings(source=MUSIC, store=f"{folder}/store", spectrogram=other)
    with pytest.raises(BadInput, match=r"was built with hop 512 \(wanted 256\); use the settings it has"):
        build_dataset(settings)


def test_a_changed_file_is_built_again_and_a_missing_one_once_it_is_there(tmp_path, cluster):
    source = tmp_path / "music"
    shutil.copytree(f"{MUSIC}/fma_metadata", source / "fma_metadata")
    audio = source / "fma_small" / "200"
    audio.mkdir(parents=True)
    for number in range(1, 6):
        shutil.copyfile(f"{MUSIC}/fma_small/200/20000{number}.mp3", audio / f"20000{number}.mp3")
    settings = BuildSettings(
        source=str(source), store=f"{tmp_path}/store", max_reject_share=1.0, cluster=cluster
    )
    first = build_dataset(settings)
    assert (first.tracks, first.rejected, first.reasons) == (5, 46, {"missing": 46})
    assert len(first.rejects) == 20
    assert "  and 26 more" in first.lines()

    shutil.copyfile(f"{MUSIC}/fma_small/200/200006.mp3", audio / "200006.mp3")
    shutil.copyfile(f"{MUSIC}/fma_small/200/200002.mp3", audio / "200001.mp3")
    before = open_snapshot(settings.store).mel("200001")
    second = build_dataset(settings)
    assert second.tracks == 6
    snapshot = open_snapshot(settings.store)
    np.testing.assert_array_equal(snapshot.mel("200001"), snapshot.mel("200002"))
    assert snapshot.mel("200001").mean() != before.mean()


def test_rejects_may_be_tried_again_in_a_healthy_store(folder, cluster):
    settings = BuildSettings(source=MUSIC, store=f"{folder}/store", retry_rejects=True, cluster=cluster)
    summary = build_dataset(settings)
    assert (summary.processed, summary.tracks, len(summary.rejects)) == (3, 48, 3)


def test_another_source_is_refused(folder, tmp_path):
    shutil.copy(f"{MUSIC}/fma_small/200/200001.mp3", tmp_path)
    with pytest.raises(BadInput, match=r"holds spectrograms of \S+demo_music \(wanted .*name another store"):
        build_dataset(BuildSettings(source=str(tmp_path), store=f"{folder}/store"))


def test_the_same_tracks_stored_otherwise_are_another_training(tmp_path, cluster):
    root = publish_toy_artists(f"{tmp_path}/float16")
    float16 = open_snapshot(root)
    mels = {track_id: float16.mel(track_id) for track_id in float16.track_ids}
    publish_mels(f"{tmp_path}/uint8", mels, float16.tracks, MEL, encoding="uint8")
    names = {
        prepare_run(open_snapshot(f"{tmp_path}/{encoding}"), settings_to_train(tmp_path, cluster))[0]
        for encoding in ("float16", "uint8")
    }
    assert len(names) == 2


def test_too_many_rejects_stop_the_build_and_publish_nothing(tmp_path):
    names = {f"{song}.mp3": song for song in ("200001", "200002", "200003", "200050")}
    music = copy_demo_music(tmp_path / "music", names)
    settings = BuildSettings(source=str(music), store=f"{tmp_path}/store", max_reject_share=0.01)
    with pytest.raises(BadInput, match=r"1 of 4 tracks \(25%\) cannot be decoded; at most 1% may be"):
        build_dataset(settings)
    with pytest.raises(BadInput, match="holds no published spectrograms"):
        open_snapshot(settings.store)


def test_a_model_version_is_whole(folder):
    (version,) = [path for path in (folder / "models").iterdir() if (path / "model.json").exists()]
    card = json.loads((version / "model.json").read_text())
    assert card["genres"] == ["Electronic", "Instrumental", "Rock"]
    assert card["metrics"]["test"]["tracks"] == 12
    assert sum(map(sum, card["metrics"]["test"]["confusion"])) == 12
    report = {path.name for path in (version / "report").iterdir()}
    assert report >= {
        "metrics.json",
        "results.csv",
        "held_out_predictions.csv",
        "confusion_matrix.png",
        "learning_curves.png",
        "wrong_tracks.png",
        "report.html",
    }
    page = (version / "report" / "report.html").read_text()
    assert len(card["calibration"]["thresholds"]) == 3
    assert card["calibration_notes"][0] in unescape(page)
    assert card["tracks"] == {"training": 30, "validation": 6, "test": 12}
    assert (card["test_use"]["tracks"], card["test_use"]["earlier_versions"]) == (12, [])
    assert card["test_use"]["test_set"] in (version / "MODEL_CARD.md").read_text()
    held_out = pq.read_table(version / "report" / "held_out_predictions.parquet")
    assert sorted(held_out["split"].to_pylist()) == ["test"] * 12 + ["validation"] * 6
    assert "200050" in page, "rejected tracks are accounted for"
    assert 'src="http' not in page


def test_the_same_training_again_is_not_done_again(folder, cluster):
    summary = train_model(settings_to_train(folder, cluster))
    assert not summary.trained_now
    assert summary.is_champion

    from mlflow import MlflowClient  # only where a flow has silenced it

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT_NAME).experiment_id])
    assert (run.info.run_name, run.info.status) == (summary.version, "FINISHED")
    assert run.data.params["training.epochs"] == "2"
    assert len(client.get_metric_history(run.info.run_id, "validation_loss")) == 2
    assert run.data.metrics["test_accuracy"] == summary.accuracy
    assert "report/report.html" in {it.path for it in client.list_artifacts(run.info.run_id, "report")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"genres": ("Rock", "Polka")},
            "genre 'Polka': no training track has it; the snapshot has Electronic",
        ),
        ({"genres": ("Rock",)}, "1 genre to train on"),
        ({"store": "nowhere"}, "holds no published spectrograms"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(change, message, folder, cluster):
    settings = settings_to_train(folder, cluster).model_copy(update=change)
    with pytest.raises(BadInput, match=message):
        train_model(settings)


def test_deciding_otherwise_makes_a_new_version_of_the_same_weights(folder, cluster):
    calibration = CalibrationSettings(goal="precision", precision=0.8)
    settings = settings_to_train(folder, cluster).model_copy(
        update={"calibration": calibration, "promote": False}
    )
    (first,) = list_versions(settings.models)
    summary = train_model(settings)
    assert summary.version != first
    assert train_model(settings).version == summary.version
    old, new = (read_card(f"{settings.models}/{version}") for version in (first, summary.version))
    assert new["settings"]["calibration"]["goal"] == "precision"
    assert new["test_use"]["earlier_versions"] == [{"version": first, "tracks": 12}], (
        "the test tracks were touched again, and it shows"
    )
    assert new["run"] == old["run"]
    weights = [
        Path(settings.models, name, "weights.safetensors").read_bytes() for name in (first, new["version"])
    ]
    assert weights[0] == weights[1]
