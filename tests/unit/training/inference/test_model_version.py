from pathlib import Path

from preprocessing.mel.settings import MelSettings
from store.model_registry import publish_version
from training.evaluation.calibration import Calibration
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity, read_identity
from training.networks.settings import ModelSettings

SONG = Path("tests/data/demo_music/fma_small/200/200033.mp3")
GENRES = ("Black-Metal", "Metal", "Rock")
TREE = {"Black-Metal": "Metal", "Metal": "Rock"}


def identity(target="multi", **calibration) -> ModelIdentity:
    model = ModelSettings(name="shallow", width=4)
    training = TrainSettings(target=target, model=model, validation_crops=2)
    mel = MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=16)
    return ModelIdentity(genres=GENRES, mel=mel, training=training, calibration=Calibration(**calibration))


def test_a_model_from_before_decisions_is_as_it_was(tmp_path):
    card = identity().model_dump(mode="json", exclude={"calibration"})
    version = publish_version(str(tmp_path), {}, card)
    assert read_identity(f"{tmp_path}/{version}") == identity()
