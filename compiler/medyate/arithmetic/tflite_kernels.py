# SPDX-License-Identifier: Apache-2.0
"""What TFLite's reference kernels compute out of the scales in a file, where that is no plain formula.

The device takes its multipliers and tables from the weights; a file cannot hold them. So a writer asks
here whether TFLite arrives at the same. Sources: tensorflow/lite/kernels, version 2.14, and the fixed-point
functions of gemmlowp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.functions import Function
from medyate.arithmetic.scheme import ADD_LEFT_SHIFT, QMAX, QMIN, Integers, fixed_point, half_away, requantize_exact
from medyate.ir import Activation, Quant

Steps = NDArray[np.int64]
INT32_MAX = 2**31 - 1
Q4 = 27
"""Fractional bits of the input of TFLite's sigmoid and tanh."""
SOFTMAX_FRACTION = 26
"""Fractional bits of the exponents of its softmax."""
SUM_BITS = 12
"""Integer bits of the sum of exponentials."""
CLAMPS: Mapping[tuple[float, float], str] = {
    (0.0, math.inf): "RELU",
    (-1.0, 1.0): "RELU_N1_TO_1",
    (0.0, 6.0): "RELU6",
}
"""Ranges that have an operator, and a code as fused activation."""
RESULTS: Mapping[str, Quant] = {"sigmoid": Quant(1 / 256, -128), "tanh": Quant(1 / 128, 0)}
"""The only output scales that LOGISTIC and TANH have."""


def affine_multipliers(facts: Integers, *, in_binary32: bool) -> NDArray[np.float64]:
    """s_x s_w / s_y of every output channel; `in_binary32`: s_x s_w rounded, as FULLY_CONNECTED and uint8 have it."""
    x, y = facts.inputs[0].scale, facts.output.scale
    scales = np.asarray(facts.arrays["scale"], np.float64)
    product = (np.float32(x) * scales.astype(np.float32)).astype(np.float64) if in_binary32 else x * scales
    multipliers: NDArray[np.float64] = product / y
    return multipliers


def same_pairs(facts: Integers, multipliers: NDArray[np.float64]) -> bool:
    """Whether the stored multipliers round to the same integers as these."""
    return [fixed_point(m) for m in facts.multipliers] == [fixed_point(float(m)) for m in multipliers]


def bounds_in_binary32(activation: Activation, quant: Quant) -> tuple[int, int]:
    """The range of a clamp in output steps; TFLite divides in binary32."""
    if activation is None:
        return QMIN, QMAX
    low, high = (
        limit if math.isinf(limit) else quant.zero + half_away(float(np.float32(limit) / np.float32(quant.scale)))
        for limit in activation
    )
    return int(max(QMIN, low)), int(min(QMAX, high))


def requantized(values: Steps, multiplier: float) -> Steps:
    """MultiplyByQuantizedMultiplier."""
    return _requantized(values, *fixed_point(multiplier))


def _requantized(values: Steps, mult: int, shift: int) -> Steps:
    import torch

    steps: Steps = requantize_exact(torch.from_numpy(values), torch.tensor(mult), torch.tensor(shift)).numpy()
    return steps


def product_differences(facts: Integers) -> int:
    """Products of two inputs that MUL, whose multiplier is a binary32 number, brings to another step."""
    a, b, y = (np.float32(quant.scale) for quant in (*facts.inputs, facts.output))
    largest = (QMAX - QMIN) ** 2
    products = np.arange(-largest, largest + 1)
    ours, theirs = (requantized(products, m) + facts.output.zero for m in (facts.multipliers[0], float(a * b / y)))
    return int((np.clip(ours, *facts.bounds) != np.clip(theirs, *facts.bounds)).sum())


def table(function: Function, x: Quant, y: Quant) -> NDArray[np.int8] | None:
    """TFLite's output of every input from -128; None: it has no such operator."""
    if function.kind not in TABLES or RESULTS.get(function.kind, y) != y:
        return None
    inputs = np.arange(QMIN, QMAX + 1) - x.zero
    steps = np.clip(TABLES[function.kind](function, inputs, x, y), QMIN, QMAX)
    return np.asarray(steps, np.int8)


def looked_up(kind: str, x: Quant, y: Quant) -> NDArray[np.int8] | None:
    """The table that TFLite itself makes of a function, in binary32; None: it makes none."""
    if kind not in LOOKED_UP:
        return None
    real = (np.arange(QMIN, QMAX + 1) - x.zero).astype(np.float32) * np.float32(x.scale)
    with np.errstate(over="ignore"):
        steps = np.asarray(LOOKED_UP[kind](real), np.float32) * (np.float32(1) / np.float32(y.scale))
    whole = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)) + y.zero
    return np.asarray(np.clip(whole, QMIN, QMAX), np.int8)


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    errors = np.array([math.erf(value) for value in x * np.float32(math.sqrt(0.5))], np.float32)
    return np.asarray(np.float32(0.5) * x * (np.float32(1) + errors), np.float32)


def _gelu_tanh(x: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.asarray(np.float32(0.5) * x * (np.float32(1) + np.tanh(inner)), np.float32)


LOOKED_UP: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "exp": np.exp,
}


def magnitudes(x: Quant, y: Quant) -> NDArray[np.int8]:
    """ABS of every input from -128."""
    inputs = np.abs(np.arange(QMIN, QMAX + 1) - x.zero)
    ratio = float(np.float32(x.scale) / np.float32(y.scale))
    steps = inputs if x.scale == y.scale else requantized(inputs, ratio)
    return np.asarray(np.clip(steps + y.zero, QMIN, QMAX), np.int8)


def turns_signs(quants: tuple[Quant, Quant], b: int) -> bool:
    """Whether SUB of two such tensors is ADD of the first and the negative second one (number `b`), to the step.

    They differ where the second one, brought to the common scale, lies halfway between two numbers.
    """
    largest = 2 * max(quant.scale for quant in quants)
    steps = (np.arange(QMIN, QMAX + 1) - quants[b].zero).astype(np.int64) << ADD_LEFT_SHIFT
    ratio = quants[b].scale / largest
    return bool((requantized(-steps, ratio) == -requantized(steps, ratio)).all())


def table_differences(function: Function, facts: Integers) -> int | None:
    """Entries of the stored table that TFLite computes otherwise; None: it has no such operator."""
    x, y = facts.inputs[0], facts.output
    theirs = magnitudes(x, y) if function.kind == "abs" else looked_up(function.kind, x, y)
    theirs = table(function, x, y) if theirs is None else theirs
    return None if theirs is None else int((facts.arrays["table"] != theirs).sum())


def _identity(_: Function, inputs: Steps, x: Quant, y: Quant) -> Steps:
    return requantized(inputs, x.scale / y.scale) + y.zero


def _clip(function: Function, inputs: Steps, x: Quant, y: Quant) -> Steps:
    """RELU and its kin divide the scales in binary32; QUANTIZE in front of other limits does not."""
    named = (function.low, function.high) in CLAMPS
    ratio = float(np.float32(x.scale) / np.float32(y.scale)) if named else x.scale / y.scale
    return np.clip(requantized(inputs, ratio) + y.zero, *bounds_in_binary32((function.low, function.high), y))


def _leaky_relu(function: Function, inputs: Steps, x: Quant, y: Quant) -> Steps:
    scale, other = np.float32(x.scale), np.float32(y.scale)
    above = requantized(inputs, float(scale / other))
    below = requantized(inputs, float(scale * np.float32(function.low) / other))
    return np.where(inputs >= 0, above, below) + y.zero


def _hard_swish(_: Function, inputs: Steps, x: Quant, y: Quant) -> Steps:
    """16-bit fixed point: the input at 2^-7 of its scale, times a ramp from 0 to 1."""
    fine = np.float32(1 / 128) * np.float32(x.scale)
    (out_mult, out_shift), (ramp_mult, ramp_shift) = (
        fixed_point(float(fine / unit)) for unit in (np.float32(y.scale), np.float32(3.0) / np.float32(32768.0))
    )
    out16, ramp16 = (min((mult + (1 << 15)) >> 16, 32767) for mult in (out_mult, ramp_mult))
    value = inputs << 7
    scaled = _high_mul16(value, out16)
    ramp = value
    if ramp_shift > 0:
        ramp = _saturated16(ramp << (ramp_shift - 1))
    ramp = _high_mul16(ramp, ramp16)
    if ramp_shift > 0:
        ramp = _saturated16(ramp << 1)
    elif ramp_shift < 0:
        ramp = _divided(ramp, -ramp_shift)
    ramp = (ramp + (1 << 15)) >> 1
    product = ramp * scaled
    truncated = np.sign(product) * (np.abs(product) >> 15)  # unlike the other products
    return _divided(truncated, -out_shift) + y.zero


def _saturated16(values: Steps) -> Steps:
    return np.clip(values, -(2**15), 2**15 - 1)


def _high_mul16(a: Steps, b: int) -> Steps:
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    return np.where(nudged >= 0, nudged >> 15, -((-nudged) >> 15))


def _divided(values: Steps, bits: int | Steps) -> Steps:
    """By a power of two, halves away from zero."""
    mask = (np.int64(1) << np.asarray(bits, np.int64)) - 1
    rounded: Steps = (values >> bits) + ((values & mask) > (mask >> 1) + (values < 0))
    return rounded


def _sigmoid(_: Function, inputs: Steps, x: Quant, __: Quant) -> Steps:
    def unit(fixed: Steps) -> Steps:
        positive = _divide_by_one_plus(_exp_of_negative(-np.abs(fixed), Q4), 0)
        return np.where(fixed == 0, 1 << 30, np.where(fixed > 0, positive, INT32_MAX - positive))

    return _in_q4(unit, inputs, x, 8, -128)


def _tanh(_: Function, inputs: Steps, x: Quant, __: Quant) -> Steps:
    def unit(fixed: Steps) -> Steps:
        positive = _divide_by_one_plus(_exp_of_negative(-np.abs(fixed), Q4 - 1), 1 << 29)
        return np.sign(fixed) * positive

    return _in_q4(unit, inputs, x, 7, 0)


def _in_q4(function: Callable[[Steps], Steps], inputs: Steps, x: Quant, bits: int, zero: int) -> Steps:
    """A function of numbers between -16 and 16 with results of 31 bits, of which `bits` are kept."""
    mult, shift = fixed_point(x.scale * 2.0**Q4)
    radius = math.floor((2**4 - 1) * 2.0 ** (Q4 - shift))
    inner = np.abs(inputs) < radius
    fixed = _requantized(np.where(inner, inputs, 0), mult, shift)
    steps = _divided(function(fixed), 31 - bits) + zero
    return np.where(inner, steps, np.where(inputs < 0, QMIN, QMAX))


def _high_mul(a: Steps, b: Steps | int) -> Steps:
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    return np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))


def _exp_of_negative(a: Steps, fraction: int) -> Steps:
    """exp_on_negative_values: a quarter by a polynomial, the rest by factors exp(-2^k); result of 31 bits."""
    quarter = 1 << (fraction - 2)
    part = (a & (quarter - 1)) - quarter
    x = (part << (31 - fraction)) + (1 << 28)
    square = _high_mul(x, x)
    cube, fourth = _high_mul(square, x), _high_mul(square, square)
    rest = _divided(_high_mul(_divided(fourth, 2) + cube, 715827883) + square, 1)
    result = 1895147668 + _high_mul(x + rest, 1895147668)
    remainder = part - a
    for exponent, factor in EXPONENTIALS:
        if exponent < 31 - fraction:
            bit = (remainder >> (fraction + exponent)) & 1
            result = np.where(bit == 1, _high_mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


EXPONENTIALS = (
    (-2, 1672461947),
    (-1, 1302514674),
    (0, 790015084),
    (1, 290630308),
    (2, 39332535),
    (3, 720401),
    (4, 242),
)


def _divide_by_one_plus(a: Steps, less: int) -> Steps:
    """1 / (1 + a) of 31 bits by Newton's method; less = 2^29: 2 / (1 + a) - 1."""
    half = (a + INT32_MAX + 1) >> 1
    x = 1515870810 + _high_mul(half, -1010580540)
    for _ in range(3):
        x = x + np.clip(_high_mul(x, (1 << 29) - _high_mul(half, x)) << 2, -(2**31), INT32_MAX)
    result: Steps = np.clip((x - less) << (2 if less else 1), -(2**31), INT32_MAX)
    return result


def softmax_table(scale: float, beta: float) -> Steps:
    """exp(-beta scale i) of 31 bits for i = 0 .. 255; zero below what TFLite lets count."""
    mult, shift = fixed_point(min(beta * scale * 2.0**SOFTMAX_FRACTION, 2.0**31 - 1.0))
    radius = math.floor((2**5 - 1) * 2.0 ** (SOFTMAX_FRACTION - shift))
    steps = np.arange(QMAX - QMIN + 1)
    scaled = np.clip(-steps * 2.0**shift, -(2**31), 0).astype(np.int64)
    return np.where(steps <= radius, _exp_of_negative(_high_mul(scaled, mult), SOFTMAX_FRACTION), 0)


def softmax(table: Steps, x: Steps) -> Steps:
    """Reference SOFTMAX over the rows (n, classes) of int8 values, from softmax_table; scale 1/256, zero -128."""
    terms = np.asarray(table, np.int64)[x.max(axis=1, keepdims=True) - x]
    total = _divided(terms, SUM_BITS).sum(axis=1, keepdims=True)
    zeros = 31 - np.floor(np.log2(total)).astype(np.int64)
    inverse = _divide_by_one_plus((total << zeros) - (1 << 31), 0)
    shares = _divided(_high_mul(inverse, terms), SUM_BITS - zeros + 31 - 8)
    return np.clip(shares + QMIN, QMIN, QMAX)


TABLES: Mapping[str, Callable[[Function, Steps, Quant, Quant], Steps]] = {
    "identity": _identity,
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "hard_swish": _hard_swish,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
}
