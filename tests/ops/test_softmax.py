# SPDX-License-Identifier: Apache-2.0
"""Softmax in integers: C against the fixed-point reference, that against the real function."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clibrary import STEPS, load
from medyate.arithmetic.tflite_kernels import softmax, softmax_table

Array = NDArray[Any]
SCALES = (1e-3, 4e-3, 0.017, 0.05, 0.1, 0.25, 0.3333, 0.5, 0.8, 1.0, 2.0)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load("softmax_probe.c", tmp_path_factory.mktemp("softmax"), ("src/ops/softmax.c", *STEPS))


def address(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


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
def test_c_computes_the_fixed_point_softmax(scale: float, library: ctypes.CDLL) -> None:
    table = softmax_table(scale, 1.0)
    stored = table.astype(np.int32)
    for x in vectors(np.random.default_rng(1), scale):
        y = np.empty_like(x)
        library.probe_softmax(address(stored), address(x), address(y), len(x))
        assert np.array_equal(y, softmax(table, x.astype(np.int64)[None])[0])
        library.probe_softmax(address(stored), address(x), address(x), len(x))
        assert np.array_equal(x, y), "in place"


@pytest.mark.parametrize("scale", SCALES)
def test_it_is_the_softmax_within_a_step(scale: float) -> None:
    table = softmax_table(scale, 1.0)
    for x in vectors(np.random.default_rng(2), scale):
        terms = np.exp((x.astype(float) - x.max()) * scale)
        real = 256 * terms / terms.sum() - 128
        assert np.abs(softmax(table, x.astype(np.int64)[None])[0] - np.clip(real, -128, 127)).max() <= 1.0
