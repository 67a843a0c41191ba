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
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medyate import cache, ledger
from medyate.boards import Area
from medyate.errors import BudgetError, DataError
from medyate.ir import Graph, QGraph, Weights
from medyate.ops import OPS
from medyate.optimizer import SGD, Optimizer
from medyate.plan.areas import Assignment, assign
from medyate.plan.instructions import Effort
from medyate.plan.layout import Layout
from medyate.plan.recompute import Blocks, Choice
from medyate.plan.schedule import Schedule, least_bytes, make_schedule
from medyate.plan.selecting import DRAWN, Selecting
from medyate.plan.steps import Loss, Pass, training_pass
from medyate.plan.stream import Planner
from medyate.rank.lara import LayerScore, Ranking

ALPHA = 0.2
"""The papers' alpha_opt."""


SAMPLE = ("auto", "whole", "rows")
"""whole: the sample lies in memory; rows: it comes row by row; auto: by rows where memory asks for it."""


WEIGHTS = ("flash", "ram")
"""Where the weights of candidate layers live: in two banks of the flash, or in RAM, lost with the power."""


HEADS = ("full", "sampled")
"""full: all weights of the classifier are trained in RAM; sampled: a share of its input channels, drawn every epoch."""


FEATURES_MAX = 0xFFFF
"""The runtime keeps their numbers in 16 bits."""


@dataclass(frozen=True)
class Way:
    """What is done to save memory beyond streams."""

    by_rows: bool
    """The sample comes row by row."""
    repeats: Choice
    """Blocks that run again on the way back."""


NOTHING = Choice((), 0)

Key = tuple[object, ...]

Scores = Sequence[LayerScore]
"""Layers among which K is chosen, best first."""

MISSES = 4
"""Numbers of layers that are tried with care; more layers seldom take less memory."""


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
    step_instructions: int
    """Of the dearest step, by plan/instructions.py."""

    @property
    def alpha(self) -> float:
        """B_mem / M_K."""
        return self.b_mem_bytes / self.m_bytes if self.m_bytes else 0.0


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
    head: str = "full"
    """One of HEADS."""
    areas: tuple[Area, ...] = ()
    """RAM areas of a board; empty: one of `ram_bytes`."""
    selecting: Selecting = DRAWN
    static_bytes: int = ledger.STATIC_BYTES
    """Reserved for .data and .bss without the regions."""
    step_instructions: int = 0
    """What no step may pass, by plan/instructions.py; 0: however many it takes."""
    budget_bytes: int = 0
    """Largest budget of what is trained at a time, in bytes of records; 0: what memory and alpha allow."""
    batch: int = 1
    """Samples of one update."""
    optimizer: Optimizer = SGD

    def __post_init__(self) -> None:
        """Raises DataError for choices that exclude each other."""
        if self.head == "sampled" and self.weights == "ram":
            raise DataError(
                "a sampled head has its weights in flash.", "Leave out --weights ram, or take the full head."
            )

    def candidates(self, ranking: Ranking) -> Scores:
        """Layers among which K is chosen, with what their records cost."""
        return self.selecting.candidates(ranking.trained_by(self.optimizer, self.batch))

    def trained(self, scores: Scores) -> list[str]:
        """Layers of which something is trained, where some are candidates."""
        return [*(score.layer for score in scores), *self.selecting.biases]

    def columns(self, features: int) -> int:
        """Input channels of the head that an epoch trains: the rule's share of them; 0: all. Raises BudgetError."""
        if self.head == "full":
            return 0
        if features > FEATURES_MAX:
            raise BudgetError(
                f"a sampled head has at most {FEATURES_MAX:,} inputs, this one {features:,}.", "Take the full head."
            )
        return max(1, math.ceil(self.alpha * features))

    def most_bytes(self, scores: Scores) -> int:
        """The largest budget for candidate layers, whatever the memory; a selection that is given is not cut short."""
        most = self.selecting.most_bytes(scores, self.alpha)
        return most if self.selecting.fixed or not self.budget_bytes else min(most, self.budget_bytes // 4 * 4)

    @property
    def reserved_bytes(self) -> int:
        """Static data and stack."""
        return self.static_bytes + self.stack_bytes

    @property
    def spaces(self) -> tuple[Area, ...]:
        """RAM areas, whoever gave them."""
        return self.areas or (Area("RAM", 0, self.ram_bytes),)

    def assign(self, planned: int, state: int) -> Assignment:
        """Where regions of these sizes lie, and what they leave for the epoch region."""
        return assign(self.spaces, self.reserved_bytes, planned, state, self.ram_bytes)


@dataclass(frozen=True)
class Network:
    """What is planned: the parts that no choice changes."""

    qgraph: QGraph
    weights: Weights
    loss: Loss
    planner: Planner
    known: dict[Key, Needs] = field(default_factory=dict)
    """What was found already: the amount of memory changes nothing of it."""
    laid: dict[Key, tuple[Schedule, Layout]] = field(default_factory=dict)
    efforts: dict[Key, Effort] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Of all that a layout may follow from."""
        return cache.digest((self.qgraph, self.weights, self.loss))

    def effort(self, limits: Limits) -> Effort:
        """What its steps take."""
        form = (limits.grad_bits, limits.batch, limits.selecting.biases)
        return self.efforts.setdefault(form, Effort(self.qgraph.graph, self.loss.outputs, *form))


@dataclass(frozen=True)
class Needs:
    """What a set of candidate layers needs, however much memory there is."""

    planned_bytes: int
    state_bytes: int
    deepest: str
    """The trained layer that is nearest to the input; '' where the head alone is trained."""


def choose(
    qgraph: QGraph, weights: Weights, ranking: Ranking, loss: Loss, limits: Limits, network: Network | None = None
) -> tuple[Row, tuple[Row, ...]]:
    """The chosen row and the table up to it. Raises BudgetError with the numbers.

    A whole sample and kept masks come first; where that does not reach the wanted budget, the sample comes by rows,
    and then masks are made again, with as few repeated multiply-adds as do. Where no budget is asked for, the sample
    comes by rows if it would take more than all that is trained, and leaving it out doubles that. A network that is
    kept remembers what it laid out for other limits.
    """
    network = network or Network(qgraph, weights, loss, Planner())
    ranked = limits.candidates(ranking)
    sample = ledger.tensor_bytes(qgraph.graph.shapes[qgraph.graph.input])
    found: tuple[Row, tuple[Row, ...]] | None = None
    for by_rows in _samples(qgraph.graph, limits):
        rows = _table(network, ranked, limits, Way(by_rows, NOTHING))
        chosen = _best(network, ranked, rows, limits)
        rows = tuple(chosen if row.layers == chosen.layers else row for row in rows)
        if _enough(chosen, ranked, limits) and (found is None or chosen.b_mem_bytes >= 2 * found[0].b_mem_bytes):
            found = chosen, rows
        if found is not None and (limits.min_elements > 0 or found[0].b_mem_bytes >= sample):
            break
    if found is not None:
        return found
    if limits.recompute == "auto":
        repeated = _repeating(network, ranked, limits, rows)
        if repeated is not None:
            return repeated, (*rows, repeated)
    raise _refusal(network, ranked, rows, chosen, limits)


def _samples(graph: Graph, limits: Limits) -> list[bool]:
    """Whether the sample comes by rows, in the order in which that is tried. Raises BudgetError."""
    possible = can_come_by_rows(graph)
    if limits.sample == "rows" and not possible:
        raise BudgetError(
            f"the first operation of '{graph.name}' needs the whole sample at once.", "Leave out --sample rows."
        )
    return {"auto": [False, True] if possible else [False], "whole": [False], "rows": [True]}[limits.sample]


def _enough(row: Row, ranked: Scores, limits: Limits) -> bool:
    least = limits.selecting.least_bytes(ranked[: row.layers], limits.alpha)
    elements = 0 if limits.selecting.fixed else limits.min_elements  # of a selection that was made for them
    return row.b_mem_bytes >= least and row.b_mem_elements >= elements


def _table(network: Network, ranked: Scores, limits: Limits, way: Way) -> tuple[Row, ...]:
    """Every K up to where memory ends; all layers alone where memory does not end before, or they are given."""
    everything = measure(network, ranked, limits, way, careful=False)
    if limits.selecting.given or everything.b_mem_bytes >= limits.selecting.most_bytes(ranked, limits.alpha):
        return (everything,)
    most = limits.most_bytes(ranked)
    rows: list[Row] = []
    best = 0
    for count in range(1, len(ranked) + 1):
        row = measure(network, ranked[:count], limits, way, careful=False)
        rows.append(row)
        best = max(best, row.b_mem_bytes)
        done = best >= most and any(_enough(row, ranked, limits) for row in rows)
        if row.left_bytes <= best or done:  # deeper layers only take memory away from here on
            break
    return tuple(rows)


def _best(network: Network, ranked: Scores, rows: Sequence[Row], limits: Limits) -> Row:
    """The smallest K with the largest budget, laid out with care; the next ones, where that misses what is wanted."""
    ordered = sorted(rows, key=lambda row: (-row.b_mem_bytes, row.layers))
    able = [row for row in ordered if _enough(row, ranked, limits)]  # no layout is smaller than its lower bound
    best = (*able, *ordered)[0]
    for number, row in enumerate(able[:MISSES]):
        careful = measure(network, ranked[: row.layers], limits, row.way)
        best = careful if number == 0 or careful.b_mem_bytes > best.b_mem_bytes else best
        if _enough(best, ranked, limits):
            break
    return best


def _repeating(network: Network, ranked: Scores, limits: Limits, rows: Sequence[Row]) -> Row | None:
    """The first K whose rule allows the wanted budget, with the fewest repetitions that reach it."""
    by_rows, misses = rows[0].way.by_rows, 0
    for count in range(len(ranked) if limits.selecting.given else 1, len(ranked) + 1):
        scores = ranked[:count]
        allowed = limits.most_bytes(scores) * sum(score.elements for score in scores)
        if not limits.selecting.fixed and allowed // sum(score.bytes for score in scores) < limits.min_elements:
            continue
        for choice in Blocks(network.qgraph.graph, limits.trained(scores)).choices():
            way = Way(by_rows, choice)
            if _enough(measure(network, scores, limits, way, careful=False), ranked, limits):
                row = measure(network, scores, limits, way)
                if _enough(row, ranked, limits):
                    return row
        misses += 1
        if misses == MISSES:
            break
    return None


def arrange(network: Network, scores: Sequence[LayerScore], limits: Limits, way: Way) -> Pass:
    """The steps for a set of candidate layers."""
    largest = limits.most_bytes(scores)
    slots = {score.layer: limits.selecting.records(score, largest) for score in scores}
    reruns = Blocks(network.qgraph.graph, limits.trained(scores)).reruns(way.repeats)
    given = (network.qgraph, network.weights, slots, network.loss, limits.grad_bits, reruns)
    # What runs again from the first operation on reads the sample again: it has to stay.
    by_rows = way.by_rows and all(begin > 0 for begin, _ in way.repeats.segments)
    return training_pass(*given, by_rows=by_rows, biases=limits.selecting.biases)


def can_come_by_rows(graph: Graph) -> bool:
    """Whether the first operation needs fewer rows of the sample than there are, and nothing else reads it."""
    if not graph.nodes:
        return False
    first = graph.nodes[0]
    rows = OPS[first.op].rows(first.attrs, graph.input_shapes(first), 0)
    single = graph.consumers[graph.input] == (first,) and first.inputs == (graph.input,)
    return single and rows is not None and max(end - begin for begin, end in rows) < graph.shapes[graph.input][0]


def measure(network: Network, scores: Sequence[LayerScore], limits: Limits, way: Way, *, careful: bool = True) -> Row:
    """What a set of candidate layers needs, and what it leaves; without care, the lower bound of the first."""
    needs = _needs(network, scores, limits, way, careful=careful)
    left = limits.assign(needs.planned_bytes, needs.state_bytes).left_bytes
    m_bytes = sum(score.bytes for score in scores)
    m_elements = sum(score.elements for score in scores)
    b_mem = min(left, limits.most_bytes(scores))
    effort, again = network.effort(limits), _again(network, scores, limits, way)
    if limits.step_instructions:
        b_mem = min(b_mem, effort.budget(scores, limits.step_instructions, again))
    elements = limits.selecting.elements(scores, b_mem)
    taken = (needs.planned_bytes, needs.state_bytes, left, b_mem, elements, m_bytes, m_elements, needs.deepest)
    return Row(len(scores), *taken, way, effort.step(scores, max(b_mem, 0), again))


def _again(network: Network, scores: Scores, limits: Limits, way: Way) -> list[str]:
    """Nodes whose forward pass a step repeats, as often as it does."""
    if not way.repeats.segments:
        return []
    reruns = Blocks(network.qgraph.graph, limits.trained(scores)).reruns(way.repeats)
    return [name for rerun in {rerun.number: rerun for rerun in reruns.values()}.values() for name in rerun.nodes]


def _key(scores: Scores, limits: Limits, way: Way) -> Key:
    """All that a layout depends on."""
    names = tuple(score.layer for score in scores)
    sizes = (limits.alpha, limits.budget_bytes, limits.grad_bits)
    return (names, *sizes, limits.schedule, limits.weights, limits.head, limits.selecting, limits.batch, way)


def laid_out(network: Network, scores: Scores, limits: Limits, way: Way) -> tuple[Schedule, Layout]:
    """The layout with care, made once for each set of layers."""
    key = _key(scores, limits, way)
    if key not in network.laid:
        network.laid[key] = make_schedule(arrange(network, scores, limits, way), limits.schedule, network.planner)
    return network.laid[key]


def _needs(network: Network, scores: Scores, limits: Limits, way: Way, *, careful: bool) -> Needs:
    """Found once for each set of layers, and kept for the next plan of the network."""
    key = (*_key(scores, limits, way), careful)
    if key in network.known:
        return network.known[key]
    nodes = [node.name for node in network.qgraph.graph]

    def make() -> dict[str, NDArray[np.int64]]:
        if careful:
            schedule, layout = laid_out(network, scores, limits, way)
            steps, planned = schedule.plan, layout.peak_bytes
        else:
            steps = arrange(network, scores, limits, way)
            planned = least_bytes(steps, limits.schedule, network.planner)
        needs = _needed(network, scores, limits, steps, planned)
        deepest = nodes.index(needs.deepest) if needs.deepest else -1
        return {"needs": np.array([needs.planned_bytes, needs.state_bytes, deepest], np.int64)}

    costs = tuple((score.layer, score.channels, score.cost) for score in scores)
    planned, state, deepest = cache.kept("needs", (network.digest, key, costs), make)["needs"].tolist()
    network.known[key] = Needs(planned, state, nodes[deepest] if deepest >= 0 else "")
    return network.known[key]


def _needed(network: Network, scores: Scores, limits: Limits, steps: Pass, planned: int) -> Needs:
    layers = [(score.channels, network.weights[f"{score.layer}.weight"].size) for score in scores]
    state = state_facts(network.qgraph.graph, limits, network.loss.outputs, layers, steps.slots)
    deepest = min(limits.trained(scores), key=lambda name: steps.orders[name], default="")
    return Needs(planned, state.bytes, deepest)


def state_facts(
    graph: Graph, limits: Limits, outputs: int, layers: Sequence[tuple[int, int]], slots: int
) -> ledger.StateFacts:
    """What the state region holds of a head with so many outputs; `layers`: candidates' channels and weights."""
    features = ledger.tensor_bytes(graph.shapes[graph.output])
    channels = sum(count for count, _ in layers)
    return ledger.StateFacts(
        classes=outputs,
        features=features,
        channels=channels,
        slots=slots,
        candidates=len(layers),
        norms=limits.selecting.norms(channels),
        columns=limits.columns(features),
        ram_weights=sum(weights for _, weights in layers) if limits.weights == "ram" else 0,
        batch=limits.batch,
        biases=sum(graph.shapes[node.output][2] for node in graph if node.name in limits.selecting.biases),
    )


def _refusal(network: Network, ranked: Scores, rows: Sequence[Row], chosen: Row, limits: Limits) -> BudgetError:
    """Names the one bound that is in the way, and what to do about it."""
    scores = ranked[: chosen.layers]
    fixed = limits.selecting.fixed  # was made for a number of elements, or says itself how many
    asked = 0 if fixed else round(limits.min_elements * chosen.m_bytes / chosen.m_elements)
    wanted = max(asked, limits.selecting.least_bytes(scores, limits.alpha))
    if limits.selecting.given and wanted > chosen.m_bytes:
        return BudgetError(_too_small(rows, limits), "Ask for fewer elements, or for more layers.")
    least = limits.selecting.least_bytes(ranked, limits.alpha)
    if 0 < limits.budget_bytes < max(asked, least) and not limits.selecting.fixed:
        what = "no channel" if limits.budget_bytes < least else f"no {limits.min_elements:,} elements"
        more = f"Raise --budget to {max(asked, least):,} B."
        return BudgetError(f"a budget of {limits.budget_bytes:,} B holds {what}.", more)
    if limits.step_instructions:
        effort, again = network.effort(limits), _again(network, scores, limits, chosen.way)
        allowed = effort.budget(scores, limits.step_instructions, again)
        if allowed < min(wanted, chosen.left_bytes):
            fit = f"let {allowed:,} B of {chosen.layers} layers be trained"
            taken = fit if allowed >= 0 else "are too few for a step"
            return BudgetError(
                f"{limits.step_instructions:,} instructions {taken}.",
                f"Raise --max-step-instructions to {effort.step(scores, wanted, again):,}, or ask for less.",
            )
    if wanted <= chosen.left_bytes:  # memory is there, the rule does not let it be used
        alpha = min(1.0, math.ceil(100 * wanted / chosen.m_bytes) / 100)
        return BudgetError(_too_small(rows, limits), f"Raise --alpha to {alpha:g}, or ask for fewer elements.")
    return BudgetError(_too_small(rows, limits), _more_memory(wanted - chosen.left_bytes, limits))


def _too_small(rows: Sequence[Row], limits: Limits) -> str:
    row = max(rows, key=lambda row: (row.b_mem_bytes, -row.layers))
    areas = ", ".join(f"{area.name} {area.bytes:,} B" for area in limits.areas)
    held = "head, norms and weights" if limits.weights == "ram" else "head and norms"
    return (
        f"{limits.ram_bytes:,} B of RAM{f' in areas ({areas})' if areas else ''} leave {max(row.left_bytes, 0):,} B "
        f"for training {row.layers} layers: activations, gradients "
        f"and masks take {row.planned_bytes:,} B, {held} {row.state_bytes:,} B, "
        f"static data and stack {limits.reserved_bytes:,} B."
    )


def _more_memory(missing: int, limits: Limits) -> str:
    more = ledger.align(max(missing, 1024), 1024)
    if limits.areas and limits.ram_bytes + more > sum(area.bytes for area in limits.areas):
        return "Take a board with larger areas, let --recompute auto save memory, or ask for less."
    asked = f" for {limits.min_elements:,} elements" if limits.min_elements else ""
    return f"Give about {limits.ram_bytes + more:,} B{asked}, or ask for less."
