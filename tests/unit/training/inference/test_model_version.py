import pytest

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.model_registry import publish_version
from training.evaluation.calibration import Calibration
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity, load_model, members_of, read_identity
from training.networks.network import WEIGHTS_FILE
from training.networks.settings import ModelSettings

GENRES = ("Black-Metal", "Metal", "Rock")
IDENTITY = ModelIdentity(
    genres=GENRES,
    mel=MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=16),
    training=TrainSettings(target="multi", model=ModelSettings(name="shallow", width=4), validation_crops=2),
    calibration=Calibration(thresholds=(0.1, 0.2, 0.3), parents={"Black-Metal": "Metal", "Metal": "Rock"}),
)


def test_an_identity_survives_its_file(tmp_path):
    version = publish_version(str(tmp_path), {}, {**IDENTITY.model_dump(mode="json"), "trained": "today"})
    assert read_identity(f"{tmp_path}/{version}") == IDENTITY


def test_a_card_of_another_program_is_bad_input(tmp_path):
    version = publish_version(str(tmp_path), {}, {"genres": ["Rock"]})
    with pytest.raises(BadInput, match=r"model\.json: mel: Field required; train the model again"):
        read_identity(f"{tmp_path}/{version}")


@pytest.mark.parametrize(
    ("member", "remedy"),
    [
        ({"kind": "musicnn", "extra": "musicnn"}, r"pip install 'spectrogram-one\[musicnn\]'"),
        ({"kind": "oracle"}, "use the release of this program that it was trained with"),
    ],
)
def test_a_member_that_is_not_installed_is_named_with_what_to_do(tmp_path, member, remedy):
    card = {**IDENTITY.model_dump(mode="json"), "members": [member]}
    version = publish_version(str(tmp_path), {}, card)
    with pytest.raises(
        BadInput, match=f"needs the member '{member['kind']}', which is not installed here; {remedy}"
    ):
        read_identity(f"{tmp_path}/{version}")


def test_an_average_has_two_members_that_share_the_decision():
    settings = ModelSettings(name="average", network_share=0.25)
    assert [(each.kind, each.weight) for each in members_of(settings)] == [
        ("network", 0.25),
        ("features", 0.75),
    ]
    assert [(each.kind, each.weight) for each in members_of(ModelSettings(name="features"))] == [
        ("features", 1.0)
    ]
    assert members_of(ModelSettings()) == IDENTITY.members


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "the weights are missing"), ({WEIGHTS_FILE: b"truncated"}, "not the weights of this network")],
)
def test_missing_or_truncated_weights_are_bad_input(tmp_path, files, message):
    version = publish_version(str(tmp_path), files, IDENTITY.model_dump(mode="json"))
    with pytest.raises(BadInput, match=f"{message}.*; train the model again"):
        load_model(f"{tmp_path}/{version}", IDENTITY)
