"""A model version as one ONNX file, and a session that runs it: onnxruntime is lighter than torch on a CPU.

Axes: B crops, F frames, M mel bands, G genres.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from store.errors import BadInput
from store.fs.files import join, read_bytes, write_atomic
from training.inference.model_version import ModelIdentity, load_model
from training.networks.network import INPUT_MEAN_DB, INPUT_SCALE_DB, WEIGHTS_FILE

if TYPE_CHECKING:
    import onnxruntime

MAX_LOGIT_DIFFERENCE = 1e-4  # of a logit, between ONNX and torch
VERIFICATION_CROPS = 16
WEIGHTS_KEY = "weights_sha256"


def export_onnx(
    version_url: str, identity: ModelIdentity, target_url: str, crops: NDArray[np.float32] | None = None
) -> float:
    """Write a model version's network as an ONNX file: dB in, logits out, any number of crops.

    Shapes: `crops`, real ones if there are any, (B, F, M); they and random ones must come out as torch has them.
    Raises: BadInput if a logit differs by more than MAX_LOGIT_DIFFERENCE, or the extra `onnx` is not installed.
    """
    data, worst = _proved(version_url, identity, crops)
    write_atomic(target_url, data)
    return worst


@lru_cache(maxsize=2)
def open_session(
    version_url: str, identity: ModelIdentity, onnx_url: str | None = None
) -> "onnxruntime.InferenceSession":
    """Make an ONNX file ready to run on one thread; without a file, one that is exported now.

    Raises: BadInput if there is no such file, it was not exported of this model's weights, or what is exported
        now says something else than the model.
    """
    if onnx_url is None:
        data, _ = _proved(version_url, identity, None)
        return _session(data, version_url)
    try:
        session = _session(read_bytes(onnx_url), onnx_url)
    except FileNotFoundError:
        raise BadInput(f"{onnx_url}: no such file; export the model there first") from None
    if session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY) != _weights_sha256(version_url):
        raise BadInput(f"{onnx_url}: not exported of {version_url}; export it again")
    return session


def _session(data: bytes, where: str) -> "onnxruntime.InferenceSession":
    runtime = _import("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _refusals() as why:
        raise BadInput(
            f"{where}: not a model that onnxruntime can run ({str(why).splitlines()[0]})"
        ) from None


def _refusals() -> tuple[type[Exception], ...]:
    """Name what onnxruntime raises of a file; its exceptions have no parent of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # here, since it may not be installed

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented


def _proved(
    version_url: str, identity: ModelIdentity, crops: NDArray[np.float32] | None
) -> tuple[bytes, float]:
    """Export, and give how far a logit differs at most. Raises: BadInput if that is too far."""
    data = _exported(version_url, identity)
    worst = _worst_difference(version_url, identity, data, crops)
    if not worst <= MAX_LOGIT_DIFFERENCE:  # NaN is no proof
        raise BadInput(
            f"{version_url}: its ONNX export differs from it by {worst:.1e}, "
            f"wanted {MAX_LOGIT_DIFFERENCE:g} or less; listen with torch"
        )
    return data, worst


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
    assert program is not None, "the newer exporter gives one"
    program.model.metadata_props[WEIGHTS_KEY] = _weights_sha256(version_url)
    data: bytes = program.model_proto.SerializeToString()
    return data


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep back what torch's exporter says of itself: an old way to copy a tree, and that we have no torchvision."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def _worst_difference(
    version_url: str, identity: ModelIdentity, data: bytes, crops: NDArray[np.float32] | None
) -> float:
    shape = (VERIFICATION_CROPS, identity.crop_frames, identity.mel.bands)
    random = np.random.default_rng(0).normal(INPUT_MEAN_DB, INPUT_SCALE_DB, shape).astype(np.float32)
    mel_BFM = random if crops is None else np.concatenate([random, crops])
    with torch.inference_mode():
        wanted_BG = load_model(version_url, identity)(torch.from_numpy(mel_BFM)).numpy()
    (found_BG,) = _session(data, version_url).run(None, {"mel": mel_BFM})
    return float(np.abs(found_BG - wanted_BG).max())


def _weights_sha256(version_url: str) -> str:
    return hashlib.sha256(read_bytes(join(version_url, WEIGHTS_FILE))).hexdigest()


def _import(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError:
        raise BadInput(
            f"{name} is not installed; pip install 'spectrogram-one[onnx]', or listen with torch"
        ) from None
