from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from preprocessing.build import Track
from preprocessing.mel import MelSettings
from preprocessing.spectrogram import ExcerptSettings, LimitSettings
from store.models import publish_version
from training.decision import NEVER, Decision
from training.model import ModelSettings, build_model
from training.predict import ModelIdentity, decide, listen, read_identity
from training.run import WEIGHTS, TrainSettings

SONG = Path("tests/data/demo_music/fma_small/200/200033.mp3")
GENRES = ("Black-Metal", "Metal", "Rock")
TREE = {"Black-Metal": "Metal", "Metal": "Rock"}


def identity(target="multi", **decision) -> ModelIdentity:
    model = ModelSettings(name="shallow", width=4)
    training = TrainSettings(target=target, model=model, validation_crops=2)
    mel = MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=16)
    return ModelIdentity(genres=GENRES, mel=mel, training=training, decision=Decision(**decision))


def hear_song(folder: Path, who: ModelIdentity) -> dict:
    torch.manual_seed(1)
    network = build_model(who.training.model, len(GENRES), who.mel.bands)
    files = {WEIGHTS: safetensors.torch.save(network.state_dict())}
    version = publish_version(str(folder), files, who.model_dump(mode="json"))
    (row,) = listen(
        [Track("song", str(SONG))],
        version_url=f"{folder}/{version}",
        identity=read_identity(f"{folder}/{version}"),
        excerpt=ExcerptSettings(),
        limits=LimitSettings(),
        skip_tagged=False,
    ).to_pylist()
    return row


@pytest.mark.parametrize("target", ["top", "multi"])
def test_listening_calibrates_closes_and_tells_by_thresholds(tmp_path, target):
    raw = hear_song(tmp_path, identity(target))
    changed = Decision(temperature=0.2, thresholds=(0.0, NEVER, NEVER), parents=TREE)
    row = hear_song(tmp_path, identity(target, **changed.model_dump()))
    expected = changed.calibrate([raw["probabilities"]], GENRES, target)[0]
    assert np.abs(expected - raw["probabilities"]).max() > 0.01
    np.testing.assert_allclose(row["probabilities"], expected, atol=1e-4)
    assert row["confidence"] == pytest.approx(expected.max(), abs=1e-4)
    told = [GENRES[expected.argmax()]] if target == "top" else ["Rock", "Metal", "Black-Metal"]
    assert sorted(row["genres"]) == sorted(told)


def test_a_model_from_before_decisions_is_as_it_was(tmp_path):
    card = identity().model_dump(mode="json", exclude={"decision"})
    version = publish_version(str(tmp_path), {}, card)
    assert read_identity(f"{tmp_path}/{version}") == identity()


def test_of_equally_likely_genres_the_wider_comes_first():
    assert decide(np.array([0.9, 0.9, 0.9]), identity(parents=TREE)) == ["Rock", "Metal", "Black-Metal"]
    assert decide(np.array([0.9, 0.9, 0.95]), identity()) == ["Rock", "Black-Metal", "Metal"]


def test_too_unlikely_is_nothing_told():
    assert decide(np.array([0.4, 0.4, 0.4]), identity()) == []
    assert decide(np.array([0.4, 0.4, 0.4]), identity(thresholds=(0.5, 0.5, 0.3))) == ["Rock"]
