# SPDX-License-Identifier: Apache-2.0
"""Plan to the plain values that templates print: tables, arrays, lines of calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.arithmetic.scheme import mantissa15
from medyate.datasets import Scaling
from medyate.emit.filters import derived, unique_idents
from medyate.ir import Node, Quant, Shape, elements
from medyate.ledger import OPTIONAL_STATE, RECORD_HEAD_BYTES, TILE_PIXELS, align
from medyate.ops import OPS
from medyate.ops._spatial import KERNEL_MAX, is_narrow
from medyate.ops.opdef import Kernel, Site, Values
from medyate.plan import ids
from medyate.plan.ids import ValueId
from medyate.plan.parameters import backward_parameters, bias_parameters
from medyate.plan.plan import BiasLayer, Head, Plan
from medyate.plan.steps import HEAD_WEIGHT_BITS, Gradient, Step, Use, head_factor
from medyate.plan.workspace import Key, Workspace, key
from medyate.quantize.apply import site
from medyate.recipe import BATCH_MAX, CLIP, RATE
from medyate.sample.policy import pack

NONE = "MDY_NONE"


@dataclass(frozen=True)
class Array:
    """One constant array of the weights file."""

    ctype: str
    name: str
    values: Sequence[int]
    comment: str


@dataclass(frozen=True)
class Table:
    """One constant struct of the model file."""

    ctype: str
    name: str
    fields: tuple[tuple[str, str], ...]
    comment: str


@dataclass(frozen=True)
class Line:
    """One aligned line of the tensor tables."""

    name: str
    text: str
    comment: str


@dataclass(frozen=True)
class Data:
    """What a model's header says of the data that it was compiled with."""

    classes: tuple[str, ...]
    """Their names; none where targets are vectors."""
    scaling: Scaling
    """What a value means to the network."""
    is_pixels: bool
    """Whether values are whole numbers from 0 to 255."""
    epoch_samples: int


class Context:
    """Collects what the templates print; `values` hands it over."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        graph = plan.qgraph.graph
        self.graph = graph
        self.idents = unique_idents(n.name for n in graph)
        self.arrays: list[Array] = []
        self.tables: list[Table] = []
        self.layers: list[Table] = []
        self.candidate_of = {c.layer: i for i, c in enumerate(plan.candidates)}
        self.biases_of = {layer.layer: i for i, layer in enumerate(plan.biases)}
        self.biases: list[Line] = []
        self.steps = plan.schedule.plan
        self.dy_of = {s.node: s.dy for s in self.steps.back if s.dy is not None}
        self.value = {v.name: v for v in plan.schedule.values}
        self.masked = {s.node for s in self.steps.steps if s.kind == "run" and any(map(self._is_mask, s.uses))}
        self.reruns: dict[str, list[Step]] = {}
        for step in self.steps.steps:
            if step.kind == "again":
                self.reruns.setdefault(step.node, []).append(step)
        self.tensors = [self._tensor(value, shape) for value, shape in self._all_tensors()]
        self.gradients: list[Line] = []
        self._gradient_names: dict[str, str] = {}
        self._asked: set[str] = set()
        for gradient in self._all_gradients():
            self._gradient(gradient)
        for index, node in enumerate(graph):
            self._node(index, node)
        if plan.head is not None and self.steps.head_gradient is not None:
            self._head(plan.head, self.steps.head_gradient)
        self._model_arrays()

    def offset(self, value: ValueId) -> str:
        """Offset of a planned value, or MDY_NONE when this plan has no such value."""
        place = self.plan.schedule.places.get(value, value)
        return f"{self.plan.layout.offsets[place]}u" if place in self.value else NONE

    def mask(self, value: ValueId | None) -> str:
        """A mask's place and rows."""
        if value is None or value not in self.value:
            return f"{{{NONE}, 0}}"
        return f"{{{self.offset(value)}, {self.plan.schedule.rows(value)}}}"

    def again(self, node: str, rerun: int) -> str:
        """Identifier of a node's table for a rerun: other scratch, perhaps the mask."""
        return derived(self.idents[node], f"again{rerun}")

    def _is_mask(self, use: Use) -> bool:
        return self.steps.stores[use.value].kind == "mask"

    def _all_tensors(self) -> list[tuple[ValueId, Shape]]:
        again = {
            use.value: self.graph.shapes[use.value.of]
            for steps in self.reruns.values()
            for step in steps
            for use in step.uses
            if use.mode == "write" and not self._is_mask(use)
        }
        return [*((ids.tensor(name), shape) for name, shape in self.graph.tensors), *again.items()]

    def _life(self, value: ValueId) -> str:
        life = self.value[value]
        return f"live {life.first}..{life.last}"

    def tensor(self, value: ValueId) -> str:
        """Identifier of a tensor's table entry; of one that is made again, with the number of the rerun."""
        producer = self.graph.producer.get(value.of)
        if producer is None:
            return "input_y"
        return derived(self.idents[producer.name], "y" if value.number < 0 else f"again{value.number}_y")

    def _tensor(self, value: ValueId, shape: Shape) -> Line:
        text = f"{{{self.offset(value):>8}, {_shape(shape)}, {self.plan.schedule.rows(value)}}}"
        return Line(self.tensor(value), text, f"{self.value[value].bytes} B, {self._life(value)}")

    def _all_gradients(self) -> list[Gradient]:
        start = self.steps.head_gradient
        found: dict[str, Gradient] = {} if start is None else {start.name: start}
        for step in self.steps.back:
            for gradient in (step.dy, *step.dx, *(join for joins in step.joins for join in joins)):
                if gradient is not None:
                    found[gradient.name] = gradient
        return list(found.values())

    def _gradient(self, gradient: Gradient) -> None:
        producer = self.graph.producer.get(gradient.tensor)
        base = ident = "input_dy" if producer is None else derived(self.idents[producer.name], "dy")
        number = 2
        while ident in self._gradient_names.values():
            ident = f"{base}{number}"
            number += 1
        self._gradient_names[gradient.name] = ident
        text = self._gradient_entry(gradient)
        comment = f"times {gradient.factor:.6g}, {self._life(gradient.storage)}"
        self.gradients.append(Line(ident, text, comment))

    def _gradient_entry(self, gradient: Gradient) -> str:
        shape, producer = self.graph.shapes[gradient.tensor], self.graph.producer.get(gradient.tensor)
        order = 0 if producer is None else self.steps.orders[producer.name]
        rows = self.plan.schedule.rows(gradient.storage)
        place = f"{self.offset(gradient.storage)}, {_shape(shape)}"
        return f"{{{place}, {gradient.slot}, {order}, {rows}, {self.mask(gradient.mask)}}}"

    def gradient(self, gradient: Gradient | None) -> str:
        """Address of a gradient's table entry, which is printed only if something asks."""
        if gradient is None:
            return "NULL"
        self._asked.add(self._gradient_names[gradient.name])
        return f"&{self._gradient_names[gradient.name]}"

    def _array(self, ctype: str, name: str, values: Any, comment: str) -> str:
        flat = [int(v) for v in np.asarray(values).reshape(-1)]
        self.arrays.append(Array(ctype, name, flat, comment))
        return name

    def _node(self, index: int, node: Node) -> None:
        here = site(self.plan.qgraph, self.plan.weights, index)
        op, ident = OPS[node.op], self.idents[node.name]
        assert op.kernel is not None
        fields = [(name, self._field(ident, name, value)) for name, value in op.kernel.fields(here)]
        if node.name in self.biases_of and not is_narrow(here):  # nothing but the bound holds biases that are trained
            fields = [(name, "0" if name == "narrow" else text) for name, text in fields]
        if op.channel_axes is not None:
            dy = self.dy_of.get(node.name)
            fields += [] if dy is None else self._backward(index, node, dy)
            self.tables.append(Table(op.kernel.struct, derived(ident, "p"), tuple(fields), self._comment(node)))
            self._layer(node, op.kernel, here)
            return
        if op.fuses:
            fields.append(("mask", self._own_mask(node)))
        if op.backward is not None and ValueId("back", node.name) in self.plan.schedule.places:
            fields.append(("scratch", self.offset(ValueId("back", node.name))))
        fields.append(("order", str(self.steps.orders[node.name])))
        self._with_reruns(node, Table(op.kernel.struct, ident, tuple(fields), self._comment(node)), self.tables)

    def _own_mask(self, node: Node) -> str:
        """The mask that the forward pass keeps: none where it is made on the way back."""
        return self.mask(ValueId("mask", node.name) if node.name in self.masked else None)

    def _with_reruns(self, node: Node, table: Table, tables: list[Table]) -> None:
        """The table, and one more for each time that the node runs again."""
        tables.append(table)
        for step in self.reruns.get(node.name, []):
            masks = [use.value for use in step.uses if self._is_mask(use)]
            work = [use.value for use in step.uses if use.mode == "work"]
            changed = {
                "mask": self.mask(masks[0] if masks else None),
                "scratch": self.offset(work[0]) if work else NONE,
                "scratch_back": NONE,
                "scratch_update": NONE,
                **dict(self._workspace(key(step))),
            }
            fields = tuple((name, changed.get(name, text)) for name, text in table.fields)
            tables.append(Table(table.ctype, self.again(node.name, step.part), fields, ""))

    def _field(self, ident: str, name: str, value: str | Values) -> str:
        if isinstance(value, Values):
            return self._array(value.ctype, derived(ident, name), value.numbers, value.comment)
        return value

    def _comment(self, node: Node) -> str:
        inputs = " + ".join(str(shape) for shape in self.graph.input_shapes(node))
        return f"{node.name}: {node.op} {inputs} -> {self.graph.shapes[node.output]}"

    def _layer(self, node: Node, kernel: Kernel, here: Site) -> None:
        ident = self.idents[node.name]
        candidate = self.candidate_of.get(node.name)
        weight = here.facts.arrays["weight"]
        layer = (
            ("op", f"&{kernel.table}"),
            ("p", f"&{derived(ident, 'p')}"),
            ("weight", self._array("int8_t", derived(ident, "w"), weight, f"{weight.shape}")),
            ("weight_bytes", f"{weight.size}u"),
            ("mask", self._own_mask(node)),
            ("scratch", self.offset(ValueId("row", node.name))),
            ("scratch_back", self.offset(ValueId("back", node.name))),
            ("scratch_update", self.offset(ValueId("tap", node.name))),
            *self._workspace(("run", node.name, 0)),
            *self._workspace(("input", node.name, 0), "_back"),
            *self._workspace(self._gradient_step(node), "_update"),
            ("order", str(self.steps.orders[node.name])),
            ("candidate", "MDY_FROZEN" if candidate is None else str(candidate)),
            ("bias", str(self.biases_of.get(node.name, "MDY_FROZEN"))),
        )
        self._with_reruns(node, Table("mdy_layer_t", ident, layer, ""), self.layers)
        if node.name in self.biases_of:
            self._biases(self.plan.biases[self.biases_of[node.name]], self.steps.orders[node.name])

    def _workspace(self, of: Key, which: str = "") -> tuple[tuple[str, str], ...]:
        free = self.plan.workspaces.get(of, Workspace(0, 0, 1))
        places = (f"workspace{which}", f"{free.offset}u"), (f"workspace{which}_bytes", f"{free.bytes}u")
        return places if which == "_update" else (*places, (f"band{which}", str(free.band)))

    def _gradient_step(self, node: Node) -> Key:
        """The step that makes the gradients of a layer's weights: row by row, or with their update."""
        by_rows = "weights", node.name, 0
        return by_rows if by_rows in self.plan.workspaces else ("update", node.name, 0)

    def _biases(self, layer: BiasLayer, index: int) -> None:
        ident, gradient = self.idents[layer.layer], self.dy_of[layer.layer]
        b = bias_parameters(self.plan.qgraph, self.plan.weights, index, gradient)
        mults = self._array("uint16_t", derived(ident, "bias_mult"), b.rate_mult, "bias update multipliers")
        exponents = self._array("int8_t", derived(ident, "bias_exponent"), b.rate_exponent, "bias update exponents")
        numbers = f"{layer.first}u, {b.most}, {mults}, {exponents}, {b.norm_mult}, {b.norm_exponent}"
        self.biases.append(Line(ident, f"{{&{ident}, {numbers}}}", f"{layer.count} biases"))

    def _backward(self, index: int, node: Node, dy: Gradient) -> list[tuple[str, str]]:
        ident = self.idents[node.name]

        def own(ctype: str, what: str, values: Any, comment: str) -> str:
            return self._array(ctype, derived(ident, what), values, comment)

        b = backward_parameters(self.plan.qgraph, self.plan.weights, index, dy, self.plan.limits.grad_bits)
        fields = [
            ("grad_mult", own("int16_t", "grad_mult", b.grad_mult, "gradient multipliers")),
            ("grad_exponent", str(b.grad_exponent)),
        ]
        if node.name in self.candidate_of:
            fields += [
                ("rate_mult", own("uint16_t", "rate_mult", b.rate_mult, "update multipliers")),
                ("rate_exponent", own("int8_t", "rate_exponent", b.rate_exponent, "update exponents")),
                ("norm_mult", str(b.norm_mult)),
                ("norm_exponent", str(b.norm_exponent)),
            ]
        return fields

    def _head(self, head: Head, gradient: Gradient) -> None:
        plan, features = self.plan, self.graph.output
        quant = plan.qgraph.quant[features]
        step = 2.0**-HEAD_WEIGHT_BITS
        mult, exponent = mantissa15(quant.scale * step * 2**16)
        rate_mult, rate_exponent = mantissa15(head.loss.unit * quant.scale / step)
        bias_mult, bias_exponent = mantissa15(head.loss.unit * 2.0**16)
        weight = bias = "NULL"
        if head.weight is not None and head.bias is not None:
            weight = self._array("int16_t", "head_w", head.weight, "pretrained classifier")
            bias = self._array("int32_t", "head_b", head.bias, "pretrained classifier")
        fields = (
            ("x", self._tensor(ids.tensor(features), self.graph.shapes[features]).text),
            ("dx", self._gradient_entry(gradient)),
            ("logits", self.offset(ValueId("logits"))),
            ("dlogits", self.offset(ValueId("dlogits"))),
            ("target", self.offset(ValueId("target"))),
            ("scratch", self.offset(ValueId("acc"))),
            ("features", f"{plan.state.features}u"),
            ("classes", str(head.classes)),
            ("columns", str(plan.state.columns)),
            ("bank_bytes", f"{plan.state.bank_head_bytes}u"),
            ("loss", "MDY_SQUARED_ERROR" if head.loss.squared else "MDY_CROSS_ENTROPY"),
            ("error_shift", str(head.loss.error_shift)),
            ("sum_shift", str(head.loss.sum_shift)),
            ("x_zero", str(quant.zero)),
            ("mult", str(mult)),
            ("exponent", str(exponent)),
            ("grad_exponent", str(head_factor(plan.qgraph, head.loss)[1])),
            ("rate_mult", str(rate_mult)),
            ("rate_exponent", str(rate_exponent)),
            ("bias_mult", str(bias_mult)),
            ("bias_exponent", str(bias_exponent)),
            ("weight", weight),
            ("bias", bias),
        )
        comment = f"head: {self.graph.shapes[features]} -> {head.classes} outputs, int16 in RAM, {head.loss.name}"
        self.tables.append(Table("mdy_head_t", "head", fields, comment))

    def _model_arrays(self) -> None:
        bits = [bit for c in self.plan.candidates for bit in c.eligible]
        packed = np.packbits(np.array(bits, bool), bitorder="little") if bits else np.zeros(1, np.uint8)
        self._array("uint8_t", "eligible", packed, "candidate channels that may be selected")
        start = self.plan.limits.selecting.start
        if start:
            norms = [n for c in self.plan.candidates for n in start.get(c.layer, (1,) * c.channels)]
            self._array("uint16_t", "norm_start", [pack(n) for n in norms], "first norms, packed")
        self._array("int16_t", "exponents", self.plan.exponents or (0,), "first gradient exponents, 1/16 octaves")

    def _state(self) -> list[tuple[str, str]]:
        """Fields of mdy_state_t."""
        state = self.plan.state
        places = {**dict.fromkeys(OPTIONAL_STATE, NONE), **{a.name: f"{a.offset}u" for a in state.arrays}}
        return [*places.items(), ("saved_bytes", f"{state.saved_bytes}u"), ("bytes", f"{state.bytes}u")]

    def values(self) -> dict[str, Any]:
        """What the templates read beside the calls, which come first: a gradient is printed if one of them names it."""
        plan, graph = self.plan, self.graph
        quant = plan.qgraph.quant[graph.input]
        headers = sorted({OPS[n.op].kernel.header for n in graph})  # type: ignore[union-attr]
        candidates = [
            Line(
                self.idents[c.layer],
                f"{{&{self.idents[c.layer]}, {c.bank_offset}u, {c.cost.record_bytes}u, {c.cost.weights}u, "
                f"{c.channels}, {c.first_channel}}}",
                f"{c.channels} channels of {c.cost.elements} elements",
            )
            for c in plan.candidates
        ]
        return {
            "record_head": RECORD_HEAD_BYTES,
            "tile": TILE_PIXELS,
            "batch_max": BATCH_MAX,
            "kernel_max": KERNEL_MAX,
            "network": graph.name,
            "policy": f"MDY_{plan.limits.selecting.policy.upper()}",
            "batch_log2": plan.limits.batch.bit_length() - 1,
            "norm_start": "norm_start" if plan.limits.selecting.start else "NULL",
            "headers": [*headers, plan.limits.optimizer.header],
            "optimizer": plan.limits.optimizer.table,
            "digest": f"0x{plan.digest:08x}u",
            "plan": plan,
            "regions": {name: align(bytes_, 8) for name, bytes_ in plan.regions.items()},
            "input_shape": graph.shapes[graph.input],
            "input_bytes": elements(graph.shapes[graph.input]),
            "input_quant": quant,
            "input_line": self.tensors[0],
            "output_line": next(line for line in self.tensors if line.name == self.tensor(ids.tensor(graph.output))),
            "arrays": self.arrays,
            "tables": self.tables,
            "layers": self.layers,
            "tensors": self.tensors if graph.nodes else (),  # without an operation, nothing names them
            "gradients": [line for line in self.gradients if line.name in self._asked],
            "candidates": candidates,
            "biases": self.biases,
            "state": self._state(),
        }


SCALER_BITS = 36
"""Behind the point, at most: sums then stay in 64 bits for inputs of Q16."""


def scaler(scaling: Scaling, quant: Quant) -> tuple[int, int, int] | None:
    """(bias, mult, shift) of a mdy_scaler_t: from a value of the data, in Q16, to a step of the network's input.

    None where 64 bits do not hold that.
    """
    gain = scaling.gain / quant.scale
    shift = min(SCALER_BITS, 31 - math.frexp(gain)[1])
    bias = math.floor((scaling.offset / quant.scale + 0.5 + quant.zero) * 2.0 ** (16 + shift))
    if shift < 0 or abs(bias) >= 2**62:
        return None
    return bias, min(round(gain * 2.0**shift), 2**31 - 1), 16 + shift


def input_values(plan: Plan, data: Data | None) -> dict[str, Any]:
    """What the header says of samples, classes and effort; without data less."""
    quant = plan.qgraph.quant[plan.qgraph.graph.input]
    pixels: list[int] = []
    if data is not None and data.is_pixels:
        pixels = [int(value) for value in data.scaling.int8(np.arange(256), quant)]
    return {
        "data": data,
        "pixel_values": pixels,
        "scaler": None if data is None else scaler(data.scaling, quant),
        "rate": RATE,
        "clip": CLIP,
        "step_instructions": plan.row.step_instructions if plan.row else 0,
    }


def _shape(shape: Shape) -> str:
    return f"{{{shape[0]}, {shape[1]}, {shape[2]}}}"
