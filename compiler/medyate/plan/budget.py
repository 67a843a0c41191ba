# SPDX-License-Identifier: Apache-2.0
"""How many layers to train: the smallest K whose search space is large enough for what memory is left.

B_mem(K) is what the total leaves after static data, stack, planned and state regions of that K;
M_K is the size of the top K layers. A budget of at most alpha * M_K obeys the papers' rule for K, so
B_mem(K) = min(left(K), alpha * M_K), and K is the smallest one with the largest B_mem. A budget holds at
least one channel of every candidate layer: in a network of few wide channels a share of them is none.
Source: MeDyate, arXiv 2510.20979, eq. 10; the circle is resolved in DESIGN.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medyate import ledger
from medyate.errors import BudgetError
from medyate.ir import QGraph, Weights
from medyate.plan.layout import lay_out
from medyate.plan.schedule import Schedule, make_schedule
from medyate.plan.steps import Loss, training_pass
from medyate.plan.stream import Planner
from medyate.rank.lara import LayerScore, Ranking

ALPHA = 0.2
"""The papers' alpha_opt."""


@dataclass(frozen=True)
class Row:
    """One K of the table that `plan` prints."""

    layers: int
    planned_bytes: int
    state_bytes: int
    left_bytes: int
    b_mem_bytes: int
    b_mem_elements: int
    m_bytes: int
    m_elements: int
    deepest: str

    @property
    def alpha(self) -> float:
        """B_mem / M_K."""
        return self.b_mem_bytes / self.m_bytes


@dataclass(frozen=True)
class Limits:
    """What the user allows."""

    ram_bytes: int
    stack_bytes: int = ledger.STACK_BYTES
    min_elements: int = 0
    alpha: float = ALPHA
    grad_bits: int = 8
    schedule: str = "auto"
    """One of stream.SCHEDULES."""


def choose(
    qgraph: QGraph, weights: Weights, ranking: Ranking, loss: Loss, limits: Limits
) -> tuple[Row, tuple[Row, ...]]:
    """The chosen row and the table up to it. Raises BudgetError with the numbers."""
    rows: list[Row] = []
    best = 0
    planner = Planner()
    for count in range(1, len(ranking.scores) + 1):
        row = measure(qgraph, weights, ranking.scores[:count], loss, limits, planner)
        rows.append(row)
        best = max(best, row.b_mem_bytes)
        if row.left_bytes <= best:  # deeper layers only take memory away from here on
            break
    chosen = max(rows, key=lambda row: (row.b_mem_bytes, -row.layers))
    cheapest = min(score.cost.record_bytes for score in ranking.scores[: chosen.layers])
    if chosen.b_mem_bytes < cheapest or chosen.b_mem_elements < limits.min_elements:
        raise BudgetError(_too_small(rows, limits), _remedy(chosen, limits, cheapest))
    return chosen, tuple(rows)


def arrange(
    qgraph: QGraph, weights: Weights, scores: Sequence[LayerScore], loss: Loss, limits: Limits, planner: Planner
) -> Schedule:
    """The steps for a set of candidate layers, cut into groups."""
    largest = most_bytes(scores, limits.alpha)
    slots = {score.layer: min(score.channels, largest // score.cost.record_bytes) for score in scores}
    return make_schedule(training_pass(qgraph, weights, slots, loss, limits.grad_bits), limits.schedule, planner)


def most_bytes(scores: Sequence[LayerScore], alpha: float) -> int:
    """The largest budget that the rule allows."""
    share = int(alpha * sum(score.bytes for score in scores)) // 4 * 4
    return max(share, *(score.cost.record_bytes for score in scores))


def measure(
    qgraph: QGraph, weights: Weights, scores: Sequence[LayerScore], loss: Loss, limits: Limits, planner: Planner
) -> Row:
    """What a set of candidate layers needs, and what it leaves."""
    steps = arrange(qgraph, weights, scores, loss, limits, planner)
    planned = lay_out(steps.values).peak_bytes
    features = ledger.tensor_bytes(qgraph.graph.shapes[qgraph.graph.output])
    channels = sum(score.channels for score in scores)
    state = ledger.StateFacts(loss.outputs, features, channels, steps.plan.slots, len(scores)).bytes
    fixed = ledger.arena_bytes(planned, 0, state) + ledger.STATIC_BYTES + limits.stack_bytes
    left = (limits.ram_bytes - fixed) // 8 * 8
    m_bytes = sum(score.bytes for score in scores)
    m_elements = sum(score.elements for score in scores)
    deepest = min((score.layer for score in scores), key=lambda name: steps.plan.orders[name])
    b_mem = min(left, most_bytes(scores, limits.alpha))
    return Row(len(scores), planned, state, left, b_mem, b_mem * m_elements // m_bytes, m_bytes, m_elements, deepest)


def worst_selection(scores: Sequence[LayerScore], budget: int) -> tuple[tuple[int, ...], int]:
    """Channels per layer that fill the budget most, and the bytes they take: the epoch region's size.

    A subset-sum over the record sizes (all multiples of 4), bounded by each layer's channels.
    """
    units = max(0, budget // 4)
    reach = [np.zeros(units + 1, bool)]
    reach[0][0] = True
    for score in scores:
        size = score.cost.record_bytes // 4
        used = np.full(units + 1, np.iinfo(np.int64).max)
        used[reach[-1]] = 0
        for total in range(size, units + 1):
            before = used[total - size]
            if used[total] != 0 and before < score.channels:
                used[total] = before + 1
        reach.append(used <= score.channels)
    total = int(np.flatnonzero(reach[-1])[-1])
    best = 4 * total
    counts: list[int] = []
    for index in range(len(scores) - 1, -1, -1):
        size = scores[index].cost.record_bytes // 4
        count = 0
        while not reach[index][total]:
            total -= size
            count += 1
        counts.append(count)
    return tuple(reversed(counts)), best


def _too_small(rows: Sequence[Row], limits: Limits) -> str:
    row = max(rows, key=lambda row: (row.b_mem_bytes, -row.layers))
    return (
        f"{limits.ram_bytes:,} B of RAM leave {max(row.left_bytes, 0):,} B "
        f"for training {row.layers} layers: activations, gradients "
        f"and masks take {row.planned_bytes:,} B, head and norms {row.state_bytes:,} B, "
        f"static data and stack {ledger.STATIC_BYTES + limits.stack_bytes:,} B."
    )


def _remedy(chosen: Row, limits: Limits, cheapest: int) -> str:
    per_element = chosen.m_bytes / chosen.m_elements
    wanted = max(round(limits.min_elements * per_element), cheapest)
    if wanted <= chosen.left_bytes:  # memory is there, the rule does not let it be used
        alpha = min(1.0, math.ceil(100 * wanted / chosen.m_bytes) / 100)
        return f"Raise --alpha to {alpha:g}, or ask for fewer elements."
    more = ledger.align(max(wanted - chosen.left_bytes, 1024), 1024)
    asked = f" for {limits.min_elements:,} elements" if limits.min_elements else ""
    return f"Give about {limits.ram_bytes + more:,} B{asked}, or ask for less."
