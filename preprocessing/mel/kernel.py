# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
# (numba infers the types of what it compiles)
"""Mel power of a wave, sixteen frames at a time, compiled: for windows that are a power of two.

A vector register has one value of each of sixteen frames, one frame a lane. So every step of the
transform is plain arithmetic on whole registers, without shuffles within a frame, and a frame's
result is the same to the bit in each lane and beside any other frames.
All steps are one pass: sixteen frames and their spectra (260 kB) stay in the L2 cache.

Axes: S samples, F frames, W window, C = W / 2 complex points, N = C + 1 spectrum bins, M mel
bands, K the weights of all bands end to end. Buffers are flat pointers; "element i" of one is the
register at i * LANES.
"""

import operator
from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import models, overload, register_model

from preprocessing.mel.plan import LANES

njit: Any = numba.njit
intrinsic: Any = numba.extending.intrinsic

VECTOR = ir.VectorType(ir.FloatType(), LANES)
LANE_NUMBERS = ir.VectorType(ir.IntType(32), LANES)


class LanesType(types.Type):
    """The type of sixteen float32 in a register, to numba."""


lanes = LanesType("Lanes")


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """The same type, to LLVM."""

    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, VECTOR)


def _register_at(builder, floats, at):
    """Return a pointer to the sixteen floats that start at `at`; they need not be aligned."""
    return builder.bitcast(builder.gep(floats, [at]), VECTOR.as_pointer())


@intrinsic
def load(typing, floats, at):
    """Read sixteen floats."""

    def code(context, builder, signature, arguments):
        return builder.load(_register_at(builder, *arguments), align=4)

    return lanes(floats, types.intp), code


@intrinsic
def store(typing, floats, at, value):
    """Write sixteen floats."""

    def code(context, builder, signature, arguments):
        floats, at, value = arguments
        builder.store(value, _register_at(builder, floats, at), align=4)
        return context.get_dummy_value()

    return types.void(floats, types.intp, lanes), code


@intrinsic
def splat(typing, number):
    """Fill all lanes with one float."""

    def code(context, builder, signature, arguments):
        empty = ir.Constant(VECTOR, ir.Undefined)
        one = builder.insert_element(empty, arguments[0], ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, empty, ir.Constant(LANE_NUMBERS, None))

    return lanes(types.float32), code


def _implement_for_lanes(operation, instruction):
    """Implement an operator for two registers; "contract" allows fused multiply-add and nothing else."""

    @intrinsic
    def on_lanes(typing, a, b):
        def code(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments, flags=("contract",))

        return lanes(lanes, lanes), code

    @overload(operation)
    def on_types(a, b):
        return (lambda a, b: on_lanes(a, b)) if a is lanes and b is lanes else None


_implement_for_lanes(operator.add, "fadd")
_implement_for_lanes(operator.sub, "fsub")
_implement_for_lanes(operator.mul, "fmul")


@intrinsic
def transpose(typing, source, at, step, target, to, stride):
    """Read sixteen registers at `at`, `at + step`, ..., transpose them, and write them from `to` on, `stride` apart.

    To interleave the first half of the rows with the second, four times, is a transposition.
    """

    def code(context, builder, signature, arguments):
        source, at, step, target, to, stride = arguments
        interleaved = [k // 2 + k % 2 * LANES for k in range(2 * LANES)]
        halves = [
            ir.Constant(LANE_NUMBERS, interleaved[:LANES]),
            ir.Constant(LANE_NUMBERS, interleaved[LANES:]),
        ]
        rows = []
        for _ in range(LANES):
            rows.append(builder.load(_register_at(builder, source, at), align=4))
            at = builder.add(at, step)
        for _ in range(4):
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
        for row in rows:
            builder.store(row, _register_at(builder, target, to), align=4)
            to = builder.add(to, stride)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), code


# Everything is one function without errors, so that its machine code needs nothing of numba's.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "forceinline": True}
compiled = njit(**OPTIONS)


@compiled
def _fold(wave_S, samples, begin, hop, height, width, folded):
    """Copy `width` parts of the wave, a hop apart and `height` samples long, to columns; zeros after its end.

    Sample n of frame f is then in row n % hop, column f + n // hop: sixteen frames are
    sixteen adjacent columns, and samples that frames share are stored once.
    """
    for column in range(0, width, LANES):
        at = begin + column * hop
        if height >= LANES and at + (LANES - 1) * hop + height <= samples:
            for row in range(0, height, LANES):
                top = min(row, height - LANES)
                transpose(wave_S, at + top, hop, folded, top * width + column, width)
        else:
            for lane in range(LANES):
                first = at + lane * hop
                for row in range(height):
                    inside = first + row < samples
                    folded[row * width + column + lane] = wave_S[first + row] if inside else np.float32(0)


@compiled
def _taper(folded, hop, width, taper_W, window, points):
    """Copy sixteen frames, tapered: point c is the samples 2 c (real) and 2 c + 1 (imaginary)."""
    row, column = 0, 0
    for n in range(window):
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
def _transform(points, size, twiddles_C3):
    """Fourier-transform sixteen frames of C complex points in place; bin k is then point `order_C[k]`.

    Source: decimation in frequency, radix 4, and a last pass of radix 2 if C is not a power
        of 4 (Oppenheim & Schafer, Discrete-Time Signal Processing, 9.4).
    """
    quarter = size // 4
    while quarter:
        for block in range(size // (4 * quarter)):  # a variable step could raise an error
            first = 4 * quarter * block
            for j in range(first, first + quarter):
                turns = 3 * (quarter + j - first)
                a_re, a_im = _point(points, j)
                b_re, b_im = _point(points, j + quarter)
                c_re, c_im = _point(points, j + 2 * quarter)
                d_re, d_im = _point(points, j + 3 * quarter)
                ac_re, ac_im, a_c_re, a_c_im = a_re + c_re, a_im + c_im, a_re - c_re, a_im - c_im
                bd_re, bd_im, b_d_re, b_d_im = b_re + d_re, b_im + d_im, b_re - d_re, b_im - d_im
                _put(points, j, ac_re + bd_re, ac_im + bd_im)
                _put_turned(points, j + quarter, a_c_re + b_d_im, a_c_im - b_d_re, twiddles_C3[turns])
                _put_turned(points, j + 2 * quarter, ac_re - bd_re, ac_im - bd_im, twiddles_C3[turns + 1])
                _put_turned(points, j + 3 * quarter, a_c_re - b_d_im, a_c_im + b_d_re, twiddles_C3[turns + 2])
        last, quarter = quarter, quarter // 4
    if last == 2:
        for c in range(0, size, 2):
            a_re, a_im = _point(points, c)
            b_re, b_im = _point(points, c + 1)
            _put(points, c, a_re + b_re, a_im + b_im)
            _put(points, c + 1, a_re - b_re, a_im - b_im)


@compiled
def _power(points, size, order_C, turns_C, power):
    """Compute the power of the N bins of sixteen real frames from the transform of their C complex points.

    Source: even samples transform to E = (Z_k + conj Z_-k) / 2, odd ones to O = (Z_k - conj Z_-k) / 2i;
        X_k = E + turn_k O and X_(C-k) = conj(E - turn_k O).
    """
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


def mel_power(
    wave_S, samples, frames, hop, taper_W, window, twiddles_C3, order_C, turns_C, bin_M, start_M, weights_K, bands,
    folded, height, width, points, power, mel, mel_FM, row,
):  # fmt: skip
    """Compute the mel power of all frames. Frames and bands of the result are rounded up to whole registers.

    The buffers hold: `folded` height * width floats, `points` window registers, `power` N, `mel` `row`
    registers; a row of `mel_FM` has `row` floats.
    """
    for first in range(0, frames, LANES):
        _fold(wave_S, samples, first * hop, hop, height, width, folded)
        _taper(folded, hop, width, taper_W, window, points)
        _transform(points, window // 2, twiddles_C3)
        _power(points, window // 2, order_C, turns_C, power)
        for band in range(bands):
            total = splat(np.float32(0))
            for k in range(start_M[band], start_M[band + 1]):
                total = total + load(power, (bin_M[band] + k - start_M[band]) * LANES) * splat(weights_K[k])
            store(mel, band * LANES, total)
        for band in range(0, bands, LANES):
            transpose(mel, band * LANES, LANES, mel_FM, first * row + band, row)


def compile_mel_power() -> Any:
    """Compile `mel_power` for this machine, to a C function that takes pointers and sizes."""
    floats, complexes = types.CPointer(types.float32), types.CPointer(types.complex64)
    whole, wholes = types.int64, types.CPointer(types.int64)
    wave = (floats, whole, whole, whole)
    transform = (floats, whole, complexes, wholes, complexes)
    filters = (wholes, wholes, floats, whole)
    scratch = (floats, whole, whole, floats, floats, floats)
    signature = types.void(*wave, *transform, *filters, *scratch, floats, whole)
    return numba.cfunc(signature, **OPTIONS)(mel_power)
