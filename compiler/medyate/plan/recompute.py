# SPDX-License-Identifier: Apache-2.0
"""Rematerialisation: which clamp masks are kept, and which are made again from a block's input on the way back.

A block lies between two places at which a single tensor is alive. Its wide tensors, those with more elements than
its output, have masks that outweigh the int8 input. A segment of blocks keeps its first input only; before the
backward pass of each of its blocks, rows from there up to that block's last wide tensor are computed again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from medyate import ledger
from medyate.ir import Graph, elements
from medyate.ops import OPS
from medyate.plan.steps import Rerun

RECOMPUTE = ("none", "auto")
"""none: masks are kept; auto: made again as far as memory asks for it."""

LONGEST = 4
"""Blocks of one segment: the first one runs again for each of them."""


@dataclass(frozen=True)
class Choice:
    """Segments of blocks that run again."""

    segments: tuple[tuple[int, int], ...]
    macs: int
    """Multiply-adds that they repeat."""


class Blocks:
    """A network as blocks, seen from the deepest candidate layer."""

    def __init__(self, graph: Graph, candidates: Collection[str]) -> None:
        self.graph = graph
        self.deepest = min((i for i, node in enumerate(graph) if node.name in candidates), default=len(graph.nodes))
        self.cuts = narrow_places(graph)
        """Numbers of nodes before which one tensor is alive, of fewer elements than its neighbours."""

    def span(self, block: int) -> range:
        """Numbers of a block's nodes."""
        return range(self.cuts[block], self.cuts[block + 1])

    def wide(self, block: int) -> list[int]:
        """Nodes of a block whose masks are worth making again."""
        nodes, shapes = self.graph.nodes, self.graph.shapes
        narrow = elements(shapes[nodes[self.cuts[block + 1] - 1].output])
        return [
            i
            for i in self.span(block)
            if i >= self.deepest and OPS[nodes[i].op].fuses and elements(shapes[nodes[i].output]) > narrow
        ]

    def rows(self, block: int) -> bool:
        """Whether all of a block can run row by row."""
        return all(
            OPS[node.op].rows(node.attrs, self.graph.input_shapes(node), i) is not None
            for node in (self.graph.nodes[number] for number in self.span(block))
            for i in range(len(node.inputs))
        )

    def mask_bytes(self, block: int) -> int:
        """Of the wide tensors."""
        nodes = self.graph.nodes
        return sum(ledger.mask_bytes(self.graph.shapes[nodes[i].output]) for i in self.wide(block))

    def repeated(self, begin: int, block: int) -> range:
        """Nodes that run again for a block of a segment."""
        wide = self.wide(block)
        return range(self.cuts[begin], wide[-1] + 1 if wide else self.cuts[begin])

    def macs(self, numbers: Sequence[int]) -> int:
        """Multiply-adds of some nodes."""
        nodes = [self.graph.nodes[i] for i in numbers]
        return sum(OPS[node.op].macs(node.attrs, self.graph.input_shapes(node)) for node in nodes)

    def choices(self) -> list[Choice]:
        """Sets of segments, from none to the one that keeps fewest bytes."""
        found: list[Choice] = []
        for price in [2.0**-power for power in range(0, 40)]:  # bytes that a multiply-add may save
            choice = self._cheapest(price)
            if choice not in found:
                found.append(choice)
        return found

    def _cheapest(self, price: float) -> Choice:
        count = len(self.cuts) - 1
        best = [0.0] + [float("inf")] * count
        before: list[tuple[int, bool]] = [(0, False)] * (count + 1)
        for end in range(1, count + 1):
            for begin in range(max(0, end - LONGEST), end):
                costs = {False: self._masks[begin]} if begin == end - 1 else {}
                if (begin, end) in self._repeats:
                    kept, macs = self._repeats[begin, end]
                    costs[True] = kept + price * macs
                for repeats, cost in costs.items():
                    if best[begin] + cost < best[end]:
                        best[end], before[end] = best[begin] + cost, (begin, repeats)
        segments, end = [], count
        while end > 0:
            begin, repeats = before[end]
            if repeats:
                segments.append((begin, end))
            end = begin
        repeated = sum(self.macs(self.repeated(b, block)) for b, e in segments for block in range(b, e))
        return Choice(tuple(reversed(segments)), repeated)

    @cached_property
    def _masks(self) -> list[float]:
        """Bytes that every block costs whose masks are kept."""
        return [self.mask_bytes(block) for block in range(len(self.cuts) - 1)]

    @cached_property
    def _repeats(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(bytes that it keeps, multiply-adds that it repeats) of every segment that can run again."""
        count = len(self.cuts) - 1
        able = [self.rows(block) for block in range(count)]
        found = {}
        for begin in range(count):
            macs = 0
            for end in range(begin + 1, min(begin + LONGEST, count) + 1):
                if not able[end - 1]:
                    break
                macs += self.macs(self.repeated(begin, end - 1))
                if self.wide(end - 1):
                    found[begin, end] = self._kept_bytes(begin), macs
        return found

    def _kept_bytes(self, begin: int) -> int:
        """Of a segment's first input."""
        shape = self.graph.shapes[self.graph.nodes[self.cuts[begin]].inputs[0]]
        own = ledger.mask_bytes(shape) if self.kept(begin) is not None else 0  # its mask comes from it
        return ledger.tensor_bytes(shape) - own

    def reruns(self, choice: Choice) -> dict[str, Rerun]:
        """By node of the way back, what runs again before it."""
        nodes = self.graph.nodes
        found: dict[str, Rerun] = {}
        for begin, end in choice.segments:
            for block in range(begin, end):
                wide = self.wide(block)
                if wide:
                    names = tuple(nodes[i].name for i in self.repeated(begin, block))
                    kept = None if any(self.wide(earlier) for earlier in range(begin, block)) else self.kept(begin)
                    rerun = Rerun(block, names, frozenset(nodes[i].name for i in wide), kept)
                    found |= {nodes[i].name: rerun for i in self.span(block)}
        return found

    def kept(self, begin: int) -> str | None:
        """The node whose output a segment keeps, if that has a mask."""
        node = self.graph.producer.get(self.graph.nodes[self.cuts[begin]].inputs[0])
        return node.name if node is not None and OPS[node.op].fuses else None


def narrow_places(graph: Graph) -> list[int]:
    """Numbers of nodes in front of which a single, narrow tensor is alive; the first and one past the last too."""
    position = {node.output: number for number, node in enumerate(graph)}
    last = {name: max((position[n.output] for n in readers), default=0) for name, readers in graph.consumers.items()}
    alone = [(0, math.inf)]
    for place in range(1, len(graph.nodes)):
        alive = [name for name, _ in graph.tensors if position.get(name, -1) < place <= last[name]]
        if len(alive) == 1:
            alone.append((place, elements(graph.shapes[alive[0]])))
    alone.append((len(graph.nodes), math.inf))
    trios = zip(alone, alone[1:], alone[2:], strict=False)
    narrow = [place for (_, before), (place, size), (_, behind) in trios if size <= min(before, behind)]
    return list(dict.fromkeys([0, *narrow, len(graph.nodes)]))  # one place, where there is no node
