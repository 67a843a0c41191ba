# SPDX-License-Identifier: Apache-2.0
"""The channel sampler: device and compiler draw alike, inside the budget, with the stated probabilities."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import clibrary
from medyate.plan.selecting import POLICIES
from medyate.sample.policy import SKIP, STOP, draw_selection, observe, pack, unpack

RUNTIME = (
    "src/sampler.c",
    "src/fixed.c",
    "src/view.c",
    "src/layer.c",
    "src/gradient.c",
    "src/schedule.c",
    "src/gradient_norm.c",
    "src/sgd.c",
    "src/head.c",
    "src/ops/*.c",
    "kernels/ref/*.c",
)
DRAWS = 24_000
SMALLEST_P = 1e-3


class CaseStruct(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_uint32),
        ("channels", ctypes.c_void_p),
        ("record_bytes", ctypes.c_void_p),
        ("budget", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("eligible", ctypes.c_void_p),
        ("norm_start", ctypes.c_void_p),
    )


@dataclass
class Device:
    """mdy_sampler_* on made-up candidate layers."""

    lib: ctypes.CDLL
    channels: int = 0

    def set(
        self,
        channels: NDArray[np.uint16],
        costs: NDArray[np.uint32],
        budget: int,
        policy: str = "proportional",
        eligible: NDArray[np.bool_] | None = None,
        start: Sequence[int] | None = None,
    ) -> None:
        self.channels = int(channels.sum())
        everything = np.ones(self.channels, bool) if eligible is None else eligible
        codes = None if start is None else np.array([pack(n) for n in start], np.uint16)
        self.kept = (np.packbits(everything, bitorder="little"), codes)  # the probe keeps their addresses
        addresses = [None if array is None else array.ctypes.data for array in self.kept]
        given = (len(channels), channels.ctypes.data, costs.ctypes.data, budget, POLICIES.index(policy))
        assert self.lib.sampler_probe_set(ctypes.byref(CaseStruct(*given, *addresses))) == 0

    def draw(self, norms: NDArray[np.uint32], seed: int, epoch: int) -> NDArray[np.bool_]:
        bits = np.zeros((self.channels + 7) // 8, np.uint8)
        self.lib.sampler_probe_draw(
            ctypes.c_void_p(norms.ctypes.data),
            ctypes.c_uint32(seed),
            ctypes.c_uint32(epoch),
            ctypes.c_void_p(bits.ctypes.data),
        )
        return np.unpackbits(bits, bitorder="little")[: self.channels].astype(bool)

    def observe(
        self, norms: NDArray[np.uint32], drawn: NDArray[np.bool_], squares: NDArray[np.uint64], epochs: int
    ) -> NDArray[np.uint32]:
        after = norms.copy()
        bits = np.packbits(drawn, bitorder="little")
        self.lib.sampler_probe_observe(
            ctypes.c_void_p(after.ctypes.data),
            ctypes.c_void_p(bits.ctypes.data),
            ctypes.c_void_p(squares.ctypes.data),
            ctypes.c_uint32(epochs),
        )
        return after


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    return Device(clibrary.load("sampler_probe.c", tmp_path_factory.mktemp("sampler"), RUNTIME))


@dataclass
class Case:
    """A random set of candidate layers with its budget."""

    channels: NDArray[np.uint16]
    layer_costs: NDArray[np.uint32]
    norms: NDArray[np.uint32]
    budget: int
    seed: int
    epoch: int

    @property
    def costs(self) -> NDArray[np.int64]:
        return np.repeat(self.layer_costs, self.channels).astype(np.int64)


def random_norms(random: np.random.Generator, count: int) -> NDArray[np.uint32]:
    """Zeros, small ones, log-uniform ones and values next to 2^32, mixed, as 16 bits keep them."""
    kinds = random.integers(0, 4, count) if random.random() < 0.7 else np.full(count, random.integers(0, 4))
    choices = np.stack(
        [
            np.zeros(count),
            random.integers(1, 9, count),
            np.exp2(random.uniform(0, 32, count)).clip(1, 2**32 - 1),
            random.integers(2**32 - 5, 2**32, count),
        ]
    )
    found = choices[kinds, np.arange(count)].astype(np.uint64)
    return np.array([unpack(pack(int(norm))) for norm in found], np.uint32)


def random_case(random: np.random.Generator) -> Case:
    layers = int(random.integers(1, 9))
    channels = random.integers(1, 33, layers).astype(np.uint16)
    costs = (4 * random.integers(3, 100, layers)).astype(np.uint32)
    total = int((channels.astype(np.int64) * costs).sum())
    budget = min(int(total * random.uniform(0, 1.1)) // 4 * 4, 1 << 20)
    norms = random_norms(random, int(channels.sum()))
    return Case(channels, costs, norms, budget, int(random.integers(0, 2**32)), int(random.integers(0, 10_000)))


def test_device_and_compiler_draw_the_same_channels_and_fill_the_budget(device: Device) -> None:
    random = np.random.default_rng(1)
    sizes = Counter[int]()
    for _ in range(1200):
        case = random_case(random)
        device.set(case.channels, case.layer_costs, case.budget)
        drawn = device.draw(case.norms, case.seed, case.epoch)
        python = draw_selection(case.norms.tolist(), case.costs.tolist(), case.budget, case.seed, case.epoch)
        assert tuple(np.flatnonzero(drawn)) == python
        left = case.budget - int(case.costs[drawn].sum())
        assert left >= 0, "the draw exceeds the budget"
        assert not case.norms[drawn].tolist().count(0), "a channel with norm 0 was drawn"
        assert not (~drawn & (case.norms > 0) & (case.costs <= left)).any(), "something that still fits was left out"
        sizes[int(drawn.sum())] += 1
    assert len(sizes) > 30, "the cases are not varied"


def test_a_drawing_that_stops_leaves_more_of_the_budget_than_one_that_skips() -> None:
    random = np.random.default_rng(5)
    norms, costs = random.integers(1, 99, 60).tolist(), random.integers(1, 40, 60).tolist()
    used = {STOP: 0, SKIP: 0}
    for seed in range(20):
        for fit in used:
            taken = sum(costs[c] for c in draw_selection(norms, costs, 200, seed, 1, fit))
            assert 200 - max(costs) < taken <= 200
            used[fit] += taken
        equal = [draw_selection(norms, [10] * 60, 200, seed, 1, fit) for fit in used]
        assert equal[0] == equal[1]
    assert used[STOP] < used[SKIP]


def test_another_seed_or_epoch_draws_another_selection(device: Device) -> None:
    device.set(np.array([64], np.uint16), np.array([12], np.uint32), 12 * 16)
    norms = np.full(64, 7, np.uint32)
    draws = {device.draw(norms, seed, epoch).tobytes() for seed in range(8) for epoch in range(8)}
    assert len(draws) == 64


@pytest.mark.parametrize(
    "norms",
    [[1, 2, 3, 4, 5, 10], [1] * 12, [2047 * 2**21, 2**31, 2**30, 2**29, 2**28], [5, 0, 3, 0, 2]],
    ids=["small", "equal", "near 2^32", "with zeros"],
)
def test_the_first_draw_follows_n(device: Device, norms: list[int]) -> None:
    n = np.array(norms, np.uint32)
    half = len(norms) // 2
    device.set(np.array([half, len(norms) - half], np.uint16), np.array([20, 20], np.uint32), 20)
    counts = np.zeros(len(norms), np.int64)
    for i in range(DRAWS):
        drawn = device.draw(n, seed=i // 1000, epoch=i % 1000)
        assert drawn.sum() == 1
        counts += drawn
    expected = DRAWS * n.astype(float) / n.astype(float).sum()
    possible = n > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > SMALLEST_P


def selection_probabilities(norms: list[int], costs: list[int], budget: int) -> dict[frozenset[int], float]:
    """Every selection that the sequential scheme can end in, by enumerating all orders of draws."""
    found: dict[frozenset[int], float] = {}

    def descend(taken: frozenset[int], left: int, probability: float) -> None:
        open_ = [i for i in range(len(norms)) if i not in taken and costs[i] <= left and norms[i] > 0]
        if not open_:
            found[taken] = found.get(taken, 0.0) + probability
            return
        total = sum(norms[i] for i in open_)
        for i in open_:
            descend(taken | {i}, left - costs[i], probability * norms[i] / total)

    descend(frozenset(), budget, 1.0)
    return found


@pytest.mark.parametrize(
    ("channels", "layer_costs", "norms", "budget"),
    [
        ([2, 2, 2], [12, 20, 36], [3, 1, 2, 5, 4, 1], 60),
        ([1, 3, 2], [40, 16, 24], [9, 2, 2, 1, 6, 3], 64),
        ([3, 3], [12, 12], [1, 2, 3, 4, 5, 6], 36),
        ([2, 2], [12, 16], [2047 * 2**21, 0, 2**31, 2**30], 28),
    ],
    ids=["three costs", "one dear channel", "equal costs", "huge norms"],
)
def test_whole_selections_have_the_probabilities_of_the_sequential_scheme(
    device: Device, channels: list[int], layer_costs: list[int], norms: list[int], budget: int
) -> None:
    device.set(np.array(channels, np.uint16), np.array(layer_costs, np.uint32), budget)
    costs = np.repeat(layer_costs, channels).tolist()
    probabilities = selection_probabilities(norms, costs, budget)
    assert len(probabilities) > 1
    n = np.array(norms, np.uint32)
    counts = Counter(
        frozenset(np.flatnonzero(device.draw(n, seed=i // 500, epoch=i % 500)).tolist()) for i in range(DRAWS)
    )
    assert set(counts) <= set(probabilities), "a selection was drawn that cannot be"
    expected = np.array([DRAWS * p for p in probabilities.values()])
    assert expected.min() >= 5, "choose a case without rare selections: chi-square needs five of each"
    observed = np.array([counts[selection] for selection in probabilities])
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > SMALLEST_P


def test_device_and_compiler_observe_norms_alike(device: Device) -> None:
    random = np.random.default_rng(2)
    for _ in range(300):
        case = random_case(random)
        device.set(case.channels, case.layer_costs, case.budget)
        drawn = device.draw(case.norms, case.seed, case.epoch)
        squares = np.exp2(random.uniform(-1, 63.9, len(drawn))).astype(np.uint64)
        roots = {int(i): int(np.sqrt(float(squares[i]))) for i in np.flatnonzero(drawn)}
        for i, root in roots.items():  # the float root may be one off
            roots[i] = next(r for r in (root + 1, root, root - 1) if r * r <= int(squares[i]))
        for epochs in (0, 1):
            after = device.observe(case.norms, drawn, squares, epochs)
            assert after.tolist() == observe(case.norms.tolist(), roots, first_epoch=epochs == 0)


def test_the_first_epoch_lifts_unseen_channels_to_the_largest_and_later_ones_keep_them(device: Device) -> None:
    device.set(np.array([3, 2], np.uint16), np.array([12, 12], np.uint32), 24)
    before = np.array([1, 0, 7, 1, 1], np.uint32)
    drawn = np.array([True, False, False, True, False])
    squares = np.array([100, 0, 0, 16, 0], np.uint64)
    assert device.observe(before, drawn, squares, epochs=0).tolist() == [10, 0, 10, 4, 10]
    assert device.observe(before, drawn, squares, epochs=3).tolist() == [10, 0, 7, 4, 1]


def test_a_channel_that_saw_no_gradient_stays_drawable(device: Device) -> None:
    device.set(np.array([2], np.uint16), np.array([12], np.uint32), 24)
    drawn = np.array([True, True])
    after = device.observe(np.array([5, 5], np.uint32), drawn, np.zeros(2, np.uint64), epochs=2)
    assert after.tolist() == [1, 1]


def test_a_norm_in_16_bits_keeps_its_eleven_leading_bits_and_its_place_in_the_order(device: Device) -> None:
    random = np.random.default_rng(3)
    drawn = [int(n) for n in np.exp2(random.uniform(0, 32, 2000)).clip(1, 2**32 - 1)]
    norms = sorted({0, 1, 2, 2046, 2047, 2048, 2049, 4095, 4096, 2**31, 2**32 - 1, *drawn})
    codes = [pack(norm) for norm in norms]
    assert codes == sorted(codes)
    assert max(codes) < 2**16
    for norm, code in zip(norms, codes, strict=True):
        assert unpack(code) == device.lib.sampler_probe_kept(ctypes.c_uint32(norm)) % 2**32
        assert norm - unpack(code) <= norm >> 10
        assert pack(unpack(code)) == code


def test_a_uniform_policy_draws_by_the_norms_of_the_start_and_observes_nothing(device: Device) -> None:
    channels, costs = np.array([3, 2], np.uint16), np.array([12, 20], np.uint32)
    eligible, start = np.array([True, True, False, True, True]), [5, 1, 9, 0, 3000]
    device.set(channels, costs, 32, "uniform", eligible, start)
    wanted = [unpack(pack(n)) if may else 0 for n, may in zip(start, eligible, strict=True)]
    ignored = np.zeros(5, np.uint32)
    for seed in range(50):
        drawn = device.draw(ignored, seed, 3)
        assert tuple(np.flatnonzero(drawn)) == draw_selection(wanted, [12, 12, 12, 20, 20], 32, seed, 3)
        assert device.observe(ignored, drawn, np.full(5, 1 << 40, np.uint64), epochs=0).tolist() == [0] * 5
    device.set(channels, costs, 32, "uniform", eligible)
    counts = sum(device.draw(ignored, seed, 0).astype(int) for seed in range(200))
    assert counts[2] == 0
    assert (counts[[0, 1, 3, 4]] > 0).all()


def test_a_fixed_policy_selects_every_eligible_channel(device: Device) -> None:
    eligible = np.array([True, False, True, False, True])
    device.set(np.array([3, 2], np.uint16), np.array([12, 20], np.uint32), 44, "fixed", eligible)
    for epoch in range(3):
        assert device.draw(np.zeros(5, np.uint32), 7, epoch).tolist() == eligible.tolist()
