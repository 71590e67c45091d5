"""Pretrained weights: torchvision's, or those of a model version.

No code in such a file is ever run: torch reads tensors alone, and the result is safetensors.
"""

import io
import pickle  # only for the name of an exception
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
from store.errors import BadInput, first_line
from store.fs.files import join, read_bytes
from store.model_registry import CARD_FILE, read_card
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import NETWORK, TORCH_SUFFIXES, ModelSettings, is_state_dict_file, lower_path
from training.networks.torchvision_nets import TorchvisionName
from training.run_files import PRETRAINED_FILE

# The errors of torch.load and zipfile on bytes that torch.save did not write: found by damaging files.
# fmt: off
TORCH_LOAD_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError,
    ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error,
)
# fmt: on
MAX_REASON_LETTERS = 120
SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


class _Training(BaseModel, frozen=True, extra="ignore"):
    target: str
    model: ModelSettings


class _Card(BaseModel, frozen=True, extra="ignore"):
    """The part of model.json that decides whether its weights fit a run."""

    genres: tuple[str, ...]
    mel: MelSettings
    training: _Training


def read_pretrained(
    url: str, settings: ModelSettings, genres: Sequence[str], target: str, mel: MelSettings
) -> bytes:
    """Return a safetensors file of exactly the pretrained tensors, under GenreNet's names.

    Raises: BadInput if they are damaged, of another network, or of a model with other mel settings.
    """
    if is_state_dict_file(url):
        tensors = _torchvision_trunk(url, settings)
    else:
        tensors = _version_weights(url, settings, genres, target, mel)
    return safetensors.torch.save(tensors)


def load_pretrained(model: nn.Module, data: bytes) -> None:
    """Load the result of `read_pretrained` into a network; other tensors keep their random weights.

    Raises: BadInput if a tensor of the trunk is missing, or a tensor does not fit.
    """
    where = PRETRAINED_FILE
    tensors = _read_safetensors(data, where)
    wanted = {
        name: weight
        for name, weight in model.state_dict().items()
        if name in tensors or name.startswith("trunk.")
    }
    model.load_state_dict(_fitting(tensors, wanted, where, "this network"), strict=False)


def _torchvision_trunk(url: str, settings: ModelSettings) -> dict[str, Tensor]:
    names = get_args(TorchvisionName)
    if settings.network not in names:
        raise BadInput(
            f"{url}: a state dict of torchvision's; the network is {settings.architecture}: set model.name to one "
            f"of {', '.join(names)}, or use a model version's folder"
        )
    found = _without_module_prefix(_read_file(url))
    if any(name.startswith("trunk.") for name in found):
        raise BadInput(f"{url}: the weights of a model version; use the folder that contains it")
    tensors = {name: tensor for name, tensor in found.items() if not name.startswith(("fc.", "classifier."))}
    wanted = {
        name.removeprefix("trunk."): weight
        for name, weight in _empty_state(settings, 2, 8).items()
        if name.startswith("trunk.")
    }
    first = next(iter(wanted))
    if first in tensors:
        tensors[first] = _to_one_channel(tensors[first])
    for name in wanted:
        if name.endswith("num_batches_tracked"):  # torchvision's files lack these counts
            tensors.setdefault(name, torch.tensor(0))
    return {
        f"trunk.{name}": tensor
        for name, tensor in _fitting(tensors, wanted, url, settings.architecture).items()
    }


def _to_one_channel(kernels: Tensor) -> Tensor:
    """Sum the kernels over three input channels: the output for a grey image stays the same."""
    if kernels.ndim != 4 or kernels.shape[1] != 3 or kernels.dtype not in SUPPORTED_DTYPES:
        return kernels  # one channel already, or does not fit
    return kernels.float().sum(dim=1, keepdim=True)


def _version_weights(
    url: str, settings: ModelSettings, genres: Sequence[str], target: str, mel: MelSettings
) -> dict[str, Tensor]:
    """Return trunk and band statistics of a model version, and its head if it has the same genres and target."""
    card = _read_version(url)
    if NETWORK not in card.training.model.members:
        raise BadInput(f"{url}: the model has no network to start from; use another one, or random weights")
    if card.training.model.architecture != settings.architecture:
        raise BadInput(
            f"{url}: the model is a {card.training.model.architecture}, the run trains a {settings.architecture}; "
            "set model.name and model.width to the model's, or use other weights"
        )
    if card.mel.settings_hash != mel.settings_hash:
        raise BadInput(
            f"{url}: the model needs mel settings {card.mel.settings_hash}, the spectrograms have "
            f"{mel.settings_hash}; build a store with the model's settings, or use other weights"
        )
    file = join(url, WEIGHTS_FILE)
    tensors, wanted = _read_file(file), _empty_state(settings, len(card.genres), mel.bands)
    if (card.genres, card.training.target) != (tuple(genres), target):
        tensors, wanted = _without_head(tensors), _without_head(wanted)
    return _fitting(tensors, wanted, file, settings.architecture)


def _read_version(url: str) -> _Card:
    try:
        return _Card.model_validate(read_card(url))
    except ValidationError as why:
        first = why.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{join(url, CARD_FILE)}: {where}: {first['msg']}; use another model") from None


def _without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


def _without_module_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix that DataParallel puts before names."""
    if not all(name.startswith("module.") for name in tensors):
        return tensors
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _empty_state(settings: ModelSettings, genres: int, bands: int) -> dict[str, Tensor]:
    """Return a state dict for its names and shapes, and leave torch's random state unchanged."""
    with torch.random.fork_rng(devices=[]):  # the device "meta" needs neither, but takes 4 s to import
        return build_model(settings, genres, bands).state_dict()


def _fitting(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str, network: str
) -> dict[str, Tensor]:
    """Return the tensors in the dtypes of `wanted`. Raises: BadInput if one is missing or does not fit."""
    for name in wanted:
        if name not in tensors:
            raise BadInput(f"{where}: has no {name}; need all weights of {network}")
    for name in tensors:
        if name not in wanted:
            raise BadInput(
                f"{where}: has {name}, which {network} does not have; need weights of {network} only"
            )
    fitting = {}
    for name, like in wanted.items():
        tensor = tensors[name]
        if tensor.dtype not in SUPPORTED_DTYPES or tensor.layout is not torch.strided or tensor.is_meta:
            raise BadInput(
                f"{where}: {name} has dtype {tensor.dtype}, layout {tensor.layout}; need dense numbers"
            )
        if tensor.shape != like.shape:
            shapes = f"{tuple(tensor.shape)}, that of {network} {tuple(like.shape)}"
            raise BadInput(f"{where}: {name} has shape {shapes}; need weights of {network}")
        if not tensor.isfinite().all():
            raise BadInput(
                f"{where}: {name} has NaN or infinite values; copy the file again, or use other weights"
            )
        fitting[name] = tensor.detach().to(like.dtype, copy=True, memory_format=torch.contiguous_format)
    return fitting


def _read_file(url: str) -> dict[str, Tensor]:
    try:
        data = read_bytes(url)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        reason = error.strerror or "no such file"
        raise BadInput(f"{url}: cannot be read ({reason}); need pretrained weights") from None
    return (
        _read_torch(data, url) if lower_path(url).endswith(TORCH_SUFFIXES) else _read_safetensors(data, url)
    )


def _read_safetensors(data: bytes, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, LookupError) as why:  # LookupError: a dtype that torch does not have
        raise BadInput(
            f"{where}: cut short or damaged ({first_line(why)[:MAX_REASON_LETTERS]}); copy the file again"
        ) from None


def _read_torch(data: bytes, where: str) -> dict[str, Tensor]:
    """Read a state dict without running any of the code that a pickle can hold."""
    try:
        whole = _checksums_hold(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) if whole else None
    except TORCH_LOAD_ERRORS as why:
        raise BadInput(f"{where}: {_why_not_readable(why)}") from None
    if not whole:
        raise BadInput(f"{where}: damaged (a checksum is wrong); copy the file again")
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise BadInput(f"{where}: not a state dict; save one with torch.save(model.state_dict(), path)")
    return state


def _why_not_readable(why: Exception) -> str:
    if not isinstance(why, pickle.UnpicklingError):
        # The messages of torch and zipfile ("negative seek value -945") do not help a reader.
        return "cut short or damaged, or not a state dict; copy the file again"
    code = re.search(r"GLOBAL ([\w.]+)", str(why))
    if code is None:  # the first line of torch's message recommends running the code
        return "damaged, or not pickled by torch.save; copy the file again"
    return (
        f"contains pickled code ({code[1]}), which is never run; save only the tensors: "
        "torch.save(model.state_dict(), path)"
    )


def _checksums_hold(data: bytes) -> bool:
    """Return whether all members of a zip file have the right checksum, which torch does not verify.

    Files of torch.save before version 1.6 are no zip files and have no checksums, nor have those
    written after set_crc32_options(False): their checksums are 0.
    """
    file = io.BytesIO(data)
    if not zipfile.is_zipfile(file):
        return True
    with zipfile.ZipFile(file) as archive:
        return not any(part.CRC for part in archive.infolist()) or archive.testzip() is None
