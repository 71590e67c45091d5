"""What a network starts from, if not from fresh weights: torchvision's, or those of a model version.

Nothing in such a file is ever run: torch reads it as tensors alone, and what is handed on is safetensors.
"""

import io
import pickle  # for the name of an exception alone
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import get_args

import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import join, read_bytes
from store.model_registry import read_card
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import TORCH_SUFFIXES, ModelSettings, is_state_dict_file, lower_path
from training.networks.torchvision_nets import TorchvisionName

# What torch.load and zipfile raise over bytes that are not what torch.save wrote: found by damaging files.
# fmt: off
TORCH_LOAD_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError,
    ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error,
)
# fmt: on
SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


class _Training(BaseModel, frozen=True, extra="ignore"):
    target: str
    model: ModelSettings


class _Card(BaseModel, frozen=True, extra="ignore"):
    """What of model.json decides whether a model can be started from."""

    genres: tuple[str, ...]
    mel: MelSettings
    training: _Training


def read_pretrained(
    url: str, settings: ModelSettings, genres: Sequence[str], target: str, mel: MelSettings
) -> bytes:
    """Give a safetensors file of exactly the tensors to start from, under GenreNet's own names.

    Raises: BadInput if they are damaged, of another network, or a model's that listens to other spectrograms.
    """
    if is_state_dict_file(url):
        tensors = _torchvision_trunk(url, settings)
    else:
        tensors = _version_weights(url, settings, genres, target, mel)
    return safetensors.torch.save(tensors)


def load_pretrained(model: nn.Module, data: bytes) -> None:
    """Put what `read_pretrained` gave into a network; what is not in it keeps its fresh weights.

    Raises: BadInput if the whole trunk is not there, or anything does not fit.
    """
    where = "pretrained.safetensors"
    tensors = _read_safetensors(data, where)
    wanted = {
        name: weight
        for name, weight in model.state_dict().items()
        if name in tensors or name.startswith("trunk.")
    }
    model.load_state_dict(_fitting(tensors, wanted, where, "this network"), strict=False)


def _torchvision_trunk(url: str, settings: ModelSettings) -> dict[str, Tensor]:
    names = get_args(TorchvisionName)
    if settings.name not in names:
        raise BadInput(
            f"{url}: a state dict of torchvision's; the network is {settings.architecture}: set its name to one "
            f"of {', '.join(names)}, or start from a model version's folder"
        )
    found = _without_module_prefix(_read_file(url))
    if any(name.startswith("trunk.") for name in found):
        raise BadInput(f"{url}: the weights of a model version; give the folder that it lies in")
    tensors = {name: tensor for name, tensor in found.items() if not name.startswith(("fc.", "classifier."))}
    wanted = {
        name.removeprefix("trunk."): weight
        for name, weight in _state_of(settings, 2, 8).items()
        if name.startswith("trunk.")
    }
    first = next(iter(wanted))
    if first in tensors:
        tensors[first] = _of_one_channel(tensors[first])
    for name in wanted:
        if name.endswith("num_batches_tracked"):  # torchvision's files are older than this count
            tensors.setdefault(name, torch.tensor(0))
    return {f"trunk.{name}": it for name, it in _fitting(tensors, wanted, url, settings.architecture).items()}


def _of_one_channel(kernels: Tensor) -> Tensor:
    """Make of a convolution of three channels the one that answers to a grey picture as it did."""
    if kernels.ndim != 4 or kernels.shape[1] != 3 or kernels.dtype not in SUPPORTED_DTYPES:
        return kernels  # one channel already, or nothing that fits
    return kernels.float().sum(dim=1, keepdim=True)


def _version_weights(
    url: str, settings: ModelSettings, genres: Sequence[str], target: str, mel: MelSettings
) -> dict[str, Tensor]:
    """Take trunk and band statistics of a model version, and its head if it tells the same genres apart."""
    card = _read_version(url)
    if card.training.model.architecture != settings.architecture:
        raise BadInput(
            f"{url}: the model is a {card.training.model.architecture}, wanted {settings.architecture}; "
            "set name and width to its, or start from another"
        )
    if card.mel.settings_hash != mel.settings_hash:
        raise BadInput(
            f"{url}: the model listens to mel settings {card.mel.settings_hash}, the spectrograms are of "
            f"{mel.settings_hash}; build a store with its settings, or start from another"
        )
    file = join(url, WEIGHTS_FILE)
    tensors, wanted = _read_file(file), _state_of(settings, len(card.genres), mel.bands)
    if (card.genres, card.training.target) != (tuple(genres), target):
        tensors, wanted = _without_head(tensors), _without_head(wanted)
    return _fitting(tensors, wanted, file, settings.architecture)


def _read_version(url: str) -> _Card:
    try:
        return _Card.model_validate(read_card(url))
    except ValidationError as why:
        first = why.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{url}/model.json: {where}: {first['msg']}; start from another model") from None


def _without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


def _without_module_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo what DataParallel does to names."""
    if not all(name.startswith("module.") for name in tensors):
        return tensors
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _state_of(settings: ModelSettings, genres: int, bands: int) -> dict[str, Tensor]:
    """Make weights to know names and shapes by, and leave torch's random state as it is."""
    with torch.random.fork_rng(devices=[]):  # the device "meta" would need neither, but takes 4 s to import
        return build_model(settings, genres, bands).state_dict()


def _fitting(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str, network: str
) -> dict[str, Tensor]:
    """Give the tensors as `wanted` has them. Raises: BadInput over the first that is missing or does not fit."""
    for name in wanted:
        if name not in tensors:
            raise BadInput(f"{where}: has no {name}; wanted all weights of {network}")
    for name in tensors:
        if name not in wanted:
            raise BadInput(f"{where}: has {name}, which is none of {network}; wanted weights of that alone")
    fitting = {}
    for name, like in wanted.items():
        tensor = tensors[name]
        if tensor.dtype not in SUPPORTED_DTYPES or tensor.layout is not torch.strided or tensor.is_meta:
            raise BadInput(f"{where}: {name} is of {tensor.dtype}, {tensor.layout}; wanted plain numbers")
        if tensor.shape != like.shape:
            shapes = f"{tuple(tensor.shape)}, that of {network} {tuple(like.shape)}"
            raise BadInput(f"{where}: {name} has shape {shapes}; wanted weights of {network}")
        if not tensor.isfinite().all():
            raise BadInput(f"{where}: {name} has NaN or infinite values; take a whole copy, or other weights")
        fitting[name] = tensor.detach().to(like.dtype, copy=True, memory_format=torch.contiguous_format)
    return fitting


def _read_file(url: str) -> dict[str, Tensor]:
    try:
        data = read_bytes(url)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        reason = error.strerror or "no such file"
        raise BadInput(f"{url}: cannot be read ({reason}); wanted weights to start from") from None
    return (
        _read_torch(data, url) if lower_path(url).endswith(TORCH_SUFFIXES) else _read_safetensors(data, url)
    )


def _read_safetensors(data: bytes, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, LookupError) as why:  # LookupError: numbers of a kind that torch does not have
        raise BadInput(f"{where}: cut short or damaged ({_first_line(why)}); take a whole copy") from None


def _read_torch(data: bytes, where: str) -> dict[str, Tensor]:
    """Read a state dict without running any of the code that a pickle can hold."""
    try:
        whole = _checksums_hold(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) if whole else None
    except TORCH_LOAD_ERRORS as why:
        raise BadInput(f"{where}: {_why_not_readable(why)}") from None
    if not whole:
        raise BadInput(f"{where}: damaged (a checksum is wrong); take a whole copy")
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise BadInput(f"{where}: no state dict; save one with torch.save(model.state_dict(), path)")
    return state


def _why_not_readable(why: Exception) -> str:
    if not isinstance(why, pickle.UnpicklingError):
        # What torch and zipfile say over such bytes ("negative seek value -945") tells a reader nothing.
        return "cut short or damaged, or never a state dict; take a whole copy"
    code = re.search(r"GLOBAL ([\w.]+)", str(why))
    if code is None:  # the first line of torch's message tells how to run the code
        return "damaged, or pickled otherwise than torch.save does; take a whole copy"
    return (
        f"holds pickled code ({code[1]}), which is never run; save the tensors alone: "
        "torch.save(model.state_dict(), path)"
    )


def _checksums_hold(data: bytes) -> bool:
    """Say whether all parts of a zip file are what was written; torch does not look, and would learn from noise.

    What torch.save wrote before version 1.6 is no zip file and has no checksums, nor has what it
    wrote after set_crc32_options(False): their numbers are 0.
    """
    file = io.BytesIO(data)
    if not zipfile.is_zipfile(file):
        return True
    with zipfile.ZipFile(file) as archive:
        return not any(part.CRC for part in archive.infolist()) or archive.testzip() is None


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0][:120]
