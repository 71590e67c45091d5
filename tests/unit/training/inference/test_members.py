"""A version of a network and a feature machine, on audio files."""

from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch

from preprocessing.decode import decode
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.features.crop_features import compute_blocks, place_crops
from preprocessing.features.patches import extract_patches, fit_dictionary
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from store.errors import BadInput
from store.model_registry import publish_version
from tests.support.audio_formats import DEMO_TRACK
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.version_file import FEATURES_FILE, FeatureMachine, save_feature_machine
from training.fit.settings import TrainSettings
from training.inference.audio_files import predict_audio_files
from training.inference.members import combine_members
from training.inference.model_version import ModelIdentity, members_of
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import ModelSettings

MEL = MelSettings(hop=1024, bands=32)
SONGS = [DEMO_TRACK.parent / f"20000{number}.mp3" for number in (1, 2, 3)]
GENRES = ("Folk", "Rock")


@cache
def crops_of(path):
    mel_FM = log_mel(decode(str(path), sample_rate_hz=MEL.sample_rate_hz), MEL)
    return [mel_FM[start : start + frames] for start, frames in place_crops(len(mel_FM), MEL)]


@cache
def fit_features():
    """Fit a machine on the crops of three songs, each as a track of its own."""
    crops = [crop for path in SONGS for crop in crops_of(path)]
    dictionary = fit_dictionary(np.concatenate([extract_patches(crop)[::40] for crop in crops]), seed=0)
    describe = FeatureMachine(dictionary, None).describe_crop
    sizes = {name: len(values) for name, values in compute_blocks(crops[0], MEL).items()}
    target_TG = np.eye(2)[np.arange(len(crops)) % 2]
    machine, _ = fit_machine(
        np.stack([describe(crop, MEL) for crop in crops]), target_TG, np.arange(len(crops)), np.arange(len(crops)) // 2,
        sizes | {"patches": dictionary.features}, "top", seed=0,
    )  # fmt: skip
    return FeatureMachine(dictionary, machine)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    settings = ModelSettings(name="average", network_share=0.3, width=4)
    torch.manual_seed(0)
    files = {
        WEIGHTS_FILE: safetensors.torch.save(build_model(settings, len(GENRES), MEL.bands).state_dict()),
        FEATURES_FILE: save_feature_machine(fit_features(), MEL),
    }
    identity = ModelIdentity(
        genres=GENRES, mel=MEL, training=TrainSettings(model=settings), members=members_of(settings)
    )
    folder = tmp_path_factory.mktemp("models")
    return f"{folder}/{publish_version(str(folder), files, identity.model_dump(mode='json'))}", identity


def predict(paths, version, members, **settings):
    url, identity = version
    chosen = tuple(member for member in identity.members if member.kind in members)
    return predict_audio_files(
        paths, version_url=url, identity=identity.model_copy(update={"members": chosen}),
        windows=WindowSettings(), limits=LimitSettings(), **settings,
    )  # fmt: skip


def test_a_file_is_described_as_its_stored_spectrogram_is(version):
    features = fit_features()
    mean_TD = np.stack(
        [np.mean([features.describe_crop(crop, MEL) for crop in crops_of(path)], axis=0) for path in SONGS]
    )
    rounding = mean_TD.shape[1] * float(np.finfo(np.float32).eps)  # of a sum over all features
    found_TG = np.stack(predict(SONGS, version, ["features"]))
    np.testing.assert_allclose(found_TG, features.predict(mean_TD, "top"), rtol=0, atol=rounding)


def test_members_decide_together_on_any_device(version):
    network, features = (np.stack(predict(SONGS, version, [kind])) for kind in ("network", "features"))
    both = ["network", "features"]
    expected_TG = combine_members([network, features], [0.3, 0.7], "top")
    np.testing.assert_allclose(predict(SONGS, version, both), expected_TG, atol=1e-6)
    np.testing.assert_allclose(predict(SONGS, version, both, mel_on_device=True), expected_TG, atol=1e-6)


def test_onnxruntime_is_for_networks(version):
    with pytest.raises(BadInput, match="backend onnx: the model has no network"):
        predict(SONGS[:1], version, ["features"], backend="onnx")
