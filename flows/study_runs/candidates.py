"""The models of a study, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.study_runs.settings import ExperimentSettings
from store.errors import BadInput
from training.fit.settings import TrainSettings
from training.networks.settings import MOST_BLOCKS, ModelSettings, PretrainedSettings
from training.studies.classical import Balancing
from training.studies.trial import LIBROSA_SUFFIX

CLASSICAL = ("svm", "logistic", "boosting")
SEEDLESS = ("svm", "logistic")  # they draw nothing at random
FEATURES = "features"
SHORT = "short-chunk-resnet"
TORCHVISION = ("resnet18", "resnet34", "resnet50", "vgg16")
BLOCKS = tuple(f"blocks-{count}" for count in range(MOST_BLOCKS + 1))
# What differs from short-chunk-resnet, or from the network named, by the name of a variant.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "shallow": {"name": "shallow"},
    SHORT: {"name": SHORT},
    **{name: {"name": SHORT, "depth": depth} for depth, name in enumerate(BLOCKS)},
    "no-dropout": {"name": SHORT, "dropout": 0.0},
    "no-batch-norm": {"name": SHORT, "batch_norm": False},
    **{name: {"name": name} for name in TORCHVISION},
}
TRANSFERRED, FROZEN = "-transferred", "-frozen"  # torchvision's networks: trained further, or the head alone
MODELS = (
    *CLASSICAL,
    *(f"{name}{LIBROSA_SUFFIX}" for name in CLASSICAL),
    FEATURES,
    *VARIANTS,
    *(f"{name}{how}" for name in TORCHVISION for how in (TRANSFERRED, FROZEN)),
)


@dataclass(frozen=True)
class Candidate:
    """A model of a study: its name in the rows, its kind, and how it is trained."""

    label: str
    model: str
    training: TrainSettings
    balancing: Balancing = "none"

    @property
    def has_seed(self) -> bool:
        """Whether anything is drawn at random: if not, another seed is the same model."""
        is_seedless = self.model.removesuffix(LIBROSA_SUFFIX) in SEEDLESS
        return not is_seedless or self.balancing == "sampling"


def needs_features(model: str) -> bool:
    """Return whether a model is fitted on computed features, and no network on spectrograms."""
    return model == FEATURES or model.removesuffix(LIBROSA_SUFFIX) in CLASSICAL


def make_candidates(settings: ExperimentSettings) -> list[Candidate]:
    """Return the models that were asked for. Raises: BadInput if there is no such model, or its weights are missing."""
    return [make_candidate(settings, name) for name in settings.models]


def make_candidate(settings: ExperimentSettings, name: str) -> Candidate:
    """Return a model by its name. Raises: BadInput if there is no such model, or its weights are missing."""
    if name not in MODELS:
        raise BadInput(f"--models {name}: no such model; choose of {', '.join(MODELS)}")
    training = settings.training
    if needs_features(name):
        return Candidate(name, name, training)
    base = name.removesuffix(TRANSFERRED).removesuffix(FROZEN)
    model = ModelSettings.model_validate({**training.model.model_dump(), **VARIANTS[base]})
    start = PretrainedSettings()
    if base != name:
        start = _pretrained(settings, name)
    return Candidate(name, base, training.model_copy(update={"model": model, "pretrained": start}))


def _pretrained(settings: ExperimentSettings, name: str) -> PretrainedSettings:
    weights = settings.training.pretrained.weights
    if not weights:
        raise BadInput(f"--models {name}: needs --training.pretrained.weights, a state dict of torchvision's")
    frozen = settings.training.epochs if name.endswith(FROZEN) else 0
    return PretrainedSettings(weights=weights, frozen_epochs=frozen)
