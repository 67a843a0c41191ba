# SPDX-License-Identifier: Apache-2.0
"""The planned region and the epoch region: what lives together never shares a byte, what may come fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from medyate.ledger import ChannelCost
from medyate.plan.layout import Layout, Value, _bodies, _Placer, lay_out, lower_bound
from medyate.plan.selecting import fullest
from medyate.rank.lara import LayerScore
from medyate.sample.policy import draw_selection


def random_values(random: np.random.Generator) -> list[Value]:
    """Up to 24 values over up to 20 steps; some sets have few distinct lifetimes, some values no bytes."""
    count, steps = int(random.integers(1, 25)), int(random.integers(1, 21))
    spans = np.sort(random.integers(0, steps, (count, 2)), axis=1)
    if random.random() < 0.3:
        spans = spans[random.integers(0, min(count, 3), count)]
    sizes = random.integers(0, 4 if random.random() < 0.2 else 600, count)
    aligns = random.choice([1, 4, 8, 16], count)
    return [Value(f"v{i}", int(sizes[i]), int(spans[i, 0]), int(spans[i, 1]), int(aligns[i])) for i in range(count)]


def owners_by_step(values: list[Value], layout: Layout) -> None:
    """Fills the region step by step, byte by byte; a byte that is taken twice fails."""
    for step in {edge for value in values for edge in (value.first, value.last)}:
        owner = np.full(layout.peak_bytes, -1)
        for i, value in enumerate(values):
            if value.first <= step <= value.last:
                part = owner[layout.offsets[value.name] : layout.offsets[value.name] + value.bytes]
                assert len(part) == value.bytes, f"{value} leaves the region"
                assert (part == -1).all(), f"step {step}: {value} overlaps {values[part.max()]}"
                part[:] = i


def test_values_that_live_together_share_no_byte() -> None:
    random = np.random.default_rng(3)
    reused = 0
    for _ in range(2500):
        values = random_values(random)
        layout = lay_out(values, tries=100)
        owners_by_step(values, layout)
        ends = [layout.offsets[v.name] + v.bytes for v in values if v.bytes]
        assert layout.peak_bytes == max(ends, default=0)
        assert all(layout.offsets[v.name] % v.align == 0 for v in values)
        live = [sum(v.bytes for v in values if v.first <= step <= v.last) for step in range(21)]
        assert layout.lower_bound_bytes == max(live) <= layout.peak_bytes
        reused += layout.peak_bytes < sum(v.bytes for v in values)
    assert reused > 500, "the cases never let memory be used again"


def test_no_order_of_few_values_gives_a_smaller_peak() -> None:
    random = np.random.default_rng(4)
    searched = 0
    for _ in range(400):
        values = random_values(random)[:5]
        peak = lay_out(values).peak_bytes
        placer = _Placer(_bodies(values))
        orders = itertools.permutations(range(len(placer.bodies)))
        assert peak == min(placer.peak(placer.place(order)) for order in orders)
        searched += peak > lower_bound(values)
    assert searched > 20, "the lower bound was always met: nothing was searched"


def test_two_changed_turns_give_what_placing_all_anew_gives() -> None:
    random = np.random.default_rng(6)
    changed = refused = 0
    for _ in range(1500):
        placer = _Placer(_bodies(random_values(random)))
        count = len(placer.bodies)
        if count < 2:
            continue
        order = random.permutation(count).tolist()
        known = placer.place(order)
        one, two = random.choice(count, 2, replace=False).tolist()
        tried = list(order)
        tried[one], tried[two] = order[two], order[one]
        expected, most = placer.place(tried), placer.peak(known)
        found = placer.replace(tried, known, (order[one], order[two]), most)
        assert (found is None) == (placer.peak(expected) > most)
        assert found is None or found.tolist() == expected.tolist()
        changed += found is not None and found.tolist() != known.tolist()
        refused += found is None
    assert changed > 300, "the same bases nearly always"
    assert refused > 100, "no higher peak was seen"


@pytest.mark.parametrize("count", [1, 2, 7])
def test_identical_lifetimes_lie_side_by_side(count: int) -> None:
    values = [Value(f"v{i}", 12, 2, 5) for i in range(count)]
    layout = lay_out(values)
    assert sorted(layout.offsets.values()) == [12 * i for i in range(count)]
    assert layout.peak_bytes == lower_bound(values) == 12 * count


def test_lifetimes_that_touch_in_one_step_do_not_share() -> None:
    layout = lay_out([Value("a", 8, 0, 3), Value("b", 8, 3, 5), Value("c", 8, 4, 6)])
    assert layout.offsets["a"] != layout.offsets["b"] != layout.offsets["c"]
    assert layout.peak_bytes == 16


def random_scores(random: np.random.Generator, layers: int, channels: int) -> list[LayerScore]:
    return [
        LayerScore(
            f"l{i}",
            0.0,
            0.0,
            int(random.integers(1, channels + 1)),
            ChannelCost(int(random.integers(1, 60)), int(random.integers(1, 60))),
        )
        for i in range(layers)
    ]


def test_the_worst_selection_is_the_fullest_one() -> None:
    random = np.random.default_rng(4)
    below = 0
    for _ in range(400):
        scores = random_scores(random, int(random.integers(1, 5)), 5)
        sizes = [score.cost.record_bytes for score in scores]
        budget = int(random.integers(0, 900))
        counts, best = fullest(scores, budget)
        every = itertools.product(*(range(score.channels + 1) for score in scores))
        totals = (sum(n * size for n, size in zip(combination, sizes, strict=True)) for combination in every)
        assert best == max(total for total in totals if total <= budget)
        assert sum(n * size for n, size in zip(counts, sizes, strict=True)) == best <= budget
        assert all(0 <= n <= score.channels for n, score in zip(counts, scores, strict=True))
        below += 0 < best < budget // 4 * 4
    assert below > 50, "the budgets never miss the sums"


def test_every_selection_that_can_be_drawn_fits_the_epoch_region() -> None:
    random = np.random.default_rng(5)
    for _ in range(100):
        scores = random_scores(random, int(random.integers(1, 6)), 12)
        costs = [score.cost.record_bytes for score in scores for _ in range(score.channels)]
        budget = int(random.integers(0, sum(costs) + 1))
        _, region = fullest(scores, budget)
        norms = random.integers(0, 50, len(costs)).tolist()
        for epoch in range(5):
            for limit in (budget, region):
                drawn = draw_selection(norms, costs, limit, 9, epoch)
                assert sum(costs[i] for i in drawn) <= region
