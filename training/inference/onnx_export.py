"""The export of a model version to one ONNX file, and sessions of onnxruntime, which is lighter than torch on a CPU.

Axes: B crops, F frames, M mel bands, G genres.
"""

import hashlib
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from store.errors import BadInput, first_line
from store.fs.files import join, read_bytes, write_atomic
from training.inference.model_version import ModelIdentity, load_model
from training.networks.network import INPUT_MEAN_DB, INPUT_SCALE_DB, WEIGHTS_FILE

if TYPE_CHECKING:
    import onnxruntime

VERIFICATION_CROPS = 16
WEIGHTS_KEY = "weights_sha256"


def export_onnx(
    version_url: str, identity: ModelIdentity, target_url: str, crops: NDArray[np.float32] | None = None
) -> float:
    """Write a model version's network as an ONNX file: dB in, logits out, any number of crops.

    Shapes: `crops` (B, F, M): compared beside random ones, as torch and onnxruntime predict them.
    Raises: BadInput if a logit differs by more than rounding explains, or the extra `onnx` is not installed.

    Returns the largest difference of a logit.
    """
    if not identity.has_network:
        raise BadInput(
            f"{version_url}: the model has no network to export; it is predicted without torch as it is"
        )
    data, worst = _verified_export(version_url, identity, crops)
    write_atomic(target_url, data)
    return worst


@lru_cache(maxsize=2)
def open_session(
    version_url: str, identity: ModelIdentity, onnx_url: str | None = None
) -> "onnxruntime.InferenceSession":
    """Open an ONNX file to run on one thread; without a file, export the model first.

    Raises: BadInput if there is no such file, it was not exported from this model's weights, or the new export
        differs from the model.
    """
    if onnx_url is None:
        data, _ = _verified_export(version_url, identity, None)
        return _session(data, version_url)
    try:
        session = _session(read_bytes(onnx_url), onnx_url)
    except FileNotFoundError:
        raise BadInput(f"{onnx_url}: no such file; export the model there first") from None
    if session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY) != _weights_sha256(version_url):
        raise BadInput(f"{onnx_url}: not exported from {version_url}; export it again")
    return session


def _session(data: bytes, where: str) -> "onnxruntime.InferenceSession":
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _session_errors() as why:
        raise BadInput(f"{where}: not a model that onnxruntime can run ({first_line(why)})") from None


def _session_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that onnxruntime raises for a bad file; they have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # here, since it may not be installed

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented


def _verified_export(
    version_url: str, identity: ModelIdentity, crops: NDArray[np.float32] | None
) -> tuple[bytes, float]:
    """Export, and return the largest difference of a logit. Raises: BadInput if rounding does not explain it."""
    data = _exported(version_url, identity)
    model, mel_BFM = load_model(version_url, identity), _verification_crops(identity, crops)
    with torch.inference_mode():
        wanted_BG = model(torch.from_numpy(mel_BFM)).numpy()
    (found_BG,) = _session(data, version_url).run(None, {"mel": mel_BFM})
    worst = float(np.abs(found_BG - wanted_BG).max())
    bound = relative_rounding(model) * float(np.abs(wanted_BG).max())
    if not worst <= bound:  # true for NaN too
        raise BadInput(
            f"{version_url}: a logit of its ONNX export differs by {worst:.1e}, where rounding explains "
            f"{bound:.1e}; use backend torch"
        )
    return data, worst


def relative_rounding(model: nn.Module) -> float:
    """Return by how much two float32 implementations of a network may differ, relative to its largest logit.

    A layer adds up n products in an order of its own. The rounding error of such a sum is about sqrt(n) u
    of the sum of its terms' magnitudes (Higham & Mary, 2019), where u = eps / 2 is the unit roundoff. The
    errors of the layers add up at worst, and two implementations differ by twice the error of one:

        2 u (sqrt(n_1) + sqrt(n_2) + ...) = eps (sqrt(n_1) + sqrt(n_2) + ...)

    Batch norms, activations and pooling round once per value, which is small against sqrt(n). Measured
    differences are a tenth of this or less; one weight of a layer that is changed by 1 % gives ten times more.
    """
    layers = (module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    return float(np.finfo(np.float32).eps * sum(math.sqrt(layer.weight[0].numel()) for layer in layers))


def _verification_crops(identity: ModelIdentity, crops: NDArray[np.float32] | None) -> NDArray[np.float32]:
    shape = (VERIFICATION_CROPS, identity.crop_frames, identity.mel.bands)
    random = np.random.default_rng(0).normal(INPUT_MEAN_DB, INPUT_SCALE_DB, shape).astype(np.float32)
    return random if crops is None else np.concatenate([random, crops])


@lru_cache(maxsize=2)
def _exported(version_url: str, identity: ModelIdentity) -> bytes:
    _import("onnxscript")
    model = load_model(version_url, identity)
    example_BFM = torch.zeros(2, identity.crop_frames, identity.mel.bands)
    with _quiet_exporter():
        program = torch.onnx.export(
            model,
            (example_BFM,),
            dynamo=True,
            verbose=False,
            input_names=["mel"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("crops")},),
        )
    assert program is not None, "the exporter with dynamo returns a program"
    program.model.metadata_props[WEIGHTS_KEY] = _weights_sha256(version_url)
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress warnings about torch's own exporter: a deprecated tree copy, and that torchvision is missing."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def _weights_sha256(version_url: str) -> str:
    return hashlib.sha256(read_bytes(join(version_url, WEIGHTS_FILE))).hexdigest()


def _import(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError:
        raise BadInput(
            f"{name} is not installed; pip install 'spectrogram-one[onnx]', or use backend torch"
        ) from None
