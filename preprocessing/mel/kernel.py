# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# (numba itself finds the types of what it compiles, from what it is called with)
"""Mel power of a wave, sixteen frames at a time, compiled: for windows that are a power of two.

A vector register holds the same number of sixteen frames, one a lane. So every step of the
transform is plain arithmetic on whole registers, nothing is ever shuffled within a frame, and
a frame's result is the same to the bit whichever lane it lies in and whatever lies beside it.
All steps are one pass: sixteen frames and their spectra (260 kB) stay in the L2 cache.

Axes: S samples, F frames, W window, C = W / 2 complex points, N = C + 1 spectrum bins, M mel
bands, K the weights of all bands end to end. Buffers are flat; what is said to lie at i in
them is the register at i * LANES.
"""

import operator
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import models, overload, register_model
from numpy.typing import NDArray

njit: Any = numba.njit
intrinsic: Any = numba.extending.intrinsic

LANES = 16  # of float32: one AVX-512 register; LLVM makes two of AVX2 or four of SSE or NEON of it
VECTOR = ir.VectorType(ir.FloatType(), LANES)
LANE_NUMBERS = ir.VectorType(ir.IntType(32), LANES)


class LanesType(types.Type):
    """Sixteen float32 in a register, to numba."""


lanes = LanesType("Lanes")


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """And to LLVM."""

    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, VECTOR)


def _register_at(context, builder, array_type, array, at):
    """Point to the sixteen floats that start at `at`; they need not be aligned."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), VECTOR.as_pointer())


@intrinsic
def load(typing, array, at):
    """Read sixteen floats."""

    def code(context, builder, signature, arguments):
        return builder.load(_register_at(context, builder, signature.args[0], *arguments), align=4)

    return lanes(array, types.intp), code


@intrinsic
def store(typing, array, at, value):
    """Write sixteen floats."""

    def code(context, builder, signature, arguments):
        array, at, value = arguments
        builder.store(value, _register_at(context, builder, signature.args[0], array, at), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), code


@intrinsic
def splat(typing, number):
    """Fill all lanes with one float."""

    def code(context, builder, signature, arguments):
        empty = ir.Constant(VECTOR, ir.Undefined)
        one = builder.insert_element(empty, arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, empty, ir.Constant(LANE_NUMBERS, None))

    return lanes(types.float32), code


def _give_lanes(operation, instruction):
    """Teach numba `a + b` and the like; "contract" allows fused multiply-add and nothing else."""

    @intrinsic
    def on_lanes(typing, a, b):
        def code(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=("contract",))

        return lanes(lanes, lanes), code

    @overload(operation)
    def on_types(a, b):
        return (lambda a, b: on_lanes(a, b)) if a is lanes and b is lanes else None


_give_lanes(operator.add, "fadd")
_give_lanes(operator.sub, "fsub")
_give_lanes(operator.mul, "fmul")


@intrinsic
def transpose(typing, source, at, step, target, to, stride):
    """Write sixteen registers, read at `at`, `at + step`, ..., as sixteen columns from `to` on, `stride` apart.

    Riffling the rows' first half with their second four times over is a transposition.
    """

    def code(context, builder, signature, arguments):
        source, at, step, target, to, stride = arguments
        riffle = [k // 2 + k % 2 * LANES for k in range(2 * LANES)]
        halves = [ir.Constant(LANE_NUMBERS, riffle[:LANES]), ir.Constant(LANE_NUMBERS, riffle[LANES:])]
        rows = []
        for _ in range(LANES):
            rows.append(builder.load(_register_at(context, builder, signature.args[0], source, at), align=4))
            at = builder.add(at, step)
        for _ in range(4):
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
        for row in rows:
            builder.store(row, _register_at(context, builder, signature.args[3], target, to), align=4)
            to = builder.add(to, stride)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), code


compiled = njit(nogil=True, error_model="numpy")


@compiled
def _whole_registers(size):
    return -(-size // LANES) * LANES


@compiled
def _aligned(size):
    """Make a buffer that starts on a cache line: otherwise every register would lie across two."""
    buffer = np.empty(size + LANES, np.float32)
    skip = -(buffer.ctypes.data // 4) % LANES
    return buffer[skip : skip + size]


@compiled
def _fold(wave_S, begin, hop, height, width, folded):
    """Lay `width` pieces of the wave side by side, a hop apart and `height` samples high; zeros after its end.

    The sample n of frame f is then the one at row n % hop, column f + n // hop: sixteen frames
    side by side are sixteen columns side by side, and what frames share is stored once.
    """
    for column in range(0, width, LANES):
        at = begin + column * hop
        if height >= LANES and at + (LANES - 1) * hop + height <= wave_S.size:
            for row in range(0, height, LANES):
                top = min(row, height - LANES)
                transpose(wave_S, at + top, hop, folded, top * width + column, width)
        else:
            for lane in range(LANES):
                first = at + lane * hop
                for row in range(height):
                    inside = first + row < wave_S.size
                    folded[row * width + column + lane] = wave_S[first + row] if inside else np.float32(0)


@compiled
def _taper(folded, hop, width, taper_W, points):
    """Cut sixteen frames out, tapered: point c is the samples 2 c (real) and 2 c + 1 (imaginary)."""
    row, column = 0, 0
    for n in range(taper_W.size):
        store(points, n * LANES, load(folded, row * width + column) * splat(taper_W[n]))
        row += 1
        if row == hop:
            row, column = 0, column + 1


@compiled
def _point(points, c):
    return load(points, 2 * c * LANES), load(points, (2 * c + 1) * LANES)


@compiled
def _put(points, c, re, im):
    store(points, 2 * c * LANES, re)
    store(points, (2 * c + 1) * LANES, im)


@compiled
def _put_turned(points, c, re, im, turn):
    cos, sin = splat(turn.real), splat(turn.imag)
    _put(points, c, re * cos - im * sin, re * sin + im * cos)


@compiled
def _transform(points, twiddles_C3):
    """Fourier-transform sixteen frames of C complex points in place; bin k then lies at point `order_C[k]`.

    Source: decimation in frequency, radix 4, and a last pass of radix 2 where C is not a power
            of 4 (Oppenheim & Schafer, Discrete-Time Signal Processing, 9.4).
    """
    size = points.size // (2 * LANES)
    quarter = size // 4
    while quarter:
        for block in range(0, size, 4 * quarter):
            for j in range(block, block + quarter):
                turns = twiddles_C3[quarter + j - block]
                a_re, a_im = _point(points, j)
                b_re, b_im = _point(points, j + quarter)
                c_re, c_im = _point(points, j + 2 * quarter)
                d_re, d_im = _point(points, j + 3 * quarter)
                ac_re, ac_im, a_c_re, a_c_im = a_re + c_re, a_im + c_im, a_re - c_re, a_im - c_im
                bd_re, bd_im, b_d_re, b_d_im = b_re + d_re, b_im + d_im, b_re - d_re, b_im - d_im
                _put(points, j, ac_re + bd_re, ac_im + bd_im)
                _put_turned(points, j + quarter, a_c_re + b_d_im, a_c_im - b_d_re, turns[0])
                _put_turned(points, j + 2 * quarter, ac_re - bd_re, ac_im - bd_im, turns[1])
                _put_turned(points, j + 3 * quarter, a_c_re - b_d_im, a_c_im + b_d_re, turns[2])
        last, quarter = quarter, quarter // 4
    if last == 2:
        for c in range(0, size, 2):
            a_re, a_im = _point(points, c)
            b_re, b_im = _point(points, c + 1)
            _put(points, c, a_re + b_re, a_im + b_im)
            _put(points, c + 1, a_re - b_re, a_im - b_im)


@compiled
def _power(points, order_C, turns_C, power):
    """Find the power of the N bins of sixteen real frames from the transform of their C complex points.

    Source: even samples transform to E = (Z_k + conj Z_-k) / 2, odd ones to O = (Z_k - conj Z_-k) / 2i;
            X_k = E + turn_k O and X_(C-k) = conj(E - turn_k O).
    """
    size = order_C.size
    re, im = _point(points, 0)
    store(power, 0, (re + im) * (re + im))
    store(power, size * LANES, (re - im) * (re - im))
    quarter = splat(np.float32(0.25))  # the two halves above, squared
    for k in range(1, size // 2 + 1):
        a_re, a_im = _point(points, order_C[k])
        b_re, b_im = _point(points, order_C[size - k])
        e_re, e_im, o_re, o_im = a_re + b_re, a_im - b_im, a_im + b_im, b_re - a_re
        cos, sin = splat(turns_C[k].real), splat(turns_C[k].imag)
        t_re, t_im = o_re * cos - o_im * sin, o_re * sin + o_im * cos
        x_re, x_im, y_re, y_im = e_re + t_re, e_im + t_im, e_re - t_re, e_im - t_im
        store(power, k * LANES, (x_re * x_re + x_im * x_im) * quarter)
        store(power, (size - k) * LANES, (y_re * y_re + y_im * y_im) * quarter)


def _mel_power(wave_S, frames, hop, taper_W, twiddles_C3, order_C, turns_C, bin_M, start_M, weights_K):
    """Do it all. Frames and bands of the result are rounded up to whole registers: cut them off."""
    window, bands = taper_W.size, bin_M.size
    height, width = min(hop, window), _whole_registers(LANES + (window - 1) // hop)
    row = _whole_registers(bands)
    folded, points = _aligned(height * width), _aligned(window * LANES)
    power, mel = _aligned((window // 2 + 1) * LANES), _aligned(row * LANES)
    mel_FM = np.empty((_whole_registers(frames), row), np.float32)
    flat = mel_FM.reshape(-1)
    for first in range(0, frames, LANES):
        _fold(wave_S, first * hop, hop, height, width, folded)
        _taper(folded, hop, width, taper_W, points)
        _transform(points, twiddles_C3)
        _power(points, order_C, turns_C, power)
        for band in range(bands):
            total = splat(np.float32(0))
            for k in range(start_M[band], start_M[band + 1]):
                total = total + load(power, (bin_M[band] + k - start_M[band]) * LANES) * splat(weights_K[k])
            store(mel, band * LANES, total)
        for band in range(0, bands, LANES):
            transpose(mel, band * LANES, LANES, flat, first * row + band, row)
    return mel_FM


@lru_cache(maxsize=1)
def _kernel():
    def array(of, axes=1):
        return types.Array(of, axes, "C", readonly=True)

    whole, places, floats = types.int64, array(types.int64), array(types.float32)
    turns = array(types.complex64)
    signature = types.float32[:, ::1](
        floats, whole, whole, floats, array(types.complex64, 2), places, turns, places, places, floats
    )
    return compile_or_load(_mel_power, signature)


def compile_or_load(function: Callable[..., Any], signature: Any) -> Callable[..., Any]:
    """Compile for this machine (four seconds), or load what an earlier process compiled (0.3 s).

    Numba keeps it in NUMBA_CACHE_DIR, else beside this file, else in the user's cache folder.
    It notices changes of this file only: whatever the function calls must stand here too.
    """
    # One name for each kind of machine: two kinds that share the folder and compile at the same
    # moment can otherwise get each other's code, and die of it.
    machine = f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"
    function.__qualname__ = f"{function.__name__}_{zlib.crc32(machine.encode()):08x}"
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(signature, cache=True, **options)(function)  # type: ignore[no-any-return]
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        # No folder to keep it in, a full disk, a file cut short by a power failure: do without.
        return njit(signature, **options)(function)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class MelPlan:
    """What can be worked out before the wave is there."""

    hop: int
    taper_W: NDArray[np.float32]
    twiddles_C3: NDArray[np.complex64]  # of the pass over blocks of 4 q points: from row q on, q rows
    order_C: NDArray[np.int64]  # where the transform leaves each bin
    turns_C: NDArray[np.complex64]
    bin_M: NDArray[np.int64]  # the first bin that a band listens to
    start_M: NDArray[np.int64]  # where its weights start; one more, for the end
    weights_K: NDArray[np.float32]


def plan_mel(taper_W: NDArray[np.float32], filters_MN: NDArray[np.float32], hop: int) -> MelPlan:
    """Prepare for waves of one kind.

    Raises: ValueError if the window is no power of two from 8 up.
    """
    window = taper_W.size
    if window < 8 or window & (window - 1):
        raise ValueError(f"a window of {window} samples; want a power of two, 8 or more")
    size = window // 2
    twiddles_C3 = np.ones((size, 3), np.complex64)
    quarter = size // 4
    while quarter:
        steps = np.outer(np.arange(quarter), [1, 2, 3]) / (4 * quarter)
        twiddles_C3[quarter : 2 * quarter] = np.exp(-2j * np.pi * steps)
        quarter //= 4
    heard = [np.flatnonzero(weights_N) for weights_N in filters_MN]
    spans = [slice(bins[0], bins[-1] + 1) if bins.size else slice(0, 0) for bins in heard]
    return MelPlan(
        hop=hop,
        taper_W=taper_W,
        twiddles_C3=twiddles_C3,
        order_C=np.argsort(_bins_in_place(size)),
        turns_C=np.exp(-2j * np.pi * np.arange(size) / window).astype(np.complex64),
        bin_M=np.array([span.start for span in spans]),
        start_M=np.cumsum([0, *(span.stop - span.start for span in spans)]),
        weights_K=np.concatenate([row_N[span] for row_N, span in zip(filters_MN, spans, strict=True)]),
    )


def _bins_in_place(size: int) -> NDArray[np.int64]:
    """Tell which bin the transform leaves at each place: a pass sends bin 4 m + r to the r-th quarter."""
    if size < 4:
        return np.arange(size)
    return np.concatenate([4 * _bins_in_place(size // 4) + r for r in range(4)])


def mel_power(wave_S: NDArray[np.float32], plan: MelPlan) -> NDArray[np.float32]:
    """Find the power in each band of each whole frame of a wave.

    Shapes: (S,) -> (F, M) with F = 1 + (S - window) // hop, at least 1.
    """
    frames = 1 + (wave_S.size - plan.taper_W.size) // plan.hop
    mel_FM = _kernel()(
        np.require(wave_S, np.float32, ["C", "A"]),
        frames,
        plan.hop,
        plan.taper_W,
        plan.twiddles_C3,
        plan.order_C,
        plan.turns_C,
        plan.bin_M,
        plan.start_M,
        plan.weights_K,
    )
    return np.ascontiguousarray(mel_FM[:frames, : plan.bin_M.size])
