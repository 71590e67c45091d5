"""The decisions of a nightly run before and after the training, on spectrograms made up."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from flows.checks import check_nightly
from flows.model_stages.training import plan_run
from flows.retrain_nightly import (
    compare_with_champion,
    configure_training,
    find_equivalent_version,
    find_reason_not_to_compare,
    promotion_criteria,
    warm_start,
)
from flows.settings import BuildSettings, NightlySettings, TrainModelSettings
from flows.train_model import TrainSummary, select_training_data
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from preprocessing.features.musicnn import MUSICNN_MEL
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import join, write_atomic
from store.fs.parquet import to_parquet
from store.model_registry import promote, publish_version, rollback
from tests.support.snapshots import publish_mels
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.fit.run import hash_training_data
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings
from training.selection.promotion import PromotionDecision, apply_decision

WORSE = PromotionDecision(False, "worse")
SUMMARY = {
    "report": "", "test_tracks": 3, "test_correct": 3, "accuracy": 1.0, "macro_f1": 1.0, "chance": 0.3,
    "accuracy_interval": "", "best_epoch": 1, "trained_now": True, "is_champion": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Publish a track of each of three genres in each split."""
    genres, splits = ("Folk", "Jazz", "Rock"), ("training", "validation", "test")
    rows = [
        {
            "track_id": f"{split}-{genre}",
            "split": split,
            "genre_top": genre,
            "genres": [genre],
            "artist": genre,
        }
        for split in splits
        for genre in genres
    ]
    mel = MelSettings()
    mels = {row["track_id"]: np.zeros((200, mel.bands), np.float32) for row in rows}
    catalogue = pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)
    return publish_mels(str(tmp_path_factory.mktemp("store")), mels, catalogue, mel)


@pytest.fixture
def settings_of(tmp_path, snapshot):
    """Return a function that makes the settings of a nightly run."""

    def settings_of(genres=(), **changes):
        train = TrainModelSettings(store=snapshot.root, models=f"{tmp_path}/models", genres=genres)
        build = BuildSettings(source="music", store=snapshot.root)
        return NightlySettings(**{"build": build, "train": train, **changes})

    return settings_of


def publish(snapshot, settings, **changes):
    """Publish what a training on the snapshot would: its card, and what it said of the test tracks."""
    train_settings = settings.train
    genres, tracks = select_training_data(snapshot, train_settings)
    run = plan_run(snapshot, genres, tracks, train_settings.training)
    card = {
        "genres": genres, "mel": snapshot.mel_settings, "training": train_settings.training.model_dump(mode="json"),
        "data": hash_training_data(run, tracks), "settings": train_settings.model_dump(mode="json"), **changes,
    }  # fmt: skip
    predictions = [
        {**row, "artist": "a", "title": "t", "truth": row["target"], "probabilities": row["target"]}
        for row in tracks.to_pylist()
    ]
    table = pa.Table.from_pylist(predictions, schema=HELD_OUT_PREDICTIONS_SCHEMA)
    return publish_version(
        train_settings.models, {"report/held_out_predictions.parquet": to_parquet(table)}, card
    )


def test_a_model_that_forgot_a_genre_of_the_champions_is_not_promoted(snapshot, settings_of):
    champion = publish(snapshot, settings_of())
    settings = settings_of(genres=("Jazz", "Rock"))
    version = publish(snapshot, settings)
    trained = TrainSummary(version=version, url=join(settings.train.models, version), **SUMMARY)
    verdict, left_out = compare_with_champion(trained, snapshot, champion, settings)
    assert not verdict.is_better
    assert verdict.reason.startswith("lacks Folk, which the champion predicts")
    assert left_out == 1


def test_what_is_not_alike_is_trained(snapshot, settings_of):
    settings = settings_of()
    models = settings.train.models
    assert find_equivalent_version(snapshot, settings.train) is None
    version = publish(snapshot, settings)
    assert find_equivalent_version(snapshot, settings.train) is None, "neither compared nor in service"
    apply_decision(models, version, WORSE, promotion_criteria(settings, None))
    assert find_equivalent_version(snapshot, settings.train) == version
    write_atomic(join(models, "99-damaged", "model.json"), b"[]")
    write_atomic(join(models, "98-other", "model.json"), b"{}")
    assert find_equivalent_version(snapshot, settings.train) == version, "others' damage is no obstacle"
    calibrated = {"calibration": {"fit_temperature": False}}
    for changes in ({"training": {"seed": 5}}, calibrated, {"genres": ["Jazz", "Rock"]}):
        other = TrainModelSettings.model_validate({**settings.train.model_dump(), **changes})
        assert find_equivalent_version(snapshot, other) is None, changes


def test_musicnn_is_another_model_but_another_path_of_its_wheel_is_not(snapshot, settings_of):
    def with_wheel(path):
        training = TrainSettings(model=ModelSettings(name="features", musicnn=path))
        train = TrainModelSettings(store=snapshot.root, models=settings_of().train.models, training=training)
        return settings_of(train=train)

    settings = with_wheel("here.whl")
    version = publish(snapshot, settings)
    apply_decision(settings.train.models, version, WORSE, promotion_criteria(settings, None))
    assert find_equivalent_version(snapshot, with_wheel("there.whl").train) == version
    assert find_equivalent_version(snapshot, with_wheel("").train) is None


def test_musicnn_that_cannot_be_used_ends_the_night_before_it_builds(tmp_path):
    def night(mel):
        training = TrainSettings(model=ModelSettings(musicnn=f"{tmp_path}/missing.whl"))
        build = BuildSettings(source=str(tmp_path), spectrogram=SpectrogramSettings(mel=mel))
        return NightlySettings(build=build, train=TrainModelSettings(training=training))

    for mel, message in ((MelSettings(), "the spectrograms are of 22050 Hz"), (MUSICNN_MEL, "no file")):
        with pytest.raises(BadInput, match=message):
            check_nightly(night(mel))


def test_looking_for_what_is_alike_writes_nothing(snapshot, settings_of, tmp_path):
    settings = settings_of()
    apply_decision(
        settings.train.models, publish(snapshot, settings), WORSE, promotion_criteria(settings, None)
    )
    before = sorted(tmp_path.rglob("*"))
    assert find_equivalent_version(snapshot, settings.train) is not None
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_changed_is_said_only_where_champion_and_bounds_are_the_same(snapshot, settings_of):
    settings = settings_of()
    models = settings.train.models
    champion, version = publish(snapshot, settings), publish(snapshot, settings)
    promote(models, champion)
    apply_decision(models, version, WORSE, promotion_criteria(settings, champion))
    reason = find_reason_not_to_compare(version, champion, settings)
    assert reason.startswith(
        f"nothing changed: {version} was trained on the same tracks with the same settings"
    )
    assert reason.endswith("was refused against the same champion by the same criteria")
    assert find_reason_not_to_compare(version, "another", settings) is None
    for change in ({"margin": 0.0}, {"confidence": 0.9}, {"max_genre_f1_drop": 0.1}):
        assert find_reason_not_to_compare(version, champion, settings_of(**change)) is None
    promote(models, version)
    assert find_reason_not_to_compare(version, version, settings).endswith("and is in service")
    rollback(models)
    reason = find_reason_not_to_compare(version, champion, settings_of(margin=0.0))
    assert reason.endswith(
        f"is no longer in service; to promote it again, `spectrogram-one models promote {version}`"
    )


def test_a_champion_of_another_network_is_reported_with_the_nights_way_out(snapshot, settings_of):
    old = TrainSettings.model_validate({"model": {"name": "shallow", "width": 8}})
    champion = publish(snapshot, settings_of(), training=old.model_dump(mode="json"))
    settings = settings_of()
    with pytest.raises(
        BadInput, match=r"the model is a .*, the run trains .*random weights: --start scratch$"
    ):
        configure_training(settings, snapshot, champion)
    assert (
        configure_training(settings_of(start="scratch"), snapshot, champion).training.pretrained.weights == ""
    )


def test_the_champions_trunk_can_be_frozen_at_first(snapshot, settings_of):
    settings = settings_of(frozen_epochs=3)
    assert configure_training(settings, snapshot, None).training.pretrained.frozen_epochs == 0, (
        "nothing to freeze"
    )
    with pytest.raises(ValidationError, match="--frozen-epochs 3 needs --start champion"):
        settings_of(frozen_epochs=3, start="scratch")
    for frozen in (3, 0):
        started = warm_start(settings.train.training, "/models/V", frozen).pretrained
        assert (started.weights, started.frozen_epochs) == ("/models/V", frozen)
