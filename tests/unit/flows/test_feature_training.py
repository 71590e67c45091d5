"""Training, choice and comparison of models without a network, in this process, on a store of two genres."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings
from flows.commands.model_export import export_model
from flows.cross_validate import cross_validate
from flows.model_stages import features
from flows.model_stages.choice import apply_choice
from flows.model_stages.training import predict_on_workers
from flows.settings import CrossValidationSettings, TrainModelSettings
from flows.train_model import train_model
from preprocessing.features.musicnn import MUSICNN_MEL
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.parquet import read_table
from store.model_registry import read_card
from store.reader import open_snapshot
from tests.support.musicnn_variables import random_musicnn
from tests.support.toy_training import SETTINGS, publish_toy_artists
from training.evaluation.held_out_predictions import to_matrix
from training.feature_machine.version_file import load_feature_machine
from training.inference.model_version import read_identity
from training.networks.settings import ModelSettings, PretrainedSettings
from training.selection.model_choice import only_candidate

CLUSTER = ClusterSettings(workers=1)  # one batch: it is not started


def settings_of(folder, name="features", **changes):
    training = SETTINGS.model_copy(update={"model": ModelSettings(name=name), **changes})
    return TrainModelSettings(
        store=f"{folder}/store", models=f"{folder}/models", training=training, cluster=CLUSTER
    )


def predict_here(rows, snapshot_url, version_url, identity):
    with open_cluster(CLUSTER) as cluster:
        return predict_on_workers(cluster, rows, snapshot_url, version_url, identity, "Predicting")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    publish_toy_artists(f"{folder}/store")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    return train_model(settings_of(folder))


def test_a_feature_machine_is_a_version_like_any_other(folder, trained):
    version, card = Path(folder, "models", trained.version), read_card(trained.url)
    assert (version / "features.safetensors").exists()
    assert not (version / "weights.safetensors").exists()
    assert [member["kind"] for member in card["members"]] == ["features"]
    assert (trained.test_tracks, trained.test_correct, trained.model) == (4, 4, "features")
    assert card["baseline"]["tracks"] == 4
    first = trained.lines()[0]
    assert ("no better than its baseline" in first) == (card["baseline"]["correct"] == 4)
    assert ("No better than its baseline" in (version / "report/report.html").read_text()) == (
        card["baseline"]["correct"] == 4
    )
    assert not train_model(settings_of(folder)).trained_now


def test_what_it_predicts_again_is_what_it_was_tested_with(trained, folder):
    """Of the validation tracks the version remembers the truth, so its held-out predictions are of other machines."""
    held_out = read_table(f"{trained.url}/report/held_out_predictions.parquet")
    snapshot = open_snapshot(f"{folder}/store")
    rows = held_out.drop_columns("probabilities")
    again = predict_here(rows, snapshot.url, trained.url, read_identity(trained.url))
    is_test = pc.equal(held_out["split"], "test")
    tested, found = (to_matrix(table.filter(is_test), "probabilities") for table in (held_out, again))
    assert tested.tolist() == found.tolist()
    assert to_matrix(held_out, "probabilities").tolist() != to_matrix(again, "probabilities").tolist()


def test_musicnn_is_a_block_of_the_features_and_travels_with_the_version(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "read_musicnn", lambda url: random_musicnn())
    publish_toy_artists(f"{tmp_path}/store", mel=MUSICNN_MEL)
    model = ModelSettings(name="features", musicnn="musicnn.whl")
    trained = train_model(
        settings_of(tmp_path).model_copy(update={"training": SETTINGS.model_copy(update={"model": model})})
    )
    assert trained.test_correct == 4
    identity = read_identity(trained.url)
    machine = load_feature_machine(trained.url, identity.mel, 2)
    crop = np.zeros((187, 96), np.float32)
    with_it, without = (
        replace(machine, musicnn=musicnn).describe_crop(crop, MUSICNN_MEL)
        for musicnn in (machine.musicnn, None)
    )
    assert len(with_it) - len(without) == len(random_musicnn().embed(crop))
    card = Path(trained.url, "MODEL_CARD.md").read_text()
    assert "a kernel machine on six blocks of features and the embedding of musicnn. " in card
    assert "musicnn was trained on tags of the Million Song Dataset" in card
    assert "Started from" not in card, "the weights of a network"

    held_out = read_table(f"{trained.url}/report/held_out_predictions.parquet")
    tested = held_out.filter(pc.equal(held_out["split"], "test"))
    again = predict_here(tested.drop_columns("probabilities"), f"{tmp_path}/store", trained.url, identity)
    assert to_matrix(again, "probabilities").tolist() == to_matrix(tested, "probabilities").tolist()


def test_musicnn_on_other_spectrograms_is_refused_before_anything_is_trained(folder, tmp_path):
    training = SETTINGS.model_copy(update={"model": ModelSettings(name="average", musicnn="musicnn.whl")})
    settings = settings_of(folder).model_copy(update={"training": training, "models": str(tmp_path)})
    with pytest.raises(
        BadInput, match=r"the spectrograms are of 8000 Hz.*; build a store with --spectrogram"
    ):
        train_model(settings)
    assert list(tmp_path.iterdir()) == []


def test_spectrograms_of_other_mel_settings_are_refused(trained, folder):
    identity = read_identity(trained.url).model_copy(update={"mel": MelSettings()})
    rows = read_table(f"{trained.url}/report/held_out_predictions.parquet").drop_columns("probabilities")
    with pytest.raises(BadInput, match="build a store with its settings"):
        predict_here(rows, f"{folder}/store", trained.url, identity)


def test_it_has_nothing_to_export_and_no_weights_to_start_from(trained, folder):
    with pytest.raises(BadInput, match="the model has no network to export"):
        export_model(f"{folder}/models", trained.version, f"{folder}/model.onnx")
    start = PretrainedSettings(weights=trained.url)
    with pytest.raises(BadInput, match="the model has no network to start from"):
        train_model(settings_of(folder, "short-chunk-resnet", pretrained=start))


def test_too_few_artists_for_three_folds_are_named_and_the_features_chosen(tmp_path, capfd):
    publish_toy_artists(f"{tmp_path}/store", ("training", "validation", "test"))
    trained = train_model(settings_of(tmp_path, "auto"))
    assert trained.model == "features"
    printed = capfd.readouterr().err
    assert "the genre with fewest artists allows 2 folds to choose a model by, not 3" in printed
    assert "fold 1: no network is tried: genre 'high' has 1 artist" in printed
    choice = read_card(trained.url)["choice"]
    assert choice["tracks"] == 8, "no test track takes part"
    assert [each["name"] for each in choice["scores"]] == ["features", "svm"]
    page = Path(trained.report).read_text()
    assert "Choice of the model" in page
    card = Path(trained.url, "MODEL_CARD.md").read_text()
    assert "| svm (baseline) |" in card
    assert not train_model(settings_of(tmp_path, "auto")).trained_now


def test_a_genre_of_one_artist_leaves_no_choice(tmp_path):
    publish_toy_artists(f"{tmp_path}/store", ("training", "test"))
    store = open_snapshot(f"{tmp_path}/store")
    assert len(store.track_ids) == 8
    with pytest.raises(BadInput, match="no validation track"):
        train_model(settings_of(tmp_path, "auto"))


def test_a_choice_of_features_needs_no_pretrained_weights():
    training = SETTINGS.model_copy(update={"pretrained": PretrainedSettings(weights="resnet18.pth")})
    chosen = apply_choice(training, only_candidate("features", "a reason"))
    assert (chosen.model.name, chosen.pretrained.weights) == ("features", "")
    both = apply_choice(training, only_candidate("average", "a reason", share=0.3))
    assert (both.model.network_share, both.pretrained.weights) == (0.3, "resnet18.pth")


def test_cross_validation_of_features(folder, tmp_path):
    summary = cross_validate(
        CrossValidationSettings(
            store=f"{folder}/store", results=str(tmp_path), folds=2, validation_share=0.4,
            training=settings_of(folder).training, cluster=CLUSTER,
        )
    )  # fmt: skip
    assert [each.model for each in summary.scores] == ["features", "svm"]
    assert summary.scores[0].accuracy > 0.8
    assert json.loads(Path(summary.results, "summary.json").read_text())["tracks"] == 16
