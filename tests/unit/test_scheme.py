# SPDX-License-Identifier: Apache-2.0
"""The integer arithmetic of compiler and device: the same bits, and as exact as fixed.h promises."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

import clibrary
from medyate import rng
from medyate.arithmetic.scheme import (
    activation_quant,
    fixed_point,
    mantissa15,
    requantize_exact,
    weight_scales,
)

Array = NDArray[Any]
Call = Callable[..., Array]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """fixed("requantize", acc, mult, shift, out=np.int32): one of fixed_probe.c's functions on arrays."""
    library = clibrary.load("fixed_probe.c", tmp_path_factory.mktemp("fixed"), ("src/fixed.c",))

    def call(name: str, *arrays: Array, out: type) -> Array:
        result = np.zeros(len(arrays[0]), out)
        held = [np.ascontiguousarray(a) for a in (*arrays, result)]
        getattr(library, f"probe_{name}")(*(ctypes.c_void_p(a.ctypes.data) for a in held), ctypes.c_int32(len(result)))
        return result

    return call


def accumulators(random: np.random.Generator, count: int) -> NDArray[np.int32]:
    """Of all magnitudes, with the extremes."""
    wide = random.integers(-(2**31), 2**31, count)
    small = wide >> random.integers(0, 31, count)
    edges = np.array([0, 1, -1, 2**31 - 1, -(2**31), 2**30, -(2**30)])
    mixed = np.where(random.random(count) < 0.05, random.choice(edges, count), small)
    return mixed.astype(np.int32)


def test_the_compiler_requantizes_like_the_device(fixed: Call) -> None:
    random = np.random.default_rng(6)
    count = 200_000
    acc = accumulators(random, count)
    mult = random.integers(2**30, 2**31, count).astype(np.int32)
    shift = random.integers(-31, 31, count).astype(np.int32)
    device = fixed("requantize", acc, mult, shift, out=np.int32)
    python = requantize_exact(*(torch.from_numpy(a.astype(np.int64)) for a in (acc, mult, shift)))
    np.testing.assert_array_equal(device, python.numpy())
    real = acc.astype(float) * mult * np.exp2(shift - 31.0)
    fits = np.abs(acc.astype(float) * np.exp2(shift.clip(0).astype(float))) < 2**31
    # Two roundings, each half away from zero: half a step, and half of what the first one moved.
    assert np.abs(device - real)[fits].max() <= 1.0
    assert np.abs(device - real)[fits & (shift < -8)].max() <= 0.5 + 2.0**-9


def test_requantizing_rounds_halves_as_tflite_does(fixed: Call) -> None:
    # gemmlowp's product rounds halves up, its shift away from zero.
    acc = np.array([1, 3, -1, -3, 2, -2], np.int32)
    mult, shift = np.full(6, 2**30, np.int32), np.zeros(6, np.int32)  # times one half
    assert fixed("requantize", acc, mult, shift, out=np.int32).tolist() == [1, 2, 0, -1, 1, -1]
    shift = np.full(6, -1, np.int32)  # times a quarter
    assert fixed("requantize", 2 * acc, mult, shift, out=np.int32).tolist() == [1, 2, -1, -2, 1, -1]


def test_a_fixed_point_multiplier_is_off_by_less_than_its_last_bit() -> None:
    random = np.random.default_rng(7)
    for value in [*np.exp2(random.uniform(-30, 20, 2000)), 1.0, 0.5, np.nextafter(1.0, 0.0), 2.0**-31]:
        mult, shift = fixed_point(float(value))
        assert 2**30 <= mult < 2**31
        assert abs(math.ldexp(mult, shift - 31) / value - 1) <= 2.0**-31
    assert fixed_point(2.0**-40) == (0, 0)
    assert fixed_point(0.0) == (0, 0)


def test_a_mantissa_of_15_bits_is_off_by_less_than_its_last_bit() -> None:
    random = np.random.default_rng(8)
    for value in [*np.exp2(random.uniform(-60, 60, 2000)), 1.0, np.nextafter(1.0, 0.0)]:
        m, exponent = mantissa15(float(value))
        assert 2**14 <= m < 2**15
        assert abs(math.ldexp(m, exponent) / value - 1) <= 2.0**-15
    assert mantissa15(0.0) == (0, 0)


def test_an_activation_range_holds_zero_exactly_and_its_ends_nearly() -> None:
    random = np.random.default_rng(9)
    for low, high in random.uniform(-8, 8, (500, 2)):
        quant = activation_quant(min(low, high), max(low, high))
        assert -128 <= quant.zero <= 127
        for end in (min(low, high, 0.0), max(low, high, 0.0)):
            steps = end / quant.scale + quant.zero
            assert -128.5 - 1e-6 <= steps <= 127.5 + 1e-6
    assert activation_quant(0.0, 0.0).scale > 0


def test_no_weight_scale_is_zero_and_no_weight_leaves_127_steps() -> None:
    weight = np.random.default_rng(10).normal(size=(5, 3, 3, 4)).astype(np.float32)
    weight[2] = 0.0
    weight[3] = 1e-30
    scales = weight_scales(weight, 0)
    assert (scales > 0).all()
    assert np.abs(weight / scales[:, None, None, None]).max() <= 127 * (1 + 2**-23)  # scales are float32


def test_rounding_shifts_are_floor_of_the_value_plus_a_half(fixed: Call) -> None:
    random = np.random.default_rng(11)
    x = random.integers(-(2**61), 2**61, 5000) >> random.integers(0, 61, 5000)
    shift = random.integers(0, 62, 5000).astype(np.int32)
    wanted = [(2 * int(a) + (1 << s)) >> (s + 1) for a, s in zip(x, shift.tolist(), strict=True)]
    assert fixed("round_shift", x, shift, out=np.int64).tolist() == wanted


def test_scaling_by_a_power_of_two_rounds_down_and_saturates_up(fixed: Call) -> None:
    random = np.random.default_rng(12)
    x = accumulators(random, 5000)
    exponent = random.integers(-70, 40, 5000).astype(np.int32)
    got = fixed("scale2", x, exponent, out=np.int32)
    for value, e, y in zip(x.tolist(), exponent.tolist(), got.tolist(), strict=True):
        exact = value << e if e >= 0 else (2 * value + (1 << -e)) >> (1 - e)
        assert y == min(max(exact, -(2**31)), 2**31 - 1)


def test_stochastic_rounding_is_unbiased_over_all_random_numbers(fixed: Call) -> None:
    numbers = np.random.default_rng(13)
    for shift in range(1, 13):
        count = 1 << shift
        # Every value of the bits that count, with rubbish in those that do not.
        random = (np.arange(count) << (32 - shift)) | numbers.integers(0, 1 << (32 - shift), count)
        for x in numbers.integers(-(2**30), 2**30, 20).tolist():
            y = fixed(
                "stochastic_shift",
                np.full(count, x, np.int64),
                np.full(count, shift, np.int32),
                random.astype(np.uint32),
                out=np.int32,
            )
            assert int(y.astype(np.int64).sum()) == x  # the mean is x / 2^shift exactly
            assert set(y.tolist()) <= {x >> shift, (x >> shift) + 1}


def test_stochastic_rounding_of_long_shifts_is_unbiased_with_the_devices_own_numbers(fixed: Call) -> None:
    count = 40_000
    key = rng.key(3, rng.ROUNDING, 7, 1)
    random = np.array([rng.draw(key, i) for i in range(count)], np.uint32)
    for x, shift in ((3 << 30, 34), (-(5 << 38), 42), ((1 << 40) + 12345, 41), (-(7 << 20), 24)):
        y = fixed(
            "stochastic_shift", np.full(count, x, np.int64), np.full(count, shift, np.int32), random, out=np.int32
        )
        exact = x / 2**shift
        share = exact - math.floor(exact)
        ups = int((y == math.floor(exact) + 1).sum())
        assert ups + int((y == math.floor(exact)).sum()) == count
        assert stats.binomtest(ups, count, share).pvalue > 1e-3


def test_a_stochastic_shift_of_zero_or_less_multiplies_and_saturates(fixed: Call) -> None:
    x = np.array([5, -5, 5, 2**40, -(2**40), 3, 0], np.int64)
    shift = np.array([0, 0, -3, 0, -1, -40, -200], np.int32)
    wanted = [5, -5, 40, 2**31 - 1, -(2**31), 2**31 - 1, 0]
    assert fixed("stochastic_shift", x, shift, np.full(7, 2**32 - 1, np.uint32), out=np.int32).tolist() == wanted
    far = fixed(
        "stochastic_shift",
        np.array([2**62, -(2**62)]),
        np.array([200, 200], np.int32),
        np.zeros(2, np.uint32),
        out=np.int32,
    )
    assert far.tolist() == [0, -1]


def test_the_square_root_is_the_floor_of_the_exact_one(fixed: Call) -> None:
    random = np.random.default_rng(14)
    roots = random.integers(1, 2**32, 3000).astype(object)
    values = [0, 1, 2, 3, 2**64 - 1, 2**63, *(roots**2), *(roots**2 - 1), *random.integers(0, 2**63, 3000).tolist()]
    x = np.array(values, np.uint64)
    assert fixed("isqrt", x, out=np.uint32).tolist() == [math.isqrt(int(v)) for v in values]


def test_the_short_logarithm_is_the_leading_bit_and_four_bits_behind_it(fixed: Call) -> None:
    random = np.random.default_rng(15)
    x = np.concatenate([np.arange(1, 5000), random.integers(1, 2**32, 5000), [2**32 - 1, 2**31]]).astype(np.uint32)
    got = fixed("log2_16", x, out=np.int32)
    bits = np.array([int(v).bit_length() - 1 for v in x])
    wanted = [16 * b + ((16 * int(v)) // (1 << b) - 16) for v, b in zip(x, bits.tolist(), strict=True)]
    assert got.tolist() == wanted
    error = 16 * np.log2(x.astype(float)) - got
    assert error.min() >= 0  # linear between powers of two: never above the logarithm
    assert error.max() < 1 + 16 * 0.0861


def test_two_to_the_minus_x_is_within_its_bound(fixed: Call) -> None:
    x = np.concatenate([np.arange(0, 1 << 17), np.arange(0, 40 << 16, 97), [2**32 - 1]]).astype(np.uint32)
    got = fixed("exp2_neg", x, out=np.uint32) / 2.0**30
    assert np.abs(got - np.exp2(x / -65536.0)).max() < 2.0**-15
    assert got.max() <= 1.0


def test_the_natural_logarithm_is_within_its_bound(fixed: Call) -> None:
    random = np.random.default_rng(16)
    x = np.concatenate(
        [np.arange(1, 5000), np.linspace(2**30, 2**31, 20_001), np.exp2(random.uniform(0, 63, 20_000)), [2.0**31]]
    ).astype(np.uint64)
    got = fixed("ln_q30", x, out=np.int32) / 65536.0
    assert np.abs(got - np.log(x.astype(float) / 2**30)).max() < 2.0**-12


def test_the_cosine_schedule_is_within_two_steps_and_falls(fixed: Call) -> None:
    u = np.arange(0, 65537, dtype=np.uint32)
    got = fixed("cos2", u, out=np.uint32)
    wanted = np.cos(np.pi / 2 * u / 65536.0) ** 2
    assert np.abs(got / 65536.0 - wanted).max() < 2.0**-15
    assert (np.diff(got.astype(np.int64)) <= 0).all()
    assert got[-1] <= 1


def test_compiler_and_device_draw_the_same_random_numbers(fixed: Call) -> None:
    fields = np.random.default_rng(17).integers(0, 2**32, (2000, 5)).astype(np.uint32)
    fields[0] = (1, 2, 3, 4, 0)
    fields[1] = 2**32 - 1
    keys = fixed("rng_key", fields, out=np.uint32)
    numbers = fixed("rng", fields, out=np.uint32)
    assert (int(keys[0]), int(numbers[0])) == (0xC4EE5F75, 0xB764179B)
    python = [rng.key(*row[:4]) for row in fields.tolist()]
    assert keys.tolist() == python
    assert numbers.tolist() == [rng.draw(k, row[4]) for k, row in zip(python, fields.tolist(), strict=True)]
