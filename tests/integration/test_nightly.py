"""Nights on demo music that grows: promoted, nothing new, refused, rolled back."""

import csv
import shutil
from pathlib import Path

import pytest

from flows.build_dataset import build_dataset
from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings, HostSettings
from flows.commands.model_comparison import compare_models
from flows.commands.model_versions import list_models, rollback_model, show_model
from flows.retrain_nightly import retrain_nightly
from flows.settings import BuildSettings, NightlySettings, TrainModelSettings
from flows.train_model import train_model
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.model_registry import champion, list_versions, promote, promotion_history, read_card
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

MUSIC = Path("tests/data/demo_music")
ONE_PROCESS = HostSettings(processes_per_host=1)
# A network costs minutes, and is compared and promoted the same way.
QUICK = TrainSettings(model=ModelSettings(name="features"))
COARSE = SpectrogramSettings(mel=MelSettings(hop=1024, bands=32))
NEXT = {"Rock": "Electronic", "Electronic": "Instrumental", "Instrumental": "Rock"}


def lay_out(source, *, wrong_labels, left_out=()):
    """Write FMA's tables: all but the broken tracks; labels to learn from may be those of another genre."""
    shutil.copytree(MUSIC / "fma_metadata", source / "fma_metadata", dirs_exist_ok=True)
    with (MUSIC / "fma_metadata/tracks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names = [".".join(pair) for pair in zip(rows[0], rows[1], strict=True)]
    genre, split = names.index("track.genre_top"), names.index("set.split")
    tracks = [row for row in rows[3:] if int(row[0]) <= 200048 and row[0] not in left_out]
    for row in tracks:
        if wrong_labels and row[split] != "test":
            row[genre] = NEXT[row[genre]]
    with (source / "fma_metadata/tracks.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows[:3] + tracks)


@pytest.fixture(scope="module")
def settings_of():
    """Return a function that makes settings; one Dask cluster serves all flows here, since starting costs most."""
    with open_cluster(ClusterSettings(workers=1)) as started:
        cluster = ClusterSettings(kind="scheduler", scheduler=started.client.scheduler.address)

        def settings_of(folder, **changes):
            store, models = f"{folder}/store", f"{folder}/models"
            build = BuildSettings(source=f"{folder}/music", store=store, spectrogram=COARSE, cluster=cluster)
            train = TrainModelSettings(
                store=store, models=models, training=QUICK, hosts=ONE_PROCESS, cluster=cluster
            )
            # Twelve tracks by four artists prove nothing: here a better mean is enough, as a show.
            lenient = {"margin": 0.0, "confidence": 0.5, "max_genre_f1_drop": 1.0}
            plain = {"build": build, "train": train, "start": "scratch"}
            return NightlySettings(**{**plain, **lenient, **changes})

        yield settings_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory, settings_of):
    """Make a champion that learned wrong labels, on a part of the music."""
    folder = tmp_path_factory.mktemp("nights")
    shutil.copytree(MUSIC / "fma_small", folder / "music/fma_small")
    lay_out(folder / "music", wrong_labels=True, left_out=("200003", "200017", "200035"))
    settings = settings_of(folder)
    build_dataset(settings.build)
    train_model(settings.train)
    return folder


def test_three_nights_and_a_rollback(folder, settings_of):
    models = f"{folder}/models"
    settings = settings_of(folder)
    first = champion(models)

    lay_out(folder / "music", wrong_labels=False)
    promoted = retrain_nightly(settings)
    assert promoted.outcome == "promoted", promoted.reason
    assert promoted.champion == promoted.version == champion(models) != first
    assert promotion_history(models)[-1].reason == promoted.reason
    assert "macro F1 0." in promoted.reason
    assert "on 12 test tracks by 4 artists" in promoted.reason

    skipped = retrain_nightly(settings)
    assert skipped.outcome == "skipped"
    assert skipped.reason.startswith(f"nothing changed: {promoted.version} was trained on the same tracks")
    assert len(list_versions(models)) == 2

    lay_out(folder / "music", wrong_labels=True)
    refused = retrain_nightly(settings)
    assert refused.outcome == "refused"
    assert refused.champion == champion(models) == promoted.version != refused.version
    assert refused.version in list_versions(models), "kept, not in service"
    assert f"new model: {refused.version} (kept, not in service)" in refused.lines()
    again = retrain_nightly(settings)
    assert again.outcome == "skipped", "what was refused is not trained again"
    assert refused.version in again.reason
    assert "was refused against the same champion by the same criteria" in again.reason
    compared_again = retrain_nightly(settings.model_copy(update={"confidence": 0.6}))
    assert (compared_again.outcome, compared_again.version) == ("refused", refused.version), "by other bounds"
    assert "wanted 60.0%" in compared_again.reason
    assert len(list_versions(models)) == 3, "nothing is trained for that"

    cards = {version: read_card(f"{models}/{version}") for version in list_versions(models)}
    assert len({card["data"] for card in cards.values()}) == 3
    assert {card["parent"] for card in cards.values()} == {None}

    table, lines = compare_models(models, "champion", refused.version)
    assert table.row_count == 6
    assert lines[0].startswith("12 test tracks by 4 artists; ")
    shown = show_model(models, promoted.version)
    assert shown[-1].endswith(promoted.reason)
    assert list(list_models(models).columns[0].cells) == ["", "*", ""]

    assert rollback_model(models) == f"{first} is in service again, in place of {promoted.version}"
    assert champion(models) == first
    promote(models, promoted.version)


def test_other_mel_settings_than_the_champions_are_refused_before_the_training(folder, settings_of, tmp_path):
    other_mel = SpectrogramSettings(mel=MelSettings(hop=2048))
    settings = settings_of(folder)
    build = settings.build.model_copy(update={"spectrogram": other_mel, "store": f"{tmp_path}/store"})
    train = settings.train.model_copy(update={"store": f"{tmp_path}/store"})
    before = list_versions(f"{folder}/models")
    with pytest.raises(
        BadInput, match=r"mel settings \w+; the champion \S+ was trained on \w+, so the two cannot"
    ):
        retrain_nightly(settings.model_copy(update={"build": build, "train": train}))
    assert list_versions(f"{folder}/models") == before
