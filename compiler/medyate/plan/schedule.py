# SPDX-License-Identifier: Apache-2.0
"""The steps of one training pass, forward then backward, and the values that they need.

Backward mirrors forward. A gradient lives in a buffer whose elements share one exponent (its slot) and
carries a static factor: dL/dq = stored * 2^exponent * factor. Sums, moves and most pools only change the
factor; a layer's own pass starts a new slot with factor 1. Gradients of one tensor from several readers
meet in the pass of the reader that runs last, as joins, if that pass sums in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medyate import ledger
from medyate.errors import GraphError
from medyate.ir import Node, QGraph, Weights
from medyate.ops import OPS
from medyate.ops.opdef import Backward
from medyate.plan.layout import Value
from medyate.quantize.apply import site

HEAD_WEIGHT_BITS = 12
"""The head's int16 weights are steps of 2^-12: a range of 8."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What the head is trained for, and what its stored gradient means: dL/dlogit = stored * unit."""

    squared: bool
    """Half the mean squared error against a vector; else cross-entropy of a class."""
    error_shift: int
    """Of a squared error: stored = (logit - target) in Q16, shifted right by this and saturated."""
    outputs: int

    @property
    def name(self) -> str:
        """As artefacts call it."""
        return "squared error" if self.squared else "cross-entropy"

    @property
    def unit(self) -> float:
        """dL/dlogit of a stored 1."""
        return float(2.0 ** (self.error_shift - 16) / self.outputs) if self.squared else 2.0**-15

    @property
    def sum_shift(self) -> int:
        """Bits that sums over the outputs of weight * stored gradient give up to fit 32.

        A cross-entropy's gradients add up to 2 at most; errors of vectors may all be large at once.
        """
        return max(1, math.ceil(math.log2(self.outputs))) if self.squared else 1


@dataclass(frozen=True, slots=True)
class Gradient:
    """A gradient's buffer."""

    name: str
    tensor: str
    slot: int
    factor: float
    storage: str
    """Name of the planned value that holds it; an alias shares another gradient's."""
    mask: str
    """Name of the clamp mask that was applied as it was stored, of the tensor's producer; '' if none."""


@dataclass(frozen=True, slots=True)
class BackStep:
    """One line of the backward pass."""

    node: str
    kind: str
    """'layer', 'sum', or the style of the operation's Backward."""
    dy: Gradient | None
    dx: tuple[Gradient | None, ...]
    joins: tuple[tuple[Gradient, ...], ...]
    """Per input: the gradients that this pass takes along."""
    backward: Backward | None


@dataclass(frozen=True)
class Schedule:
    """Everything in order; step numbers index forward, head and backward lines."""

    steps: int
    back: tuple[BackStep, ...]
    head_gradient: Gradient | None
    """Of the features; None without a head, in inference."""
    slots: int
    values: tuple[Value, ...]
    orders: Mapping[str, int]
    """Position of each node from the input; layers and masks above the deepest candidate take part."""


@dataclass
class _Live:
    """First and last step of a value while the schedule is being built."""

    bytes: int
    first: int
    last: int
    align: int
    kind: str


@dataclass
class _Builder:
    qgraph: QGraph
    weights: Weights
    candidates: frozenset[str]
    grad_bits: int
    live: dict[str, _Live] = field(default_factory=dict)
    back: list[BackStep] = field(default_factory=list)
    slots: int = 0
    step: int = 0
    pending: dict[str, list[Gradient]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.graph = self.qgraph.graph
        self.orders = {node.name: i for i, node in enumerate(self.graph)}
        depths = [self.orders[name] for name in self.candidates]
        self.deepest = min(depths) if depths else len(self.orders)

    def use(self, name: str) -> None:
        self.live[name].last = self.step

    def make(self, name: str, count: int, kind: str) -> None:
        if name in self.live:
            raise GraphError(f"two values are called '{name}'.", "Rename the layer or tensor of that name.")
        alignment = 8 if kind == "scratch" else 4
        self.live[name] = _Live(count, self.step, self.step, alignment, kind)

    def gradient(self, tensor: str, slot: int | None, factor: float, storage: str | None = None) -> Gradient:
        name = f"d_{tensor}"
        while name in self.names:
            name += "_"
        self.names.add(name)
        mask = ""
        if slot is None:  # values of more bits are rounded: those that the mask drops must not set the scale
            slot = self.slots
            self.slots += 1
            producer = self.graph.producer.get(tensor)
            if producer is not None and self.has_mask(producer):
                mask = f"{producer.name}/mask"
                self.use(mask)
        if storage is None:
            storage = name
            self.make(storage, ledger.gradient_bytes(self.graph.shapes[tensor], self.grad_bits), "gradient")
        return Gradient(name, tensor, slot, factor, storage, mask)

    def values(self) -> tuple[Value, ...]:
        return tuple(
            Value(name, entry.bytes, entry.first, entry.last, entry.align, entry.kind)
            for name, entry in self.live.items()
        )

    def forward(self) -> None:
        shapes = self.graph.shapes
        self.make(self.graph.input, ledger.tensor_bytes(shapes[self.graph.input]), "activation")
        for node in self.graph:
            self.make(node.output, ledger.tensor_bytes(shapes[node.output]), "activation")
            for name in node.inputs:
                self.use(name)
            if node.name in self.candidates:
                self.make(f"{node.name}/row", ledger.correction_bytes(shapes[node.output]), "scratch")
            if self.has_mask(node):
                self.make(f"{node.name}/mask", ledger.mask_bytes(shapes[node.output]), "mask")
            self.step += 1

    def has_mask(self, node: Node) -> bool:
        return OPS[node.op].fuses and self.orders[node.name] >= self.deepest

    def head(self, loss: Loss) -> Gradient:
        features = self.graph.output
        self.use(features)
        if loss.squared:  # the targets come with the sample
            self.live["target"] = _Live(4 * loss.outputs, 0, self.step, 4, "scratch")
        self.make("logits", 4 * loss.outputs, "scratch")
        self.make("dlogits", 2 * loss.outputs, "scratch")
        gradient = self.gradient(features, None, head_factor(self.qgraph, loss)[0])
        self.make("head/acc", 4 * self.graph.shapes[features][2], "scratch")
        self.step += 1
        return gradient

    def backward(self, start: Gradient) -> None:
        self.pending = {self.graph.output: [start]}
        self.waiting = {name: len(nodes) for name, nodes in self.graph.consumers.items()}
        self.waiting[self.graph.output] = 0
        for node in reversed(self.graph.nodes):
            if self.orders[node.name] < self.deepest:
                break
            gradients = self.pending.pop(node.output, [])
            if not gradients:
                continue
            assert len(gradients) == 1
            self.back_node(node, gradients[0])

    def wants(self, tensor: str) -> bool:
        producer = self.graph.producer.get(tensor)
        return producer is not None and self.orders[producer.name] >= self.deepest

    def back_node(self, node: Node, dy: Gradient) -> None:
        self.use(dy.storage)
        if self.has_mask(node) and not dy.mask:
            self.use(f"{node.name}/mask")
        if OPS[node.op].channel_axes is not None:
            self.back_layer(node, dy)
        else:
            self.back_through(node, dy, self.backward_of(node))
        self.step += 1

    def backward_of(self, node: Node) -> Backward:
        backward = OPS[node.op].backward
        if backward is None:
            raise GraphError(f"no gradient passes '{node.name}' ({node.op}).", "Rank and train only layers behind it.")
        return backward(site(self.qgraph, self.weights, self.orders[node.name]))

    def back_through(self, node: Node, dy: Gradient, backward: Backward) -> None:
        for name in backward.tensors(node):
            self.use(name)
        style = {"share": self.back_share, "copy": self.back_copy, "in_place": self.back_copy, "sink": self.back_sink}
        style[backward.style](node, dy, backward)

    def arrive(self, tensor: str) -> bool:
        """Counts a reader of `tensor` as done; True when it was the last."""
        self.waiting[tensor] -= 1
        return self.waiting[tensor] == 0

    def back_layer(self, node: Node, dy: Gradient) -> None:
        shapes = self.graph.shapes
        source = node.inputs[0]
        scratch = ledger.backward_bytes(
            shapes[source], shapes[node.output], self.grad_bits, candidate=node.name in self.candidates
        )
        self.make(f"{node.name}/back", scratch, "scratch")
        dx, joins = self.summed(source, 1.0)
        self.back.append(BackStep(node.name, "layer", dy, (dx,), (joins,), None))

    def summed(
        self, source: str, factor: float, *, read_again: bool = False
    ) -> tuple[Gradient | None, tuple[Gradient, ...]]:
        """A new gradient of `source`, and those that wait for it if this reader is the last."""
        last = not read_again and self.arrive(source)
        if not self.wants(source):
            return None, ()
        joins: tuple[Gradient, ...] = ()
        if last:
            joins = tuple(self.pending.pop(source, ()))
            for join in joins:
                self.use(join.storage)
        dx = self.gradient(source, None, factor)
        self.pending.setdefault(source, []).append(dx)
        return dx, joins

    def back_sink(self, node: Node, dy: Gradient, backward: Backward) -> None:
        channels = max(self.graph.shapes[name][2] for name in node.inputs)
        self.make(f"{node.name}/back", 4 * channels, "scratch")
        # Every input has its own sums; x * x makes two gradients of one tensor, the first joins the second.
        parts = [
            self.summed(name, dy.factor * factor, read_again=name in node.inputs[position + 1 :])
            for position, (name, factor) in enumerate(zip(node.inputs, backward.factors, strict=True))
        ]
        results, joins = tuple(p[0] for p in parts), tuple(p[1] for p in parts)
        self.back.append(BackStep(node.name, "sink", dy, results, joins, backward))

    def back_share(self, node: Node, dy: Gradient, backward: Backward) -> None:
        factors = dict(zip(node.inputs, backward.factors, strict=True))
        branches = list(dict.fromkeys(node.inputs))  # x + x is one branch that counts twice
        finished = [self.arrive(name) for name in branches]
        results: list[Gradient | None] = []
        kept = any(self.wants(n) and not self.exclusive(n) for n in branches)
        for name in branches:
            if not self.wants(name):
                results.append(None)
                continue
            factor = dy.factor * factors[name] * node.inputs.count(name)
            if not self.exclusive(name):  # read again by the reader that runs last
                self.pending.setdefault(name, []).append(self.gradient(name, dy.slot, factor, dy.storage))
                results.append(None)
            elif kept:
                copy = self.gradient(name, dy.slot, factor)
                self.pending[name] = [copy]
                results.append(copy)
            else:
                kept = True  # the buffer itself goes to this branch, a copy to the other
                alias = self.gradient(name, dy.slot, factor, dy.storage)
                self.pending[name] = [alias]
                results.append(alias)
        # Copies are made before any reader masks the buffer in place: both happen in this one step.
        results += [None] * (len(node.inputs) - len(branches))
        self.back.append(BackStep(node.name, "share", dy, tuple(results), (), backward))
        self.sum_where_done(node, [n for n, done in zip(branches, finished, strict=True) if done])

    def exclusive(self, tensor: str) -> bool:
        return len(self.graph.consumers[tensor]) == 1

    def back_copy(self, node: Node, dy: Gradient, backward: Backward) -> None:
        storage = dy.storage if backward.style == "in_place" else None
        finished = [name for name in dict.fromkeys(node.inputs) if self.arrive(name)]
        results: list[Gradient | None] = []
        for name, factor in zip(node.inputs, backward.factors, strict=True):
            dx = self.gradient(name, dy.slot, dy.factor * factor, storage) if self.wants(name) else None
            results.append(dx)
            if dx is not None:
                self.pending.setdefault(name, []).append(dx)
        if any(results):
            self.back.append(BackStep(node.name, backward.style, dy, tuple(results), (), backward))
        self.sum_where_done(node, finished)

    def sum_where_done(self, node: Node, tensors: Sequence[str]) -> None:
        """Where no layer's pass is left to join several gradients of a tensor, a step of its own."""
        for tensor in dict.fromkeys(tensors):
            gradients = self.pending.get(tensor, [])
            if len(gradients) < 2:
                continue
            self.step += 1
            for gradient in gradients:
                self.use(gradient.storage)
            channels = self.graph.shapes[tensor][2]
            self.make(f"{node.name}/sum/{tensor}", 4 * channels, "scratch")
            dx = self.gradient(tensor, None, 1.0)
            self.pending[tensor] = [dx]
            self.back.append(BackStep(node.name, "sum", None, (dx,), (tuple(gradients),), None))


def head_factor(qgraph: QGraph, loss: Loss) -> tuple[float, int]:
    """(static factor, 2-exponent) of the features' gradient as the head's pass leaves it.

    dL/dq = sum over o of w_q d_q * s_x * s_w * unit, and the pass shifts the sums by `sum_shift`.
    """
    scale = qgraph.quant[qgraph.graph.output].scale
    factor, exponent = math.frexp(scale * loss.unit)
    return factor, exponent - HEAD_WEIGHT_BITS + loss.sum_shift


def inference_schedule(qgraph: QGraph, weights: Weights) -> Schedule:
    """The forward steps alone; the output stays for the host to read."""
    builder = _Builder(qgraph, weights, frozenset(), 8)
    builder.forward()
    builder.use(qgraph.graph.output)
    return Schedule(builder.step, (), None, 0, builder.values(), builder.orders)


def schedule(qgraph: QGraph, weights: Weights, candidates: frozenset[str], loss: Loss, grad_bits: int) -> Schedule:
    """The steps and values for a set of candidate layers."""
    builder = _Builder(qgraph, weights, candidates, grad_bits)
    builder.forward()
    start = builder.head(loss)
    builder.backward(start)
    builder.use("logits")  # the host may read them after the step
    return Schedule(builder.step, tuple(builder.back), start, builder.slots, builder.values(), builder.orders)
