# SPDX-License-Identifier: Apache-2.0
"""Softmax without float: the same bits as float32, in each operation and in the whole."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clibrary import load

Array = NDArray[Any]
ZERO = -128
SCALES = (1e-3, 4e-3, 0.017, 0.05, 0.1, 0.25, 0.3333, 0.35, 0.4, 0.5, 0.8, 1.0, 2.0)
"""From 0.35 on the end of the table is subnormal, and from 0.41 on zero."""
COUNT = 400_000


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load("softmax_probe.c", tmp_path_factory.mktemp("softmax"), ())


def address(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def exponentials(scale: float) -> NDArray[np.float32]:
    exponents = np.float32(-scale) * np.arange(256, dtype=np.float32)
    return np.exp(exponents.astype(float)).astype(np.float32)  # NumPy's exponential of float32 is coarser than expf


def reference(table: NDArray[np.float32], x: NDArray[np.int8], zero: int) -> NDArray[np.int8]:
    terms = table[int(x.max()) - x.astype(np.int64)]
    total = np.add.accumulate(terms, dtype=np.float32)[-1]  # in order, unlike sum()
    real = terms * (np.float32(1) / (total * np.float32(1 / 256)))
    assert real.dtype == np.float32
    return np.clip(np.floor(real.astype(float) + 0.5) + zero, -128, 127).astype(np.int8)


def vectors(random: np.random.Generator, scale: float) -> list[NDArray[np.int8]]:
    """Of all lengths: spread out, within a few steps of the softmax's range, and the extremes."""
    found = []
    for n in [*range(1, 12), 100, 255, 256, 257, 1000, 1001, *random.integers(12, 1001, 25).tolist()]:
        found.append(random.integers(-128, 128, n))
        found.append(np.round(random.normal(random.uniform(-120, 120), random.uniform(0.5, 4) / scale, n)))
        found.append(np.full(n, random.integers(-128, 128)))
        found.append(random.choice([-128, 127], n))
        found.append(np.where(np.arange(n) == random.integers(n), 127, -128))
        found.append(np.linspace(127, -128, n).round())
    return [x.clip(-128, 127).astype(np.int8) for x in found]


@pytest.mark.parametrize("scale", SCALES)
def test_softmax_is_float32_bit_for_bit(scale: float, library: ctypes.CDLL) -> None:
    table = exponentials(scale)
    for x in vectors(np.random.default_rng(3), scale):
        for zero in (ZERO, -100, 0):
            y = x.copy()  # in place
            library.probe_softmax(address(table), zero, address(y), address(y), ctypes.c_uint32(len(y)))
            np.testing.assert_array_equal(y, reference(table, x, zero))


def test_softmax_leaves_its_input_alone(library: ctypes.CDLL) -> None:
    table = exponentials(0.1)
    x = np.random.default_rng(4).integers(-128, 128, 40).astype(np.int8)
    before, y = x.copy(), np.zeros(40, np.int8)
    library.probe_softmax(address(table), ZERO, address(x), address(y), ctypes.c_uint32(40))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, reference(table, x, ZERO))


def patterns(random: np.random.Generator, least: int = 0) -> NDArray[np.float32]:
    """Positive finite numbers of all exponents, a fifth of them subnormal, many with long runs of equal bits."""
    exponent = random.integers(0, 255, COUNT) * (random.random(COUNT) < 0.8)
    fraction = random.integers(0, 2**23, COUNT)
    run = 1 << random.integers(0, 24, COUNT)
    shape = random.integers(0, 4, COUNT)
    fraction = np.choose(shape, [fraction, run - 1, 2**23 - run, fraction & -run])
    return np.maximum(exponent << 23 | fraction, least).astype(np.uint32).view(np.float32)


def near(random: np.random.Generator, a: NDArray[np.float32]) -> NDArray[np.float32]:
    """Numbers of `patterns` no more than 2^28 away, where sums round in every way."""
    exponent = (a.view(np.uint32) >> 23).astype(np.int64) + random.integers(-28, 29, COUNT)
    fraction = patterns(random).view(np.uint32) & 0x7FFFFF
    return (exponent.clip(0, 254) << 23 | fraction).astype(np.uint32).view(np.float32)


def check(call: Callable[..., None], wanted: NDArray[np.float32], *operands: NDArray[np.float32]) -> None:
    """Where `wanted` is finite: the operations know no infinity, as softmax never meets it."""
    m, e = np.zeros(COUNT, np.uint32), np.zeros(COUNT, np.int32)
    call(*map(address, (*operands, m, e)), ctypes.c_int32(COUNT))
    finite = np.isfinite(wanted)
    assert finite.mean() > 0.5
    np.testing.assert_array_equal(np.ldexp(m.astype(float), e)[finite], wanted.astype(float)[finite])
    assert m.max() <= 2**24
    assert e.min() >= -149


def test_addition_is_ieee(library: ctypes.CDLL) -> None:
    random = np.random.default_rng(5)
    a = patterns(random)
    for b in (near(random, a), patterns(random), a):
        with np.errstate(over="ignore"):
            check(library.probe_add, a + b, a, b)


def test_multiplication_is_ieee(library: ctypes.CDLL) -> None:
    random = np.random.default_rng(6)
    a = patterns(random)
    for b in (patterns(random), a):
        with np.errstate(over="ignore", under="ignore"):
            check(library.probe_multiply, a * b, a, b)


def test_the_reciprocal_is_ieee(library: ctypes.CDLL) -> None:
    a = patterns(np.random.default_rng(7), least=1)
    with np.errstate(over="ignore"):
        check(library.probe_reciprocal, np.float32(1) / a, a)
