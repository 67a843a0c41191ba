# SPDX-License-Identifier: Apache-2.0
"""The update of selected channels against SPEC.md, 1.7 and 1.8, in Python's integers."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest

from clibrary import load
from medyate import rng
from medyate.arithmetic.scheme import mantissa15
from medyate.ledger import ChannelCost
from medyate.optimizer import SGD
from medyate.plan.parameters import NORM_BITS
from medyate.run.session import Training
from medyate.sample.policy import pack, unpack

CHANNELS, OUTPUTS, HEAD = 6, 9, 10
Integers = np.ndarray[Any, Any]
KEY = 0x1234ABCD


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load(
        "sgd_probe.c",
        tmp_path_factory.mktemp("sgd"),
        ("src/sgd.c", "src/gradient_norm.c", "src/schedule.c", "src/fixed.c"),
    )


def round_shift(x: int, shift: int) -> int:
    return (x + (1 << shift >> 1)) >> shift


def squares(sums: np.ndarray[Any, Any], dead: np.ndarray[Any, Any], mult: int, exponent: int) -> list[int]:
    """Of each channel, in norm units."""
    found = []
    for row in sums.tolist():
        total = 0
        for value, out in zip(row, dead.tolist(), strict=True):
            v = abs(value) * mult
            v = (0 if exponent < -62 else round_shift(v, -exponent)) if exponent <= 0 else v << exponent
            total += 0 if out else min(v, 1 << 24) ** 2
        found.append(total)
    return found


def clipped(mult: int, exponent: int, norm: int, most: int) -> tuple[int, int]:
    """The rate of a layer whose gradient is bounded."""
    if not most or norm <= most:
        return mult, exponent
    mult, exponent = (mult * most << 15) // norm, exponent - 15
    while mult > 65535:
        mult, exponent = mult >> 1, exponent + 1
    return mult, exponent


def shifted(product: int, shift: int, draw: int) -> int:
    """stochastic_shift of SPEC.md, 1.3, for shifts above 0."""
    far = max(0, shift - 32)
    return max(-(2**31), min(2**31 - 1, ((product >> far) + (draw >> (32 - shift + far))) >> (shift - far)))


@pytest.mark.parametrize("batch_log2", [0, 1, 3])
@pytest.mark.parametrize("clip", [0.0, 1e-3, 0.01, 0.3, 1000.0])
@pytest.mark.parametrize("size", [20, 3000, 2_000_000])
def test_update(library: ctypes.CDLL, clip: float, size: int, batch_log2: int) -> None:
    random = np.random.default_rng(size)
    sums = random.integers(-size, size, (1 << batch_log2, CHANNELS, OUTPUTS)).astype(np.int32)
    rate_mult = random.integers(1 << 14, 1 << 15, OUTPUTS).astype(np.uint16)
    rate_mult[3] = 0  # a dead output
    rate_exponent = random.integers(-8, -4, OUTPUTS).astype(np.int8)
    weights = random.integers(-127, 128, CHANNELS * OUTPUTS).astype(np.int8)
    weights[::3] = 0  # whose deltas may be as low as -127, not -128
    norm_mult, norm_exponent, exponent, lr_mult, lr_exponent = 20000, -9, -6, 24576, -21
    cost = ChannelCost(OUTPUTS, 1).trained_by(SGD, 1 << batch_log2)
    records = np.zeros((CHANNELS, cost.record_bytes), np.uint8)
    records[:, 8] = np.arange(CHANNELS)
    code = pack(round(clip * 2**NORM_BITS))
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (sums, rate_mult, rate_exponent, weights, records)]
    library.sgd_step(
        CHANNELS, OUTPUTS, pointers[0], 1000 + exponent, pointers[1], pointers[2], norm_mult, 1000 + norm_exponent,
        lr_mult, 1000 + lr_exponent, code, ctypes.c_uint32(KEY), pointers[3], pointers[4],
        cost.record_bytes, batch_log2,
    )  # fmt: skip
    bound = unpack(code)
    unit = bound.bit_length() - 12 if bound else 5
    waiting, squared = np.zeros((CHANNELS, OUTPUTS), int), [0] * CHANNELS
    for sample, gradients in enumerate(sums):
        seen = squares(gradients, rate_mult == 0, norm_mult, exponent + norm_exponent)
        squared = [a + b for a, b in zip(squared, seen, strict=True)]
        norm = math.isqrt(sum(seen))
        mult, at = clipped(lr_mult, lr_exponent, norm, 0 if batch_log2 else bound)
        for c, o in np.ndindex(CHANNELS, OUTPUTS):
            if gradients[c, o] == 0 or rate_mult[o] == 0:
                continue
            draw = rng.draw(KEY + sample, o * CHANNELS + c)
            if batch_log2:
                shift = -(exponent + norm_exponent - unit - batch_log2)
                mean = waiting[c, o] + shifted(int(gradients[c, o]) * norm_mult, shift, draw)
                waiting[c, o] = max(-32767, min(32767, mean))
            else:
                shift = -(exponent + int(rate_exponent[o]) + at)
                waiting[c, o] = shifted(int(gradients[c, o]) * int(rate_mult[o]) * mult, shift, draw)
        if 0 < bound < norm and not batch_log2:  # the step is as long as the bound allows
            assert mult * 2.0**at * norm == pytest.approx(lr_mult * 2.0**lr_exponent * bound, rel=1e-3)
    assert records[:, :8].copy().view("<u8")[:, 0].tolist() == squared
    length, most = math.isqrt(int((waiting**2).sum())), bound * 2.0**-unit
    mult = lr_mult * int(most) // length if bound > 0 and length > int(most) else lr_mult
    for c, o in np.ndindex(CHANNELS, OUTPUTS):
        offset = o * CHANNELS + c
        step = int(waiting[c, o])
        if batch_log2 and step:
            scale = (int(rate_mult[o]) << 16) // norm_mult
            shift = -(unit + lr_exponent + batch_log2 + int(rate_exponent[o]) - norm_exponent - 16)
            step = shifted(step * scale * mult, shift, rng.draw(KEY - 1, offset))
        base = int(weights[offset])
        low, high = max(-128, -127 - base), min(127, 127 - base)
        assert records[c, HEAD + o].astype(np.int8) == max(low, min(high, -step))
    assert not records[:, cost.record_bytes - cost.kept * cost.weights :].any(), "the next batch starts anew"


@pytest.mark.parametrize("rate", [0.04, 0.01, 0.001, 1e-4])
@pytest.mark.parametrize("size", [0.3, 0.1])
@pytest.mark.parametrize("batch_log2", [2, 6])
def test_a_batch_takes_the_step_of_its_mean_gradient_whatever_the_rate(
    library: ctypes.CDLL, rate: float, size: float, batch_log2: int
) -> None:
    """The same gradient from every sample: what is summed and rounded on the way does not make the step shorter."""
    channels, outputs, scale, grain = 128, 96, 0.005, 2.0**-16
    random = np.random.default_rng(batch_log2)
    gradient = random.normal(size=(channels, outputs))
    gradient *= size / np.sqrt((gradient**2).sum())
    sums = np.repeat(np.round(gradient / grain).astype(np.int32)[None], 1 << batch_log2, axis=0)
    mults, norms, rates = mantissa15(1 / scale), mantissa15(1.0), mantissa15(rate / (1 << batch_log2))
    rate_mult, rate_exponent = np.full(outputs, mults[0], np.uint16), np.full(outputs, mults[1], np.int8)
    weights, code = np.zeros(channels * outputs, np.int8), pack(round(0.3 * 2**NORM_BITS))
    cost = ChannelCost(outputs, 1).trained_by(SGD, 1 << batch_log2)
    taken = np.zeros((channels, outputs))
    for draw in range(8):
        records = np.zeros((channels, cost.record_bytes), np.uint8)
        records[:, 8] = np.arange(channels)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (sums, rate_mult, rate_exponent, weights, records)]
        library.sgd_step(
            channels, outputs, pointers[0], 1000 - 16, pointers[1], pointers[2], norms[0], 1000 + norms[1] + NORM_BITS,
            rates[0], 1000 + rates[1], code, ctypes.c_uint32(KEY + 1000 * draw), pointers[3], pointers[4],
            cost.record_bytes, batch_log2,
        )  # fmt: skip
        taken -= records[:, HEAD : HEAD + outputs].astype(np.int8)
    found = (taken / 8 * scale / rate * gradient).sum() / (gradient**2).sum()
    noise = 0.5 * scale / rate / size / np.sqrt(8)  # of the last rounding, along the gradient
    assert found == pytest.approx(1.0, abs=0.05 + 4 * noise)


@pytest.mark.parametrize("clip", [0.0, 1e-3, 0.3, 1000.0])
@pytest.mark.parametrize("size", [20, 3000, 2_000_000])
def test_update_of_biases(library: ctypes.CDLL, clip: float, size: int) -> None:
    random = np.random.default_rng(size + 1)
    sums = random.integers(-size, size, OUTPUTS).astype(np.int32)
    rate_mult = random.integers(1 << 14, 1 << 15, OUTPUTS).astype(np.uint16)
    rate_mult[3] = 0  # a dead output
    rate_exponent = random.integers(-2, 12, OUTPUTS).astype(np.int8)
    most = 1 << 30
    before = random.integers(-most, most, OUTPUTS).astype(np.int32)
    before[:2] = (most - 1, 1 - most)
    sums[:2] = (-size, size)
    biases, code = before.copy(), pack(round(clip * 2**NORM_BITS))
    norm_mult, norm_exponent, exponent, lr_mult, lr_exponent = 20000, -9, -6, 24576, -21
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (sums, rate_mult, rate_exponent, biases)]
    library.sgd_biases(
        OUTPUTS, pointers[0], 1000 + exponent, pointers[1], pointers[2], norm_mult, 1000 + norm_exponent,
        lr_mult, 1000 + lr_exponent, code, ctypes.c_uint32(KEY), most, pointers[3],
    )  # fmt: skip
    (total,) = squares(sums[None, :], rate_mult == 0, norm_mult, exponent + norm_exponent)
    mult, at = clipped(lr_mult, lr_exponent, math.isqrt(total), unpack(code))
    for o in range(OUTPUTS):
        shift = -(exponent + int(rate_exponent[o]) + at)
        assert shift > 0
        step = shifted(int(sums[o]) * int(rate_mult[o]) * mult, shift, rng.draw(KEY, o)) if rate_mult[o] else 0
        assert biases[o] == max(-most, min(most, int(before[o]) - step))
    assert biases[3] == before[3]


@pytest.mark.parametrize("batch_log2", [0, 2])
@pytest.mark.parametrize(("warmup", "total"), [(0, 40), (1, 40), (10, 40), (12, 400), (8, 8), (0, 1)])
def test_a_rate_rises_in_the_warm_up_and_falls_with_the_cosine(
    library: ctypes.CDLL, warmup: int, total: int, batch_log2: int
) -> None:
    """SPEC.md, 1.10: step 0 has 1 / warmup of the peak, the last of the warm-up all of it, and the end none."""
    peak = 32000
    for step in range(total + 5):
        first = step >> batch_log2 << batch_log2  # a batch has the rate of its first sample
        if first < warmup:
            factor = (first + 1) / warmup
        else:
            done = min(1.0, (first - warmup) / max(total - warmup, 1))
            factor = math.cos(math.pi / 2 * done) ** 2
        found = [library.sgd_rate(peak, warmup, total, cosine, step, batch_log2) for cosine in (1, 0)]
        assert abs(found[0] - peak * factor) <= peak / 2**13 + 1
        assert abs(found[1] - peak * (factor if first < warmup else 1.0)) <= 1


def test_a_clip_travels_as_a_packed_norm() -> None:
    assert unpack(Training(0.01, 1, 1, clip=0.25).settings().clip) == 0.25 * 2**NORM_BITS
    assert Training(0.01, 1, 1, clip=0).settings().clip == 0
