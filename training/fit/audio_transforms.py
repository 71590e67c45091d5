"""torchaudio's pure-torch transforms: the only module that imports torchaudio.

torchaudio's wheel needs CUDA's libraries and fails at import beside a CPU-only torch. The
transforms used here are plain torch, so in that case its compiled extension is replaced by an empty one.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn


def _import_transforms() -> ModuleType:
    """Import torchaudio.transforms, without torchaudio's compiled extension where that cannot load."""
    try:
        return importlib.import_module("torchaudio.transforms")
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _empty_extension()
        return importlib.import_module("torchaudio.transforms")


def _empty_extension() -> ModuleType:
    """Return a module with the names that torchaudio expects of its extension, without compiled code."""
    extension = ModuleType("torchaudio._extension")
    extension.__dict__.update(
        __path__=[],
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=_unavailable,
    )
    return extension


def _unavailable(function: Callable[..., object]) -> Callable[..., NoReturn]:
    def raise_error(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"torchaudio's {function.__name__} needs its compiled extension")

    return raise_error


_transforms = _import_transforms()
FrequencyMasking = _transforms.FrequencyMasking
TimeMasking = _transforms.TimeMasking
MelSpectrogram = _transforms.MelSpectrogram
