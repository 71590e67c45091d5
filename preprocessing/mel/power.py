"""Mel power of a wave, by a kernel that is compiled once for each kind of machine.

Axes: S samples, F frames, M mel bands.
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.mel import plan as plan_module
from preprocessing.mel.machine_code import CompiledFunction, load_or_compile
from preprocessing.mel.plan import LANES, MelPlan

POINTER, INTEGER = ctypes.c_void_p, ctypes.c_int64
PROTOTYPE = ctypes.CFUNCTYPE(  # of kernel.mel_power, in its order
    None,
    *(POINTER, INTEGER, INTEGER, INTEGER),  # wave
    *(POINTER, INTEGER, POINTER, POINTER, POINTER),  # transform
    *(POINTER, POINTER, POINTER, INTEGER),  # mel filters
    *(POINTER, INTEGER, INTEGER, POINTER, POINTER, POINTER),  # scratch
    *(POINTER, INTEGER),  # result
)


def mel_power(wave_S: NDArray[np.float32], plan: MelPlan) -> NDArray[np.float32]:
    """Compute the power in each band of each whole frame of a wave.

    Shapes: (S,) -> (F, M) with F = 1 + (S - window) // hop, at least 1.
    """
    wave_S = np.require(wave_S, np.float32, ["C", "A"])
    window, bands = plan.taper_W.size, plan.bin_M.size
    frames = 1 + (wave_S.size - window) // plan.hop
    height, width = min(plan.hop, window), _whole_registers(LANES + (window - 1) // plan.hop)
    mel_FM = np.empty((_whole_registers(frames), _whole_registers(bands)), np.float32)
    scratch = [_aligned(size) for size in (height * width, window * LANES, (window // 2 + 1) * LANES)]
    scratch.append(_aligned(mel_FM.shape[1] * LANES))
    folded, points, power, mel = (buffer.ctypes.data for buffer in scratch)
    _kernel()(
        *(wave_S.ctypes.data, wave_S.size, frames, plan.hop),
        *(plan.taper_W.ctypes.data, window, plan.twiddles_C3.ctypes.data),
        *(plan.order_C.ctypes.data, plan.turns_C.ctypes.data),
        *(plan.bin_M.ctypes.data, plan.start_M.ctypes.data, plan.weights_K.ctypes.data, bands),
        *(folded, height, width, points, power, mel),
        *(mel_FM.ctypes.data, mel_FM.shape[1]),
    )
    return np.ascontiguousarray(mel_FM[:frames, :bands])


def _whole_registers(size: int) -> int:
    return -(-size // LANES) * LANES


def _aligned(size: int) -> NDArray[np.float32]:
    """Return a buffer that starts on a cache line: otherwise every register would lie across two."""
    buffer = np.empty(size + LANES, np.float32)
    skip = -(buffer.ctypes.data // 4) % LANES
    return buffer[skip : skip + size]


@lru_cache(maxsize=1)
def _kernel() -> CompiledFunction:
    source = Path(__file__).with_name("kernel.py")
    return load_or_compile(_compile, PROTOTYPE, sources=(source, Path(plan_module.__file__)))


def _compile() -> Any:
    from preprocessing.mel.kernel import compile_mel_power  # numba takes a second to import

    return compile_mel_power()
