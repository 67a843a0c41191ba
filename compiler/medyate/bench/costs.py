# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds and bytes of weights that a call takes by the plan, beside what was counted for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from medyate.bench.sites import BACK_INPUT, BACK_WEIGHTS, FORWARD, FORWARD_AGAIN, HEAD, UPDATE, Work
from medyate.ir import Graph, elements
from medyate.ops import OPS


@dataclass(frozen=True)
class Row:
    """One layer in one direction."""

    phase: str
    """One of PHASES."""
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


@dataclass(frozen=True)
class _Layer:
    op: str
    order: int
    macs: int
    """Of its way forward."""
    channels: int
    """Of its input."""
    weight_bytes: int
    """In flash."""
    other_bytes: int
    """Biases and tables."""
    is_weighted: bool


class Costs:
    """Of one compiled network."""

    def __init__(self, plan: Mapping[str, Any], graph: Graph, weights: Mapping[str, NDArray[Any]]) -> None:
        """Raises a LookupError where they are of several networks."""
        in_ram = {c["layer"] for c in plan["candidates"]} if plan["weights"] == "ram" else set()
        self._layers: dict[str, _Layer] = {}
        for order, node in enumerate(graph):
            op, inputs = OPS[node.op], graph.input_shapes(node)
            held = {role: weights[node.weight_name(role)].nbytes for role in op.weights(node.attrs, inputs)}
            own = held.pop("weight", 0)
            self._layers[node.name] = _Layer(
                node.op,
                order,
                op.macs(node.attrs, inputs),
                inputs[0][2],
                0 if node.name in in_ram else own,
                sum(held.values()),
                op.channel_axes is not None,
            )
        self._biased = [self._layers[layer["layer"]].order for layer in plan["biases"]]
        self._head_macs = elements(graph.shapes[graph.output]) * int(plan["classes"])

    def rows(self, phase: str, counted: Mapping[Work, int], selected: Mapping[str, int]) -> list[Row]:
        """What was counted of a phase, from the input to the head; `selected`: channels by layer."""
        deepest = min((*(self._layers[name].order for name in selected), *self._biased), default=len(self._layers))
        rows = []
        for work in sorted(counted, key=self._place):
            if work.is_node:
                layer = self._layers[work.layer]
                share = selected.get(work.layer, 0) / layer.channels
                from_sums = Work(work.layer, BACK_WEIGHTS) in counted
                op, (macs, read) = layer.op, _of(layer, work.direction, deepest, share, from_sums=from_sums)
            else:
                op, macs, read = "linear" if work.layer == HEAD else "", self._head(work), 0
            rows.append(Row(phase, work.layer, op, work.direction, macs, counted[work], read))
        return rows

    def _place(self, work: Work) -> int:
        """From the input to the head."""
        return self._layers[work.layer].order if work.is_node else len(self._layers) if work.layer == HEAD else -1

    def _head(self, work: Work) -> int:
        with_product = work.layer == HEAD and work.direction in (FORWARD, BACK_INPUT, UPDATE)
        return self._head_macs if with_product else 0


def _of(layer: _Layer, direction: str, deepest: int, share: float, *, from_sums: bool) -> tuple[int, int]:
    """(multiply-adds, bytes of weights) of a layer in one direction.

    `deepest`: order of the layer where the way back ends; `share`: of its channels that are trained; `from_sums`: the
    update takes sums that were made row by row.
    """
    if direction in (FORWARD, FORWARD_AGAIN):
        return layer.macs, layer.weight_bytes + layer.other_bytes
    if not layer.is_weighted:
        return 0, 0
    if direction == BACK_INPUT:
        return (layer.macs, layer.weight_bytes) if layer.order > deepest else (0, 0)
    trained = round(share * layer.macs)
    if direction == UPDATE:
        return 0 if from_sums else trained, round(share * layer.weight_bytes)
    return (trained if direction == BACK_WEIGHTS else 0), 0
