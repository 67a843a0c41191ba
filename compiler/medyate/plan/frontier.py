# SPDX-License-Identifier: Apache-2.0
"""The feasibility frontier: the least memory that trains by the rule, and what more of it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from medyate import ledger
from medyate.errors import BudgetError
from medyate.plan.budget import NOTHING, Limits, Network, Row, Way, choose, measure
from medyate.plan.parameters import eligible_channels
from medyate.rank.lara import LayerScore, Ranking, channel_costs
from medyate.sample.policy import draw_selection

POINTS = 12
"""Amounts of memory that are planned for, the smallest one included."""
GRAIN = 256
"""The smallest amount is found to so many bytes."""
DRAWS = 16
"""Selections whose depth is averaged."""


@dataclass(frozen=True)
class Point:
    """What one amount of memory gives."""

    ram_bytes: int
    layers: int
    """K."""
    b_mem_bytes: int
    b_mem_elements: int
    planned_bytes: int
    state_bytes: int
    deepest: str
    depth: int
    """Trainable layers from the deepest candidate to the end, itself included."""
    expected_depth: float
    """The same of the deepest selected layer: mean over selections of a first epoch, whose norms are uniform."""
    sample: str
    repeated_macs: int

    def to_json(self) -> dict[str, Any]:
        """As `plan --frontier --json` prints it."""
        return asdict(self)


def frontier(
    network: Network, ranking: Ranking, limits: Limits, most: int | None, progress: Callable[[int, int], None]
) -> tuple[Point, ...]:
    """Points from the smallest memory that trains to what all layers take, or `most`. Raises BudgetError.

    `limits`: all but the amount of memory; with areas of a board, that is limited.
    """
    drawn = Selections(network, ranking, limits)
    count = 0

    def plan(ram: int) -> Row | None:
        nonlocal count
        count += 1
        progress(min(count, total), total)
        try:
            return choose(
                network.qgraph, network.weights, ranking, network.loss, replace(limits, ram_bytes=ram), network
            )[0]
        except BudgetError:
            return None

    largest = most if most is not None else _everything(network, ranking, limits)
    total = POINTS + max(1, largest // GRAIN).bit_length()
    if plan(largest) is None:  # once more, for its message
        choose(network.qgraph, network.weights, ranking, network.loss, replace(limits, ram_bytes=largest), network)
    smallest = _smallest(lambda ram: plan(ram) is not None, largest)
    growth = (largest / smallest) ** (1 / (POINTS - 1))
    between = {round(smallest * growth**n) // GRAIN * GRAIN for n in range(1, POINTS - 1)}
    rams = sorted({smallest, largest} | {ram for ram in between if smallest < ram < largest})
    found = []
    for ram in rams:
        row = plan(ram)
        if row is not None:
            found.append(_point(ram, row, drawn))
    progress(total, total)
    return tuple(found)


def _everything(network: Network, ranking: Ranking, limits: Limits) -> int:
    """Bytes with which every layer is a candidate and the rule, not the memory, limits the budget."""
    by_rows = limits.sample == "rows"
    ranked = limits.candidates(ranking)
    row = measure(network, ranked, limits, Way(by_rows, NOTHING), careful=False)
    taken = ledger.arena_bytes(row.planned_bytes, 0, row.state_bytes) + limits.reserved_bytes
    return ledger.align(taken + limits.most_bytes(ranked), GRAIN)


def _smallest(trains: Callable[[int], bool], largest: int) -> int:
    """The smallest multiple of GRAIN, or `largest`, that trains."""
    low, high = 0, -(-largest // GRAIN)  # low does not train, high does
    while high - low > 1:
        middle = (low + high) // 2
        if trains(middle * GRAIN):
            high = middle
        else:
            low = middle
    return min(high * GRAIN, largest)


class Selections:
    """Draws first selections, and says how deep they reach."""

    def __init__(self, network: Network, ranking: Ranking, limits: Limits) -> None:
        graph = network.qgraph.graph
        names = list(channel_costs(graph))
        self.depth = {name: len(names) - number for number, name in enumerate(names)}
        nodes = {node.name: node for node in graph}
        self.scores, selecting = limits.candidates(ranking), limits.selecting
        self.fixed, self.named = selecting.fixed, limits.trained(self.scores)
        alive = {
            score.layer: eligible_channels(network.qgraph, nodes[score.layer], network.weights, score.channels)
            for score in self.scores
        }
        self.norms = {
            score.layer: np.where(alive[score.layer], selecting.start.get(score.layer, 1), 0) for score in self.scores
        }

    def expected_depth(self, row: Row) -> float:
        """Mean over selections of the depth of the deepest selected layer."""
        if self.fixed:
            return float(max((self.depth[name] for name in self.named), default=0))
        ordered: Sequence[LayerScore] = sorted(self.scores[: row.layers], key=lambda s: -self.depth[s.layer])
        norms = [int(norm) for score in ordered for norm in self.norms[score.layer]]
        costs = [score.cost.record_bytes for score in ordered for _ in range(score.channels)]
        depths = np.repeat([self.depth[score.layer] for score in ordered], [score.channels for score in ordered])
        drawn = [draw_selection(norms, costs, row.b_mem_bytes, seed, 0) for seed in range(DRAWS)]
        return float(np.mean([max((int(depths[i]) for i in selected), default=0) for selected in drawn]))


def _point(ram: int, row: Row, drawn: Selections) -> Point:
    return Point(
        ram_bytes=ram,
        layers=row.layers,
        b_mem_bytes=row.b_mem_bytes,
        b_mem_elements=row.b_mem_elements,
        planned_bytes=row.planned_bytes,
        state_bytes=row.state_bytes,
        deepest=row.deepest,
        depth=drawn.depth.get(row.deepest, 0),
        expected_depth=drawn.expected_depth(row),
        sample="rows" if row.way.by_rows else "whole",
        repeated_macs=row.way.repeats.macs,
    )
