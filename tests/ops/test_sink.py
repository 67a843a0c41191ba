# SPDX-License-Identifier: Apache-2.0
"""Stored gradients against SPEC.md, 1.5 and 1.6: what rounding carries along a row, and what predicts the exponent."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from clibrary import STEPS, load

FLOOR = -1600


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return load("sink_probe.c", tmp_path_factory.mktemp("sink"), STEPS)


def row(library: ctypes.CDLL, accs: np.ndarray, acc_exponent: int, r: int) -> tuple[np.ndarray, int, int]:
    """(stored values, exponent, the slot's next prediction) of accumulators (pixels, channels), reference 0."""
    accs = np.ascontiguousarray(accs, np.int32)
    slot, out = ctypes.c_int16(r), np.zeros(accs.shape, np.int8)
    pointer = ctypes.c_void_p
    exponent = library.sink_row(
        accs.ctypes.data_as(pointer), *accs.shape, acc_exponent, 0, ctypes.byref(slot), out.ctypes.data_as(pointer)
    )
    return out, exponent, slot.value


def seen(largest: int, acc_exponent: int) -> int:
    """L(A) + 1 + 16 E."""
    leading = largest.bit_length() - 1
    return 16 * leading + ((largest << 4 >> leading) & 15) + 1 + 16 * acc_exponent


@pytest.mark.parametrize("shift", [3, 6, 9])
def test_sums_along_a_row_stay_right(library: ctypes.CDLL, shift: int) -> None:
    """Every partial sum is off by half a step at most: without the carry small values would all be rounded away."""
    values = np.random.default_rng(shift).integers(0, 1 << shift, (60, 5)) // 3
    stored, exponent, _ = row(library, values, -shift, 16 * 7)
    assert exponent == 0
    parts = np.cumsum(values, 0) / 2.0**shift
    assert np.abs(np.cumsum(stored, 0) - parts).max() <= 0.5
    assert np.abs(np.cumsum(np.round(values / 2.0**shift), 0) - parts).max() > 2


@pytest.mark.parametrize("largest", [0, 1, 3, 1000, 2**20 + 12345])
@pytest.mark.parametrize("r", [-900, -160, 0, 300])
def test_a_prediction_follows_a_rise_at_once_and_a_fall_by_two_sixteenths(
    library: ctypes.CDLL, largest: int, r: int
) -> None:
    accs = np.zeros((1, 3), np.int32)  # one pixel: nothing is carried
    accs[0, 1] = -largest
    acc_exponent = -30
    _, exponent, after = row(library, accs, acc_exponent, r)
    assert exponent == math.ceil(r / 16) - 7
    fallen = max(r - 2, FLOOR)
    assert after == (fallen if largest == 0 else max(seen(largest, acc_exponent), fallen))


def test_a_prediction_does_not_fall_for_ever(library: ctypes.CDLL) -> None:
    r = FLOOR + 5
    for expected in (FLOOR + 3, FLOOR + 1, FLOOR, FLOOR):
        _, _, r = row(library, np.zeros((1, 1)), 0, r)
        assert r == expected
