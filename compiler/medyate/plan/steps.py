# SPDX-License-Identifier: Apache-2.0
"""The steps of one training pass, forward then backward: one generated line each, and the values they touch.

Backward mirrors forward. A gradient lives in a buffer whose elements share one exponent (its slot) and
carries a static factor: dL/dq = stored * 2^exponent * factor. Sums, moves and most pools only change the
factor; a layer's own pass starts a new slot with factor 1. Gradients of one tensor from several readers
meet in the pass of the reader that runs last, as joins, if that pass sums in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from medyate import ledger
from medyate.errors import GraphError
from medyate.ir import Attrs, Node, QGraph, Shape, Weights
from medyate.ops import OPS
from medyate.ops.opdef import Backward, Rows
from medyate.plan import ids
from medyate.plan.ids import ValueId
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
    storage: ValueId
    """The planned value that holds it; an alias shares another gradient's."""
    mask: ValueId | None
    """The clamp mask that was applied as it was stored, of the tensor's producer."""


@dataclass(frozen=True, slots=True)
class BackStep:
    """How gradients pass one node."""

    node: str
    kind: str
    """'layer', 'sum', or the style of the operation's Backward."""
    dy: Gradient | None
    dx: tuple[Gradient | None, ...]
    joins: tuple[tuple[Gradient, ...], ...]
    """Per input: the gradients that this pass takes along."""
    backward: Backward | None


@dataclass(frozen=True, slots=True)
class Store:
    """A value as memory would hold all of it."""

    row_bytes: int
    rows: int
    kind: str
    """'activation', 'gradient', 'mask' or 'scratch'."""

    @property
    def bytes(self) -> int:
        """All rows."""
        return self.row_bytes * self.rows


@dataclass(frozen=True, slots=True)
class Use:
    """What a step does with a value."""

    value: ValueId
    mode: str
    """
    'read', 'write', 'change' (in place)
    'work'   scratch that means nothing between two rows
    'sums'   weight gradients: what 'work' becomes for an update whose gradient comes row by row
    """
    rows: Rows | None
    """For every row of the step, the rows of the value; None: all of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One generated line."""

    kind: str
    """
    'load'     the sample, where it comes row by row
    'run'      forward of a node; 'again' on the way back
    'clamp'    a clamp mask made from a tensor that is still there
    'head'     logits, loss, its gradient
    'mask'     a clamp mask applied in place
    'copy'     a gradient for a second branch
    'input'    a layer's gradient of its input
    'weights'  what rows add to a layer's weight gradients
    'update'   of a layer's selected channels
    'through'  the function of an operation without weights
    'sum'      of a tensor's gradients
    """
    node: str
    rows: int
    """Rows that can be made one by one; 0: all at once only."""
    uses: tuple[Use, ...]
    back: int = -1
    """Which BackStep it belongs to."""
    part: int = 0
    """Which of its inputs; of a step that runs again, the number of the rerun."""
    in_place: bool = False
    """Whether a value may take the place of the one that it is made from."""


@dataclass(frozen=True)
class Pass:
    """Every step in an order in which they can run, and the values between them."""

    steps: tuple[Step, ...]
    stores: Mapping[ValueId, Store]
    back: tuple[BackStep, ...]
    head_gradient: Gradient | None
    """Of the features; None without a head, in inference."""
    slots: int
    orders: Mapping[str, int]
    """Position of each node from the input; layers and masks above the deepest candidate take part."""
    given: tuple[ValueId, ...]
    """Values that are there before the first step."""
    kept: ValueId
    """The value that is read after the last one."""


@lru_cache(maxsize=4096)
def one_by_one(count: int) -> Rows:
    """Row after row."""
    return tuple((row, row + 1) for row in range(count))


@lru_cache(maxsize=4096)
def _rows_read(op: str, attrs: Attrs, inputs: tuple[Shape, ...], index: int) -> Rows | None:
    return OPS[op].rows(attrs, inputs, index)


@lru_cache(maxsize=4096)
def covering(rows: Rows, count: int) -> Rows:
    """For each of `count` input rows, the output rows whose window covers it."""
    found = []
    first = last = 0
    for row in range(count):
        while first < len(rows) and rows[first][1] <= row:
            first += 1
        last = max(last, first)
        while last < len(rows) and rows[last][0] <= row:
            last += 1
        found.append((first, last))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rerun:
    """Nodes whose rows are made once more on the way back, so that their clamp masks need not be kept."""

    number: int
    nodes: tuple[str, ...]
    """In running order; all that they read is theirs or one tensor that is kept."""
    masks: frozenset[str]
    """Those whose masks come from here."""
    kept: str | None
    """The node that made the tensor which is kept, if its mask is made from that before the first of them."""


@dataclass
class _Builder:
    qgraph: QGraph
    weights: Weights
    candidates: Mapping[str, int]
    biases: frozenset[str]
    grad_bits: int
    reruns: Mapping[str, Rerun] = field(default_factory=dict)
    by_rows: bool = False
    stores: dict[ValueId, Store] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    back: list[BackStep] = field(default_factory=list)
    slots: int = 0
    pending: dict[str, list[Gradient]] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.graph = self.qgraph.graph
        self.orders = {node.name: i for i, node in enumerate(self.graph)}
        self.trained = self.biases | self.candidates.keys()
        depths = [self.orders[name] for name in self.trained]
        self.deepest = min(depths) if depths else len(self.orders)
        self.remade = frozenset(name for rerun in self.reruns.values() for name in (*rerun.masks, rerun.kept))
        self.rerun: set[int] = set()

    def make(self, value: ValueId, row_bytes: int, rows: int, kind: str) -> ValueId:
        assert value not in self.stores
        self.stores[value] = Store(row_bytes, rows, kind)
        return value

    def work(self, value: ValueId, count: int) -> Use:
        return Use(self.make(value, count, 1, "scratch"), "work", None)

    def rows(self, value: ValueId, mode: str) -> Use:
        """A use row by row."""
        return Use(value, mode, one_by_one(self.stores[value].rows))

    def read_rows(self, node: Node, index: int) -> Rows | None:
        return _rows_read(node.op, node.attrs, self.graph.input_shapes(node), index)

    def tensor(self, name: str) -> ValueId:
        shape = self.graph.shapes[name]
        return self.make(ids.tensor(name), ledger.tensor_bytes((1, *shape[1:])), shape[0], "activation")

    def forward(self) -> None:
        sample = self.tensor(self.graph.input)
        if self.by_rows:
            source = self.rows(sample, "write")
            self.steps.append(Step("load", "", self.stores[source.value].rows, (source,)))
        for node in self.graph:
            output = self.tensor(node.output)
            height = self.graph.shapes[node.output][0]
            uses = [Use(ids.tensor(name), "read", self.read_rows(node, i)) for i, name in enumerate(node.inputs)]
            whole = any(use.rows is None for use in uses)
            uses.append(self.rows(output, "write"))
            if node.name in self.trained:
                uses.append(
                    self.work(ValueId("row", node.name), ledger.correction_bytes(self.graph.shapes[node.output]))
                )
            if self.has_mask(node) and node.name not in self.remade:
                uses.append(self.mask(node))
            in_place = OPS[node.op].in_place
            self.steps.append(Step("run", node.name, 0 if whole else height, tuple(uses), in_place=in_place))

    def mask(self, node: Node) -> Use:
        height, width, channels = self.graph.shapes[node.output]
        mask = self.make(ValueId("mask", node.name), ledger.mask_bytes((1, width, channels)), height, "mask")
        return self.rows(mask, "write")

    def has_mask(self, node: Node) -> bool:
        return OPS[node.op].fuses and self.orders[node.name] >= self.deepest

    def gradient(self, tensor: str, slot: int | None, factor: float, storage: ValueId | None = None) -> Gradient:
        name = f"d_{tensor}"
        while name in self.names:
            name += "_"
        self.names.add(name)
        mask = None
        if slot is None:  # values of more bits are rounded: those that the mask drops must not set the scale
            slot = self.slots
            self.slots += 1
            producer = self.graph.producer.get(tensor)
            if producer is not None and self.has_mask(producer):
                mask = ValueId("mask", producer.name)
        if storage is None:
            shape = self.graph.shapes[tensor]
            row_bytes = ledger.gradient_bytes((1, *shape[1:]), self.grad_bits)
            storage = self.make(ValueId("gradient", name), row_bytes, shape[0], "gradient")
        return Gradient(name, tensor, slot, factor, storage, mask)

    def head(self, loss: Loss) -> Gradient:
        features = self.graph.output
        gradient = self.gradient(features, None, head_factor(self.qgraph, loss)[0])
        uses = [Use(ids.tensor(features), "read", None), self.rows(gradient.storage, "write")]
        values = {"logits": 4 * loss.outputs, "dlogits": 2 * loss.outputs}
        if loss.squared:  # the targets come with the sample
            values["target"] = 4 * loss.outputs
        for kind, count in values.items():
            value = self.make(ValueId(kind), count, 1, "scratch")
            uses.append(Use(value, "read" if kind == "target" else "write", None))
        uses += [Use(gradient.mask, "read", None)] if gradient.mask else []
        uses.append(self.work(ValueId("acc"), 4 * self.graph.shapes[features][2]))
        self.steps.append(Step("head", "", 0, tuple(uses)))
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

    def again(self, rerun: Rerun) -> None:
        """The forward steps that the way back repeats."""
        self.rerun.add(rerun.number)
        made: dict[str, ValueId] = {}
        if rerun.kept is not None:
            node = self.graph.nodes[self.orders[rerun.kept]]
            if self.has_mask(node):
                kept = ids.tensor(node.output)
                uses = [self.rows(kept, "read"), self.mask(node)]
                self.steps.append(Step("clamp", node.name, self.stores[kept].rows, tuple(uses)))
        for node in (n for n in self.graph if n.name in rerun.nodes):
            height = self.graph.shapes[node.output][0]
            uses = [
                Use(made.get(name, ids.tensor(name)), "read", self.read_rows(node, i))
                for i, name in enumerate(node.inputs)
            ]
            first, output = self.stores[ids.tensor(node.output)], ValueId("again", node.output, rerun.number)
            made[node.output] = self.make(output, first.row_bytes, first.rows, "activation")
            uses.append(self.rows(output, "write"))
            if node.name in self.trained:
                scratch = ledger.correction_bytes(self.graph.shapes[node.output])
                uses.append(self.work(ValueId("row", node.name, rerun.number), scratch))
            if node.name in rerun.masks and self.has_mask(node):
                uses.append(self.mask(node))
            self.steps.append(Step("again", node.name, height, tuple(uses), part=rerun.number))

    def back_node(self, node: Node, dy: Gradient) -> None:
        rerun = self.reruns.get(node.name)
        if rerun is not None and rerun.number not in self.rerun:
            self.again(rerun)
        if self.has_mask(node) and not dy.mask:
            uses = (self.rows(dy.storage, "change"), self.rows(ValueId("mask", node.name), "read"))
            self.steps.append(Step("mask", node.name, self.stores[dy.storage].rows, uses, len(self.back)))
        if OPS[node.op].channel_axes is not None:
            self.back_layer(node, dy)
        else:
            self.back_through(node, dy, self.backward_of(node))

    def backward_of(self, node: Node) -> Backward:
        backward = OPS[node.op].backward
        if backward is None:
            raise GraphError(f"no gradient passes '{node.name}' ({node.op}).", "Rank and train only layers behind it.")
        return backward(site(self.qgraph, self.weights, self.orders[node.name]))

    def back_through(self, node: Node, dy: Gradient, backward: Backward) -> None:
        style = {"share": self.back_share, "copy": self.back_copy, "in_place": self.back_copy, "sink": self.back_sink}
        style[backward.style](node, dy, backward)

    def arrive(self, tensor: str) -> bool:
        """Counts a reader of `tensor` as done; True when it was the last."""
        self.waiting[tensor] -= 1
        return self.waiting[tensor] == 0

    def back_layer(self, node: Node, dy: Gradient) -> None:
        shapes, source, number = self.graph.shapes, node.inputs[0], len(self.back)
        dx, joins = self.summed(source, 1.0)
        self.back.append(BackStep(node.name, "layer", dy, (dx,), (joins,), None))
        if dx is not None:
            windows = self.read_rows(node, 0)
            assert windows is not None
            height = shapes[source][0]
            scratch = ledger.input_scratch_bytes(shapes[source], shapes[node.output])
            uses = [
                Use(dy.storage, "read", covering(windows, height)),
                *(self.rows(join.storage, "read") for join in joins),
                self.rows(dx.storage, "write"),
                self.work(ValueId("back", node.name), scratch),
            ]
            uses += [self.rows(dx.mask, "read")] if dx.mask else []
            self.steps.append(Step("input", node.name, height, tuple(uses), number))
        if node.name in self.trained:
            scratch = ledger.tap_bytes(shapes[node.output], self.grad_bits)
            update = (
                self.rows(dy.storage, "read"),
                self.work(ValueId("tap", node.name), scratch),
                self.sums(node, self.candidates.get(node.name, 0)),
            )
            self.steps.append(Step("update", node.name, shapes[node.output][0], update, number))

    def sums(self, node: Node, records: int) -> Use:
        """Gradients of biases, and weights of as many channels as can be selected: where dy comes row by row."""
        cost = OPS[node.op].channel_cost
        assert cost is not None
        weights = cost(node.attrs, self.graph.input_shapes(node)).weights
        biases = self.graph.shapes[node.output][2] if node.name in self.biases else 0
        count = biases + records * weights
        value = self.make(ValueId("sums", node.name), count * ledger.sum_bytes(self.grad_bits), 1, "scratch")
        return Use(value, "sums", None)

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
        dx = self.gradient(source, None, factor)
        self.pending.setdefault(source, []).append(dx)
        return dx, joins

    def through(
        self, node: Node, dy: Gradient, dx: Sequence[Gradient | None], joins: Sequence[Gradient], more: Sequence[Use]
    ) -> None:
        """The step of an operation without weights, all at once."""
        backward = self.backward_of(node)
        targets = [gradient for gradient in dx if gradient is not None]
        in_place = any(gradient.storage == dy.storage for gradient in targets)
        uses = [Use(dy.storage, "change" if in_place else "read", None), *more]
        uses += [Use(ids.tensor(name), "read", None) for name in backward.tensors(node)]
        uses += [Use(g.storage, "write", None) for g in targets if g.storage != dy.storage]
        uses += [Use(g.storage, "read", None) for g in joins]
        uses += [Use(g.mask, "read", None) for g in targets if g.mask]
        self.steps.append(Step("through", node.name, 0, tuple(uses), len(self.back)))

    def back_sink(self, node: Node, dy: Gradient, backward: Backward) -> None:
        channels = max(self.graph.shapes[name][2] for name in node.inputs)
        # Every input has its own sums; x * x makes two gradients of one tensor, the first joins the second.
        parts = [
            self.summed(name, dy.factor * factor, read_again=name in node.inputs[position + 1 :])
            for position, (name, factor) in enumerate(zip(node.inputs, backward.factors, strict=True))
        ]
        results, joins = tuple(p[0] for p in parts), tuple(p[1] for p in parts)
        if any(results):
            taken = [join for group in joins for join in group if join not in results]
            self.through(node, dy, results, taken, [self.work(ValueId("back", node.name), 4 * channels)])
        self.back.append(BackStep(node.name, "sink", dy, results, joins, backward))

    def back_share(self, node: Node, dy: Gradient, backward: Backward) -> None:
        factors = dict(zip(node.inputs, backward.factors, strict=True))
        branches = list(dict.fromkeys(node.inputs))  # x + x is one branch that counts twice
        finished = [self.arrive(name) for name in branches]
        results: list[Gradient | None] = []
        kept = any(self.wants(n) and not self.exclusive(n) for n in branches)
        for position, name in enumerate(branches):
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
                uses = (self.rows(dy.storage, "read"), self.rows(copy.storage, "write"))
                height = self.stores[copy.storage].rows
                self.steps.append(Step("copy", node.name, height, uses, len(self.back), position, in_place=True))
            else:
                kept = True  # the buffer itself goes to this branch, a copy to the other
                alias = self.gradient(name, dy.slot, factor, dy.storage)
                self.pending[name] = [alias]
                results.append(alias)
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
            self.through(node, dy, results, (), ())
        self.back.append(BackStep(node.name, backward.style, dy, tuple(results), (), backward))
        self.sum_where_done(node, finished)

    def sum_where_done(self, node: Node, tensors: Sequence[str]) -> None:
        """Where no layer's pass is left to join several gradients of a tensor, a step of its own."""
        for tensor in dict.fromkeys(tensors):
            gradients = self.pending.get(tensor, [])
            if len(gradients) < 2:
                continue
            dx = self.gradient(tensor, None, 1.0)
            uses = [*(self.rows(g.storage, "read") for g in gradients), self.rows(dx.storage, "write")]
            uses.append(self.work(ValueId("sum", node.name, tensor=tensor), 4 * self.graph.shapes[tensor][2]))
            uses += [self.rows(dx.mask, "read")] if dx.mask else []
            self.pending[tensor] = [dx]
            self.steps.append(Step("sum", node.name, 0, tuple(uses), len(self.back)))
            self.back.append(BackStep(node.name, "sum", None, (dx,), (tuple(gradients),), None))

    def result(self, start: Gradient | None) -> Pass:
        given = [value for value in [ValueId("target")] if value in self.stores]
        given += [] if self.by_rows else [ids.tensor(self.graph.input)]
        kept = ids.tensor(self.graph.output) if start is None else ValueId("logits")
        return Pass(
            tuple(self.steps),
            self.stores,
            tuple(self.back),
            start,
            self.slots,
            self.orders,
            tuple(given),
            kept,
        )


def head_factor(qgraph: QGraph, loss: Loss) -> tuple[float, int]:
    """(static factor, 2-exponent) of the features' gradient as the head's pass leaves it.

    dL/dq = sum over o of w_q d_q * s_x * s_w * unit, and the pass shifts the sums by `sum_shift`.
    """
    scale = qgraph.quant[qgraph.graph.output].scale
    factor, exponent = math.frexp(scale * loss.unit)
    return factor, exponent - HEAD_WEIGHT_BITS + loss.sum_shift


def inference_pass(qgraph: QGraph, weights: Weights, *, by_rows: bool = False) -> Pass:
    """The forward steps alone; the output stays for the host to read."""
    builder = _Builder(qgraph, weights, {}, frozenset(), 8, by_rows=by_rows)
    builder.forward()
    return builder.result(None)


def training_pass(
    qgraph: QGraph,
    weights: Weights,
    candidates: Mapping[str, int],
    loss: Loss,
    grad_bits: int,
    reruns: Mapping[str, Rerun] = MappingProxyType({}),
    *,
    by_rows: bool = False,
    biases: Iterable[str] = (),
) -> Pass:
    """The steps for a set of candidate layers (name to most records).

    `reruns`: by node of the way back. `by_rows`: the sample comes row by row, else it is there as a whole. `biases`:
    layers whose biases are trained.
    """
    builder = _Builder(qgraph, weights, candidates, frozenset(biases), grad_bits, reruns, by_rows)
    builder.forward()
    start = builder.head(loss)
    builder.backward(start)
    return builder.result(start)
