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
from medyate.plan.parameters import NORM_BITS
from medyate.run.session import Training
from medyate.sample.policy import pack, unpack

CHANNELS, OUTPUTS, HEAD, RECORD = 6, 9, 10, 24
KEY = 0x1234ABCD


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load("sgd_probe.c", tmp_path_factory.mktemp("sgd"), ("src/sgd.c", "src/fixed.c"))


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


@pytest.mark.parametrize("clip", [0.0, 1e-3, 0.01, 0.3, 1000.0])
@pytest.mark.parametrize("size", [20, 3000, 2_000_000])
def test_update(library: ctypes.CDLL, clip: float, size: int) -> None:
    random = np.random.default_rng(size)
    sums = random.integers(-size, size, (CHANNELS, OUTPUTS)).astype(np.int32)
    rate_mult = random.integers(1 << 14, 1 << 15, OUTPUTS).astype(np.uint16)
    rate_mult[3] = 0  # a dead output
    rate_exponent = random.integers(-8, -4, OUTPUTS).astype(np.int8)
    weights = random.integers(-127, 128, CHANNELS * OUTPUTS).astype(np.int8)
    norm_mult, norm_exponent, exponent, lr_mult, lr_exponent = 20000, -9, -6, 24576, -21
    records = np.zeros((CHANNELS, RECORD), np.uint8)
    records[:, 8] = np.arange(CHANNELS)
    code = pack(round(clip * 2**NORM_BITS))
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (sums, rate_mult, rate_exponent, weights, records)]
    library.sgd_step(
        CHANNELS, OUTPUTS, pointers[0], 1000 + exponent, pointers[1], pointers[2], norm_mult, 1000 + norm_exponent,
        lr_mult, 1000 + lr_exponent, code, ctypes.c_uint32(KEY), pointers[3], pointers[4],
    )  # fmt: skip
    seen = squares(sums, rate_mult == 0, norm_mult, exponent + norm_exponent)
    assert records[:, :8].copy().view("<u8")[:, 0].tolist() == seen
    norm = math.isqrt(sum(seen))
    mult, at = clipped(lr_mult, lr_exponent, norm, unpack(code))
    for c in range(CHANNELS):
        for o in range(OUTPUTS):
            offset = o * CHANNELS + c
            shift = -(exponent + int(rate_exponent[o]) + at)
            product = int(sums[c, o]) * int(rate_mult[o]) * mult
            draw = rng.draw(KEY, offset)
            far = max(0, shift - 32)
            step = ((product >> far) + (draw >> (32 - shift + far))) >> (shift - far)
            step = 0 if sums[c, o] == 0 or rate_mult[o] == 0 else max(-(2**31), min(2**31 - 1, step))
            base = int(weights[offset])
            low, high = (-127 - base if base < 0 else -128), (127 - base if base > 0 else 127)
            assert records[c, HEAD + o].astype(np.int8) == max(low, min(high, -step))
    if code and norm > unpack(code):  # the step is as long as the bound allows
        allowed = lr_mult * 2.0**lr_exponent * unpack(code)
        assert mult * 2.0**at * norm == pytest.approx(allowed, rel=1e-3)


def test_a_clip_travels_as_a_packed_norm() -> None:
    assert unpack(Training(0.01, 1, 1, clip=0.25).settings().clip) == 0.25 * 2**NORM_BITS
    assert Training(0.01, 1, 1, clip=0).settings().clip == 0
