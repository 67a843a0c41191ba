# SPDX-License-Identifier: Apache-2.0
"""Everything the emitter prints: offsets, candidates, costs, regions. Nothing after this computes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import ledger
from medyate.errors import BudgetError
from medyate.ir import QGraph, Weights
from medyate.ledger import ChannelCost
from medyate.ops import OPS
from medyate.plan import ids
from medyate.plan.areas import Assignment
from medyate.plan.budget import Limits, Network, Row, choose, laid_out, state_facts
from medyate.plan.exponents import gradient_maxima, starting_exponents
from medyate.plan.layout import Layout, live_bytes
from medyate.plan.parameters import eligible_channels
from medyate.plan.schedule import Schedule, free_schedule, make_schedule
from medyate.plan.selecting import Selecting
from medyate.plan.steps import HEAD_WEIGHT_BITS, Gradient, Loss, Pass, Step, inference_pass
from medyate.plan.stream import Planner
from medyate.plan.sums import check_sums
from medyate.plan.verify import verify
from medyate.plan.workspace import Key, Workspace, missing_bytes, workspaces
from medyate.rank.lara import LayerScore, Ranking

CALIBRATION_SAMPLES = 32

Calibration = tuple[NDArray[np.int8], NDArray[Any], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Samples, labels, and (weight, bias) of a head."""


@dataclass(frozen=True)
class Candidate:
    """One layer whose channels may be selected, in network order."""

    layer: str
    channels: int
    cost: ChannelCost
    first_channel: int
    bank_offset: int
    weight_bytes: int
    eligible: tuple[bool, ...]
    worst: int
    """Channels of this layer in the selection that fills the epoch region most."""


@dataclass(frozen=True)
class BiasLayer:
    """One layer whose biases are trained."""

    layer: str
    first: int
    """Number of its first one among all that are."""
    count: int


@dataclass(frozen=True)
class Head:
    """The new last layer: int16 weights in steps of 2^-12, int32 biases in Q16; None starts at zero."""

    loss: Loss
    weight: NDArray[np.int16] | None
    bias: NDArray[np.int32] | None

    @property
    def classes(self) -> int:
        """Outputs."""
        return self.loss.outputs


@dataclass(frozen=True)
class Plan:
    """A network ready to be emitted for one memory budget."""

    qgraph: QGraph
    weights: Weights
    head: Head | None
    """None: inference of the whole network, nothing is trained."""
    limits: Limits
    row: Row | None
    """The chosen K; None in inference."""
    table: tuple[Row, ...]
    schedule: Schedule
    layout: Layout
    candidates: tuple[Candidate, ...]
    epoch_bytes: int
    exponents: tuple[int, ...]

    def __post_init__(self) -> None:
        verify(self.schedule, self.layout, self.workspaces)

    @cached_property
    def state(self) -> ledger.StateFacts:
        """Sizes of the state region."""
        if self.head is None:
            return ledger.StateFacts()
        layers = [(candidate.channels, candidate.weight_bytes) for candidate in self.candidates]
        graph = self.qgraph.graph
        return state_facts(graph, self.limits, self.head.classes, layers, self.schedule.plan.slots)

    @cached_property
    def workspaces(self) -> Mapping[Key, Workspace]:
        """What is free for kernels to work in, step by step."""
        return workspaces(self.schedule, self.layout)

    @cached_property
    def biases(self) -> tuple[BiasLayer, ...]:
        """Layers whose biases are trained, in the network's order."""
        found: list[BiasLayer] = []
        for node in self.qgraph.graph:
            if node.name in self.limits.selecting.biases:
                first = found[-1].first + found[-1].count if found else 0
                found.append(BiasLayer(node.name, first, self.qgraph.graph.shapes[node.output][2]))
        return tuple(found)

    @cached_property
    def regions(self) -> dict[str, int]:
        """Bytes of each region, not rounded."""
        return {"planned": self.layout.planned_bytes, "epoch": self.epoch_bytes, "state": self.state.bytes}

    @cached_property
    def assignment(self) -> Assignment:
        """Which RAM area each region lies in."""
        return self.limits.assign(self.layout.planned_bytes, self.state.bytes)

    @property
    def weights_in_ram(self) -> bool:
        """Candidate weights are part of the state region; nothing is written to flash."""
        return self.limits.weights == "ram"

    @property
    def bank_weight_bytes(self) -> int:
        """Weights of a sampled head and of all candidate layers."""
        return self.state.bank_head_bytes + sum(candidate.weight_bytes for candidate in self.candidates)

    @property
    def payload_bytes(self) -> int:
        """One generation in flash, without its header."""
        return ledger.BANK_BODY_BYTES + self.state.saved_bytes + self.bank_weight_bytes

    @property
    def arena_bytes(self) -> int:
        """All three regions, each rounded up."""
        return ledger.arena_bytes(self.layout.planned_bytes, self.epoch_bytes, self.state.bytes)

    @property
    def static_reserved_bytes(self) -> int:
        """Static data and stack."""
        return self.limits.reserved_bytes

    @property
    def region_bytes(self) -> int:
        """The regions exactly, without what is left over for kernels: what the target's marks come to at least."""
        return self.layout.peak_bytes + self.epoch_bytes + self.state.bytes

    @property
    def generation_bytes(self) -> int:
        """What a commit writes: header, settings, saved state, the candidate layers' weights."""
        return ledger.BANK_HEADER_BYTES + self.payload_bytes

    @cached_property
    def digest(self) -> int:
        """32 bits that change when network, weights, plan or state layout change."""
        quants = [[name, quant.scale, quant.zero] for name, quant in self.qgraph.quants]
        said = [self.to_json(), quants, self.exponents, *self.limits.selecting.said]
        sha = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        kept = self.head is not None and self.head.weight is not None
        head = [("head.weight", self.head.weight), ("head.bias", self.head.bias)] if self.head and kept else []
        for name, array in sorted([*self.weights.items(), *head], key=lambda pair: pair[0]):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return int.from_bytes(sha.digest()[:4], "little")

    def to_json(self) -> dict[str, Any]:
        """The plan as `plan.json`."""
        return {
            "network": self.qgraph.graph.name,
            "classes": self.head.classes if self.head else 0,
            "loss": self.head.loss.name if self.head else None,
            "ram_limit_bytes": self.limits.ram_bytes,
            "alpha": self.limits.alpha,
            "budget_limit_bytes": self.limits.budget_bytes,
            "gradient_bits": self.limits.grad_bits,
            "batch": self.limits.batch,
            "rounds_once": self.qgraph.rounds_once,
            "schedule": self.limits.schedule,
            "selection": self.limits.selecting.policy,
            "head_columns": self.state.columns,
            "sample": "rows" if ids.tensor(self.qgraph.graph.input) in self.schedule.rings else "whole",
            "repeated_macs": self.row.way.repeats.macs if self.row else 0,
            "streams": [
                {"steps": [f"{s.kind} {s.node}" for s in g.steps], "rows": {str(v): n for v, n in g.rings.items()}}
                for g in self.schedule.groups
                if g.order
            ],
            "groups": [
                {"phase": phase(g.stages[0]), "bytes": live, "steps": [f"{s.kind} {s.node}" for s in g.steps]}
                for g, live in zip(self.schedule.groups, live_bytes(self.schedule.values), strict=True)
            ],
            "gradient_slots": self.schedule.plan.slots,
            "weights": self.limits.weights,
            "bank_weight_bytes": self.bank_weight_bytes,
            "stack_reserved_bytes": self.limits.stack_bytes,
            "static_reserved_bytes": self.limits.static_bytes,
            "b_mem_bytes": self.row.b_mem_bytes if self.row else 0,
            "b_mem_elements": self.row.b_mem_elements if self.row else 0,
            "step_instructions_limit": self.limits.step_instructions,
            "step_instructions_bound": self.row.step_instructions if self.row else 0,
            "areas": [
                {
                    "name": area.name,
                    "address": area.address,
                    "bytes": area.bytes,
                    "holds": [part for part, place in self.assignment.area_of.items() if place == area],
                }
                for area in self.limits.spaces
            ],
            "planned_bytes": self.layout.planned_bytes,
            "planned_lower_bound_bytes": self.layout.lower_bound_bytes,
            "workspace_bytes": self.layout.extra_bytes,
            "epoch_bytes": self.epoch_bytes,
            "state_bytes": self.state.bytes,
            "arena_bytes": self.arena_bytes,
            "arena_planned_bytes": self.region_bytes,
            "total_layers": sum(1 for n in self.qgraph.graph if OPS[n.op].channel_axes is not None),
            "deepest_layer": self.row.deepest if self.row else None,
            "candidates": [
                {
                    "layer": c.layer,
                    "channels": c.channels,
                    "channel_weights": c.cost.weights,
                    "channel_activations": c.cost.activations,
                    "record_bytes": c.cost.record_bytes,
                    "bank_offset": c.bank_offset,
                    "worst": c.worst,
                }
                for c in self.candidates
            ],
            "biases": [{"layer": b.layer, "first": b.first, "count": b.count} for b in self.biases],
            "table": [
                {
                    "k": r.layers,
                    "planned_bytes": r.planned_bytes,
                    "state_bytes": r.state_bytes,
                    "left_bytes": r.left_bytes,
                    "b_mem_bytes": r.b_mem_bytes,
                    "m_bytes": r.m_bytes,
                    "deepest": r.deepest,
                }
                for r in self.table
            ],
            "values": [
                {
                    "name": str(v.name),
                    "kind": v.kind,
                    "bytes": v.bytes,
                    "first": v.first,
                    "last": v.last,
                    "offset": self.layout.offsets[v.name],
                }
                for v in self.schedule.values
            ],
        }


def phase(step: Step) -> str:
    """'forward', 'head' or 'backward'."""
    return {"load": "forward", "run": "forward", "head": "head"}.get(step.kind, "backward")


def slot_openers(plan: Pass) -> tuple[Gradient, ...]:
    """The gradients whose pass predicts an exponent: the head's, the layers' and the sums'."""
    opened = [plan.head_gradient]
    for step in plan.back:
        if step.kind in ("layer", "sum", "sink"):
            opened += step.dx
    return tuple(gradient for gradient in opened if gradient is not None)


def inference_plan(qgraph: QGraph, weights: Weights, limits: Limits, *, least: bool = False) -> Plan:
    """A program that runs the whole network as it is.

    `least`: memory that is left is used by no more than what kernels lack. Raises BudgetError when it does not suffice.
    """
    planner = Planner()
    steps, layout = make_schedule(inference_pass(qgraph, weights), limits.schedule, planner)
    plan = Plan(qgraph, weights, None, limits, None, (), steps, layout, (), 0, ())
    plan = _with_room(plan) if least else _with_free_memory(plan, planner)
    needed = plan.arena_bytes + limits.reserved_bytes
    if needed > limits.ram_bytes:
        raise BudgetError(
            f"inference of '{qgraph.graph.name}' takes {needed:,} B, static data and stack included.",
            f"Give more RAM than {limits.ram_bytes:,} B.",
        )
    return plan


def make_plan(
    qgraph: QGraph,
    weights: Weights,
    ranking: Ranking,
    head: Head,
    limits: Limits,
    calibration: Calibration,
    chosen: tuple[Row, tuple[Row, ...]] | None = None,
    network: Network | None = None,
) -> Plan:
    """Chooses K, lays out memory, calibrates exponents.

    `chosen`: a row of a table to plan for, instead of the one that the limits ask for. `network`: one that is
    kept remembers what was laid out before.
    Raises BudgetError when the memory does not suffice.
    """
    network = network or Network(qgraph, weights, head.loss, Planner())
    row, table = chosen or choose(qgraph, weights, ranking, head.loss, limits, network)
    scores = limits.candidates(ranking)[: row.layers]
    steps, layout = laid_out(network, scores, limits, row.way)
    by_name = {score.layer: score for score in scores}
    ordered = [by_name[node.name] for node in qgraph.graph if node.name in by_name]
    worst, epoch_bytes = limits.selecting.worst(ordered, row.b_mem_bytes)
    biases = limits.selecting.biases
    check_sums(qgraph, weights, steps.plan, by_name.keys(), biases, limits.grad_bits)
    samples, labels, trained = calibration
    first = samples[:CALIBRATION_SAMPLES], labels[:CALIBRATION_SAMPLES]
    gradients, errors = gradient_maxima(qgraph, weights, *first, trained, head.loss)
    exponents = starting_exponents(gradients, errors, slot_openers(steps.plan), steps.plan.slots)
    candidates = _candidates(qgraph, weights, ordered, worst, limits.selecting)
    plan = Plan(qgraph, weights, head, limits, row, table, steps, layout, candidates, epoch_bytes, exponents)
    plan = _with_free_memory(plan, network.planner)
    head_bytes = plan.state.bank_head_bytes
    return replace(plan, candidates=tuple(replace(c, bank_offset=c.bank_offset + head_bytes) for c in candidates))


def _with_free_memory(plan: Plan, planner: Planner) -> Plan:
    """With what neither regions nor records take: kernels work there, and rows need not take turns."""
    if _fits(plan, plan.layout, 8):
        steps, layout = free_schedule(plan.schedule.plan, plan.limits.schedule, planner)
        if _fits(plan, layout, 0):
            plan = replace(plan, schedule=steps, layout=layout)
    return _with_room(plan)


def _with_room(plan: Plan) -> Plan:
    """With all that kernels lack to work in, as far as the area of the planned region has it."""
    missing = missing_bytes(plan.schedule, plan.layout, plan.qgraph.graph, _sum_bytes(plan))
    low, high = 0, max(0, missing) // 8 + 1  # in steps of 8 bytes: `low` fits, `high` does not or is more than enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(plan, plan.layout, 8 * middle) else (low, middle)
    return replace(plan, layout=replace(plan.layout, extra_bytes=8 * low)) if low else plan


def _fits(plan: Plan, layout: Layout, extra_bytes: int) -> bool:
    """Whether the regions have room with this layout and so many bytes behind it."""
    left = plan.limits.assign(layout.peak_bytes + extra_bytes, plan.state.bytes).left_bytes
    return left >= ledger.align(plan.epoch_bytes, 8)


def _sum_bytes(plan: Plan) -> dict[str, int]:
    """Of all weight gradients of a layer, as sums."""
    each = ledger.sum_bytes(plan.limits.grad_bits)
    return {c.layer: ledger.align(c.worst * c.cost.weights * each, 8) for c in plan.candidates}


def _candidates(
    qgraph: QGraph, weights: Weights, layers: Sequence[LayerScore], worst: Sequence[int], selecting: Selecting
) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    channel = offset = 0
    nodes = {node.name: node for node in qgraph.graph}
    for score, count in zip(layers, worst, strict=True):
        name, channels = score.layer, score.channels
        weight_bytes = int(np.size(weights[f"{name}.weight"]))
        eligible = selecting.eligible(name, eligible_channels(qgraph, nodes[name], weights, channels).tolist())
        found.append(Candidate(name, channels, score.cost, channel, offset, weight_bytes, eligible, count))
        channel += channels
        offset += weight_bytes
    return tuple(found)


def new_head(loss: Loss) -> Head:
    """A head that starts at zero."""
    return Head(loss, None, None)


def kept_head(weight: NDArray[np.float32], bias: NDArray[np.float32], loss: Loss) -> Head:
    """The pretrained last layer, (outputs, features) and (outputs,), as the head's start."""
    steps = np.clip(np.round(weight * 2.0**HEAD_WEIGHT_BITS), -32768, 32767).astype(np.int16)
    return Head(loss, steps, np.round(bias * 2.0**16).astype(np.int32))


def classes_loss(classes: int) -> Loss:
    """Cross-entropy over so many classes."""
    return Loss(squared=False, error_shift=0, outputs=classes)


def squared_loss(outputs: int, largest_error: float) -> Loss:
    """Squared error whose stored gradient saturates above `largest_error`."""
    steps = max(largest_error, 2.0**-16) * 2.0**16 / (2**15 - 1)
    return Loss(squared=True, error_shift=max(0, math.ceil(math.log2(steps))), outputs=outputs)
