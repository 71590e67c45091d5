"""The weights of musicnn, read from its wheel: without TensorFlow, which it would need, and without running its code.

They are those trained on the Million Song Dataset. The wheel's others were trained on MagnaTagATune, so on Magnatune's
catalogue, of which test sets of genres are made.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from preprocessing.features.musicnn import MIDDLE, SETTING, SHAPES, Layer, Musicnn
from preprocessing.features.tensor_bundle import read_tensor_bundle
from store.errors import BadInput
from store.fs.files import absolute, read_bytes

FOLDER = "musicnn/MSD_musicnn"  # in the wheel
SHA256 = {
    ".index": "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
    ".data-00000-of-00001": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
}
WANTED = "wanted musicnn's wheel; get it by `pip download --no-deps musicnn==0.1.0`"
EPSILON = 1e-3  # of TensorFlow's batch norm
NOTICE = (
    "musicnn: Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019. Code developed by Jordi Pons "
    "(www.jordipons.me). Permission to use, copy, modify, and/or distribute this software for any purpose with or "
    "without fee is hereby granted, provided that the above copyright notice and this permission notice appear in "
    'all copies. THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS '
    "SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE "
    "LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM "
    "LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING "
    "OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE."
)


@lru_cache(maxsize=1)
def read_musicnn(url: str) -> Musicnn:
    """Read the network from the wheel of musicnn 0.1.0.

    Raises: BadInput if it is missing, or another file.
    """
    index, data = (_read_member(url, name) for name in SHA256)
    return make_musicnn(read_tensor_bundle(index, data))


def make_musicnn(tensors: Mapping[str, NDArray[np.float32]]) -> Musicnn:
    """Make the network of the variables of musicnn's graph."""
    layers = {
        name: _layer(tensors, _numbered("conv2d", number), number + 1)
        for number, name in enumerate((*SHAPES, *MIDDLE))
    }
    (input_gain, input_offset), (pooled_gain_C, pooled_offset_C) = (
        _batch_norm(tensors, number) for number in (0, 9)
    )
    return Musicnn(
        layers | {"dense": _layer(tensors, "dense", 10)},
        input_gain,
        input_offset,
        pooled_gain_C,
        pooled_offset_C,
    )


def _layer(tensors: Mapping[str, NDArray[np.float32]], name: str, norm: int) -> Layer:
    kernel = tensors[f"{name}/kernel"]
    kernel_FMC = kernel[:, :, 0] if kernel.ndim == 4 else kernel[None]
    return Layer(kernel_FMC, tensors[f"{name}/bias"], *_batch_norm(tensors, norm))


def _batch_norm(
    tensors: Mapping[str, NDArray[np.float32]], number: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the gain and the offset that a batch norm comes to."""
    name = _numbered("batch_normalization", number)
    gain_C = tensors[f"{name}/gamma"] / np.sqrt(tensors[f"{name}/moving_variance"] + EPSILON)
    return gain_C, tensors[f"{name}/beta"] - tensors[f"{name}/moving_mean"] * gain_C


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _read_member(url: str, name: str) -> bytes:
    """Read a file of the wheel. Raises: BadInput if it cannot be read, or its hash is not that of the release."""
    try:
        content = read_bytes(f"zip://{FOLDER}/{name}::{absolute(url)}")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadInput(f"{SETTING} {url}: no file {FOLDER}/{name} there; {WANTED}") from None
    except BadInput as why:
        raise BadInput(f"{SETTING} {why}; {WANTED}") from None
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise BadInput(f"{SETTING} {url}: {FOLDER}/{name} is not that of musicnn 0.1.0; {WANTED}")
    return content
