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
from medyate.ir import Graph, QGraph, Weights
from medyate.ops import OPS
from medyate.plan.layout import TRIES, lay_out
from medyate.plan.recompute import Blocks, Choice
from medyate.plan.schedule import Schedule, make_schedule
from medyate.plan.steps import Loss, training_pass
from medyate.plan.stream import Planner
from medyate.rank.lara import LayerScore, Ranking

ALPHA = 0.2
"""The papers' alpha_opt."""


SAMPLE = ("auto", "whole", "rows")
"""whole: the sample lies in memory; rows: it comes row by row; auto: by rows where memory asks for it."""


WEIGHTS = ("flash", "ram")
"""Where the weights of candidate layers live: in two banks of the flash, or in RAM, lost with the power."""


@dataclass(frozen=True)
class Way:
    """What is done to save memory beyond streams."""

    by_rows: bool
    """The sample comes row by row."""
    repeats: Choice
    """Blocks that run again on the way back."""


NOTHING = Choice((), 0)

MISSES = 4
"""Numbers of layers that are tried with repetitions; more layers seldom take less memory."""


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
    way: Way
    """How memory was saved."""

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
    recompute: str = "none"
    """One of recompute.RECOMPUTE."""
    sample: str = "auto"
    """One of SAMPLE: whether the sample has a place of its own or comes by rows."""
    weights: str = "flash"
    """One of WEIGHTS."""


@dataclass(frozen=True)
class Network:
    """What is planned: the parts that no choice changes."""

    qgraph: QGraph
    weights: Weights
    loss: Loss
    planner: Planner


def choose(
    qgraph: QGraph, weights: Weights, ranking: Ranking, loss: Loss, limits: Limits
) -> tuple[Row, tuple[Row, ...]]:
    """The chosen row and the table up to it. Raises BudgetError with the numbers.

    A whole sample and kept masks come first; where that does not reach the wanted budget, the sample comes by rows,
    and then masks are made again, with as few repeated multiply-adds as do.
    """
    network = Network(qgraph, weights, loss, Planner())
    for by_rows in _samples(qgraph.graph, limits):
        rows = _table(network, ranking, limits, Way(by_rows, NOTHING))
        chosen = _best(network, ranking, rows, limits)
        rows = tuple(chosen if row.layers == chosen.layers else row for row in rows)
        if _enough(chosen, ranking, limits):
            return chosen, rows
    if limits.recompute == "auto":
        repeated = _repeating(network, ranking, limits, rows)
        if repeated is not None:
            return repeated, (*rows, repeated)
    cheapest = min(score.cost.record_bytes for score in ranking.scores[: chosen.layers])
    raise BudgetError(_too_small(rows, limits), _remedy(chosen, limits, cheapest))


def _samples(graph: Graph, limits: Limits) -> list[bool]:
    """Whether the sample comes by rows, in the order in which that is tried. Raises BudgetError."""
    possible = can_come_by_rows(graph)
    if limits.sample == "rows" and not possible:
        raise BudgetError(
            f"the first operation of '{graph.name}' needs the whole sample at once.", "Leave out --sample rows."
        )
    return {"auto": [False, True] if possible else [False], "whole": [False], "rows": [True]}[limits.sample]


def _enough(row: Row, ranking: Ranking, limits: Limits) -> bool:
    cheapest = min(score.cost.record_bytes for score in ranking.scores[: row.layers])
    return row.b_mem_bytes >= cheapest and row.b_mem_elements >= limits.min_elements


def _table(network: Network, ranking: Ranking, limits: Limits, way: Way) -> tuple[Row, ...]:
    """Every K up to where memory ends; all layers alone where memory does not end before."""
    everything = measure(network, ranking.scores, limits, way, careful=False)
    if everything.left_bytes >= most_bytes(ranking.scores, limits.alpha):
        return (everything,)
    rows: list[Row] = []
    best = 0
    for count in range(1, len(ranking.scores) + 1):
        row = measure(network, ranking.scores[:count], limits, way, careful=False)
        rows.append(row)
        best = max(best, row.b_mem_bytes)
        if row.left_bytes <= best:  # deeper layers only take memory away from here on
            break
    return tuple(rows)


def _best(network: Network, ranking: Ranking, rows: Sequence[Row], limits: Limits) -> Row:
    """The smallest K with the largest budget, laid out with care."""
    chosen = max(rows, key=lambda row: (row.b_mem_bytes, -row.layers))
    return measure(network, ranking.scores[: chosen.layers], limits, chosen.way)


def _repeating(network: Network, ranking: Ranking, limits: Limits, rows: Sequence[Row]) -> Row | None:
    """The first K whose rule allows the wanted budget, with the fewest repetitions that reach it."""
    by_rows, misses = rows[0].way.by_rows, 0
    for count in range(1, len(ranking.scores) + 1):
        scores = ranking.scores[:count]
        allowed = most_bytes(scores, limits.alpha) * sum(score.elements for score in scores)
        if allowed // sum(score.bytes for score in scores) < limits.min_elements:
            continue
        choices = Blocks(network.qgraph.graph, [score.layer for score in scores]).choices()
        leanest = measure(network, scores, limits, Way(by_rows, choices[-1]))
        for choice in choices if _enough(leanest, ranking, limits) else ():
            row = leanest if choice is choices[-1] else measure(network, scores, limits, Way(by_rows, choice))
            if _enough(row, ranking, limits):
                return row
        misses += 1
        if misses == MISSES:
            break
    return None


def arrange(
    network: Network, scores: Sequence[LayerScore], limits: Limits, way: Way, *, careful: bool = True
) -> Schedule:
    """The steps for a set of candidate layers, cut into groups."""
    largest = most_bytes(scores, limits.alpha)
    slots = {score.layer: min(score.channels, largest // score.cost.record_bytes) for score in scores}
    reruns = Blocks(network.qgraph.graph, slots).reruns(way.repeats)
    given = (network.qgraph, network.weights, slots, network.loss, limits.grad_bits, reruns)
    # What runs again from the first operation on reads the sample again: it has to stay.
    by_rows = way.by_rows and all(begin > 0 for begin, _ in way.repeats.segments)
    return make_schedule(training_pass(*given, by_rows=by_rows), limits.schedule, network.planner, careful=careful)


def can_come_by_rows(graph: Graph) -> bool:
    """Whether the first operation needs fewer rows of the sample than there are, and nothing else reads it."""
    first = graph.nodes[0]
    rows = OPS[first.op].rows(first.attrs, graph.input_shapes(first), 0)
    single = graph.consumers[graph.input] == (first,) and first.inputs == (graph.input,)
    return single and rows is not None and max(end - begin for begin, end in rows) < graph.shapes[graph.input][0]


def most_bytes(scores: Sequence[LayerScore], alpha: float) -> int:
    """The largest budget that the rule allows."""
    share = int(alpha * sum(score.bytes for score in scores)) // 4 * 4
    return max(share, *(score.cost.record_bytes for score in scores))


def measure(network: Network, scores: Sequence[LayerScore], limits: Limits, way: Way, *, careful: bool = True) -> Row:
    """What a set of candidate layers needs, and what it leaves; without care, somewhat less."""
    steps = arrange(network, scores, limits, way, careful=careful)
    planned = lay_out(steps.values, TRIES if careful else 0).peak_bytes
    graph = network.qgraph.graph
    features = ledger.tensor_bytes(graph.shapes[graph.output])
    channels = sum(score.channels for score in scores)
    ram = sum(network.weights[f"{score.layer}.weight"].size for score in scores) if limits.weights == "ram" else 0
    state = ledger.StateFacts(network.loss.outputs, features, channels, steps.plan.slots, len(scores), ram).bytes
    fixed = ledger.arena_bytes(planned, 0, state) + ledger.STATIC_BYTES + limits.stack_bytes
    left = (limits.ram_bytes - fixed) // 8 * 8
    m_bytes = sum(score.bytes for score in scores)
    m_elements = sum(score.elements for score in scores)
    deepest = min((score.layer for score in scores), key=lambda name: steps.plan.orders[name])
    b_mem = min(left, most_bytes(scores, limits.alpha))
    elements = b_mem * m_elements // m_bytes
    return Row(len(scores), planned, state, left, b_mem, elements, m_bytes, m_elements, deepest, way)


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
    held = "head, norms and weights" if limits.weights == "ram" else "head and norms"
    return (
        f"{limits.ram_bytes:,} B of RAM leave {max(row.left_bytes, 0):,} B "
        f"for training {row.layers} layers: activations, gradients "
        f"and masks take {row.planned_bytes:,} B, {held} {row.state_bytes:,} B, "
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
