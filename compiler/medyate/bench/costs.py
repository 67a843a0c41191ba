# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds and bytes of weights that a call takes by the plan, beside what was counted for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.bench.sites import BACK_INPUT, BACK_WEIGHTS, FORWARD, FORWARD_AGAIN, HEAD, INPUT, UPDATE, Work
from medyate.ir import Graph, Node, elements
from medyate.ops import OPS


@dataclass(frozen=True)
class Row:
    """One layer in one direction."""

    phase: str
    """'inference' or 'training_step'."""
    name: str
    op: str
    direction: str
    macs: int
    instructions: int
    weight_bytes: int
    """Of weights and biases in flash that it reads, each counted once."""

    @property
    def per_mac(self) -> float | None:
        """Instructions for each multiply-add."""
        return self.instructions / self.macs if self.macs else None

    def to_json(self) -> dict[str, Any]:
        """As --json prints it."""
        per_mac = None if self.per_mac is None else round(self.per_mac, 4)
        facts = asdict(self)
        weight_bytes = facts.pop("weight_bytes")
        return {**facts, "instructions_per_mac": per_mac, "weight_bytes": weight_bytes}


class Costs:
    """Of one compiled network."""

    def __init__(self, plan: Mapping[str, Any], graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
        self._graph = graph
        self._weights = weights
        self._nodes = {node.name: node for node in graph}
        self._orders = {node.name: order for order, node in enumerate(graph)}
        self._biased = [layer["layer"] for layer in plan["biases"]]
        self._in_ram = {c["layer"] for c in plan["candidates"]} if plan["weights"] == "ram" else set()
        self._head_macs = elements(graph.shapes[graph.output]) * int(plan["classes"])

    def rows(self, phase: str, layers: Mapping[Work, int], selected: Mapping[str, int]) -> list[Row]:
        """What was counted of a phase, from the input to the head; `selected`: channels by layer."""
        place = {INPUT: -1, HEAD: len(self._orders), **self._orders}
        return [
            self._row(phase, *item, selected) for item in sorted(layers.items(), key=lambda item: place[item[0].layer])
        ]

    def _row(self, phase: str, work: Work, instructions: int, selected: Mapping[str, int]) -> Row:
        node = self._nodes.get(work.layer)
        if node is None:
            macs = self._head_macs if work.layer == HEAD and work.direction in (FORWARD, BACK_INPUT, UPDATE) else 0
            return Row(phase, work.layer, "linear" if work.layer == HEAD else "", work.direction, macs, instructions, 0)
        macs, read = self._of(node, work.direction, selected)
        return Row(phase, node.name, node.op, work.direction, macs, instructions, read)

    def _of(self, node: Node, direction: str, selected: Mapping[str, int]) -> tuple[int, int]:
        """(multiply-adds, bytes of weights) of a node's call."""
        op, inputs = OPS[node.op], self._graph.input_shapes(node)
        macs = op.macs(node.attrs, inputs)
        arrays = {role: np.asarray(self._weights[node.weight_name(role)]) for role in op.weights(node.attrs, inputs)}
        in_flash = {
            role: 0 if node.name in self._in_ram and role == "weight" else a.nbytes for role, a in arrays.items()
        }
        if direction in (FORWARD, FORWARD_AGAIN):
            return macs, sum(in_flash.values())
        if op.channel_axes is None:
            return 0, 0
        if direction == BACK_INPUT:
            return (macs, in_flash["weight"]) if self._orders[node.name] > self._deepest(selected) else (0, 0)
        share = selected.get(node.name, 0) / inputs[0][2]
        if direction == BACK_WEIGHTS:
            return round(share * macs), 0
        return (round(share * macs), round(share * in_flash["weight"])) if direction == UPDATE else (0, 0)

    def _deepest(self, selected: Mapping[str, int]) -> float:
        """Order of the layer where the way back ends; infinite without one."""
        return min((self._orders[name] for name in (*selected, *self._biased)), default=math.inf)
