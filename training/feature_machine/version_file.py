"""A feature machine as a file of a model version: arrays in safetensors, settings in its JSON header."""

import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from preprocessing.features.crop_features import compute_blocks, compute_patch_block
from preprocessing.features.musicnn import Musicnn
from preprocessing.features.musicnn_weights import NOTICE
from preprocessing.features.patches import PatchDictionary
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import join, read_bytes, write_atomic
from store.fs.parquet import read_table, to_parquet
from training.evaluation.calibration import Target
from training.feature_machine.kernel_machine import KernelMachine, LinearHead
from training.feature_machine.score_calibration import ScoreCalibration
from training.feature_machine.standardisation import Standardisation

FEATURES_FILE = "features.safetensors"  # in the folder of a run or of a model version
ACROSS_FOLDS_FILE = "across_folds.parquet"  # beside it, of a run
RECIPE = "1"  # of the features: another number where they are computed otherwise
MUSICNN_RECIPE = f"{RECIPE}-musicnn"  # of those that include musicnn's embedding
MUSICNN_PREFIX = "musicnn."  # of its arrays in the file


@dataclass(frozen=True)
class FeatureMachine:
    """A dictionary of patches, the kernel machine on all blocks of features, and musicnn if it computes one of them."""

    dictionary: PatchDictionary
    machine: KernelMachine
    musicnn: Musicnn | None = None

    @property
    def recipe(self) -> str:
        """The recipe of the features."""
        return recipe_of(self.musicnn)

    def describe_crop(self, mel_FM: NDArray[np.float32], mel: MelSettings) -> NDArray[np.float32]:
        """Return the features of a crop; those of a track are their mean. Shapes: (F, M) in dB -> (D,)."""
        blocks = compute_blocks(mel_FM, mel, self.musicnn)
        return np.concatenate([*blocks.values(), compute_patch_block(mel_FM, self.dictionary)])

    def predict(self, features_TD: NDArray[np.float32], target: Target) -> NDArray[np.float64]:
        """Return the probabilities of tracks. Shapes: (T, D) -> (T, G)."""
        return self.machine.predict(features_TD, target)


def recipe_of(musicnn: Musicnn | None) -> str:
    """Return the recipe of features with musicnn's embedding, or without."""
    return RECIPE if musicnn is None else MUSICNN_RECIPE


@dataclass(frozen=True)
class FittedFeatures:
    """A feature machine, and for each track it was fitted on the probabilities by one that was not."""

    features: FeatureMachine
    track_ids: tuple[str, ...]
    across_folds_TG: NDArray[np.float64]


def save_feature_machine(features: FeatureMachine, mel: MelSettings) -> bytes:
    """Return the content of the file."""
    dictionary, machine = features.dictionary, features.machine
    arrays = {
        "patch_mean": dictionary.mean_V,
        "patch_whitening": dictionary.whitening_VC,
        "patch_atoms": dictionary.atoms_AC,
        "log_offset": machine.standardisation.log_offset_D,
        "mean": machine.standardisation.mean_D,
        "scale": machine.standardisation.scale_D,
        "weight": machine.standardisation.weight_D,
        "landmarks": machine.landmarks_ND,
        "head_weights": machine.head.weights_NG,
        "head_bias": machine.head.bias_G,
        "calibration_offset": machine.calibration.offset_G,
    }
    header = {
        "settings": json.dumps(
            {"recipe": features.recipe, "mel": mel.settings_hash, "slope": machine.calibration.slope}
        )
    }
    if features.musicnn is not None:
        arrays |= {f"{MUSICNN_PREFIX}{name}": array for name, array in features.musicnn.arrays().items()}
        header["notice"] = NOTICE
    return safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, header
    )


@lru_cache(maxsize=4)
def load_feature_machine(folder_url: str, mel: MelSettings, genres: int) -> FeatureMachine:
    """Load the feature machine that lies in a folder.

    Raises: BadInput if the file is missing, truncated, of another program, of other genres or of other mel settings.
    """
    url = join(folder_url, FEATURES_FILE)
    try:
        data = read_bytes(url)
        arrays, settings = safetensors.numpy.load(data), _read_settings(data)
        features = _assemble(arrays, settings)
    except FileNotFoundError:
        raise BadInput(f"{url}: the feature machine is missing; train the model again") from None
    except (safetensors.SafetensorError, LookupError, ValueError, TypeError) as why:
        reason = next(iter(str(why).splitlines()), type(why).__name__)
        raise BadInput(f"{url}: not a feature machine ({reason}); train the model again") from None
    if settings["recipe"] != features.recipe:
        raise BadInput(
            f"{url}: features of recipe {settings['recipe']}, this program computes recipe {features.recipe}; "
            "train again"
        )
    if settings["mel"] != mel.settings_hash:
        raise BadInput(
            f"{url}: fitted on mel settings {settings['mel']}, the model has {mel.settings_hash}; train again"
        )
    _check_shapes(url, features, genres)
    return features


def _read_settings(data: bytes) -> dict[str, str]:
    """Read the settings in the header: safetensors' own reader of bytes leaves them out."""
    length = int.from_bytes(data[:8], "little")
    settings: dict[str, str] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["settings"])
    return {"recipe": settings["recipe"], "mel": settings["mel"], "slope": settings["slope"]}


def _assemble(arrays: dict[str, NDArray[np.float32]], settings: dict[str, str]) -> FeatureMachine:
    dictionary = PatchDictionary(arrays["patch_mean"], arrays["patch_whitening"], arrays["patch_atoms"])
    standardisation = Standardisation(arrays["log_offset"], arrays["mean"], arrays["scale"], arrays["weight"])
    head = LinearHead(arrays["head_weights"].astype(np.float64), arrays["head_bias"].astype(np.float64))
    calibration = ScoreCalibration(float(settings["slope"]), arrays["calibration_offset"].astype(np.float64))
    own = {
        name.removeprefix(MUSICNN_PREFIX): array
        for name, array in arrays.items()
        if name.startswith(MUSICNN_PREFIX)
    }
    return FeatureMachine(
        dictionary,
        KernelMachine(standardisation, arrays["landmarks"], head, calibration),
        Musicnn.from_arrays(own) if settings["recipe"] == MUSICNN_RECIPE else None,
    )


def _check_shapes(url: str, features: FeatureMachine, genres: int) -> None:
    machine = features.machine
    landmarks, size = machine.landmarks_ND.shape
    found = (machine.standardisation.mean_D.shape, machine.head.weights_NG.shape)
    if found != ((size,), (landmarks, genres)):
        raise BadInput(
            f"{url}: arrays of shapes {found}; want {((size,), (landmarks, genres))}; train the model again"
        )


def write_features(folder_url: str, fitted: FittedFeatures, mel: MelSettings) -> None:
    """Write a feature machine, and its predictions across folds, into the folder of a run; the machine last."""
    table = pa.table(
        {
            "track_id": pa.array(fitted.track_ids, pa.string()),
            "probabilities": pa.array(fitted.across_folds_TG.tolist(), pa.list_(pa.float64())),
        }
    )
    write_atomic(join(folder_url, ACROSS_FOLDS_FILE), to_parquet(table))
    write_atomic(join(folder_url, FEATURES_FILE), save_feature_machine(fitted.features, mel))


def read_across_folds(folder_url: str) -> dict[str, NDArray[np.float64]]:
    """Return for each track that a run's feature machine was fitted on the probabilities by one that was not."""
    table = read_table(join(folder_url, ACROSS_FOLDS_FILE))
    return {row["track_id"]: np.array(row["probabilities"]) for row in table.to_pylist()}
