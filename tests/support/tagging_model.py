"""A small model and a folder of music to tag, for tests."""

import shutil
from pathlib import Path

import safetensors.torch
import torch

from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.mel.settings import MelSettings
from store.model_registry import promote, publish_version
from store.tags.genre_map import GenreMap
from store.tags.policy import TagPolicy
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity, read_identity
from training.inference.selection_fitting import fit_selection_rules
from training.inference.settings import GenreSelectionSettings
from training.inference.tag_task import InferenceConfig
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import ModelSettings

DEMO = Path("tests/data/demo_music/fma_small/200").absolute()
GENRES = ("Electronic", "Rock")


def publish_small_model(root: str) -> str:
    """Publish and promote a small network with random weights; return the URL of its version."""
    torch.manual_seed(1)
    training = TrainSettings(model=ModelSettings(name="shallow", width=4), validation_crops=2)
    identity = ModelIdentity(
        genres=GENRES,
        mel=MelSettings(sample_rate_hz=8_000, window=256, hop=256, bands=16),
        training=training,
    )
    network = build_model(training.model, len(GENRES), identity.mel.bands)
    files = {WEIGHTS_FILE: safetensors.torch.save(network.state_dict())}
    version = publish_version(root, files, identity.model_dump(mode="json"))
    promote(root, version)
    return f"{root}/{version}"


def small_inference_config(version_url: str) -> InferenceConfig:
    """Return a configuration that predicts four seconds of each track and fills missing genres."""
    identity = read_identity(version_url)
    return InferenceConfig(
        version_url=version_url,
        identity=identity,
        selection_rules=fit_selection_rules(identity, version_url, GenreSelectionSettings()),
        policy=TagPolicy(),
        genre_map=GenreMap(),
        windows=WindowSettings(count=1, length_s=4.0),
        limits=LimitSettings(),
        files_per_group=2,
    )


def copy_demo_music(folder: Path, names: dict[str, str]) -> Path:
    """Copy excerpts of the demo music to `folder` under other names."""
    for name, song in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DEMO / f"{song}.mp3", folder / name)
    return folder
