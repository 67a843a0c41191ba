# SPDX-License-Identifier: Apache-2.0
"""Plan to the plain values that templates print: tables, arrays, lines of calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.emit.filters import unique_idents
from medyate.ir import Node, Shape, elements
from medyate.ledger import RECORD_HEAD_BYTES
from medyate.ops import OPS
from medyate.ops._spatial import KERNEL_MAX
from medyate.ops.add import Add
from medyate.ops.pool import AveragePool
from medyate.ops.shortcut import Shortcut
from medyate.plan.parameters import backward_parameters, forward_parameters
from medyate.plan.plan import Plan
from medyate.plan.schedule import HEAD_WEIGHT_BITS, BackStep, Gradient, head_factor
from medyate.quantize.apply import integers
from medyate.quantize.scheme import (
    ADD_LEFT_SHIFT,
    Integers,
    add_output_multiplier,
    fixed_point,
    mantissa15,
)

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
class Call:
    """One line of forward or backward."""

    text: str
    comment: str


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
        self.dy_of = {s.node: s.dy for s in plan.schedule.back if s.dy is not None}
        self.value = {v.name: v for v in plan.schedule.values}
        self.tensors = [self._tensor(name, shape) for name, shape in graph.tensors]
        self.gradients: list[Line] = []
        self._gradient_names: dict[str, str] = {}
        for gradient in self._all_gradients():
            self._gradient(gradient)
        for index, node in enumerate(graph):
            self._node(index, node)
        self._head()
        self._model_arrays()

    def offset(self, name: str) -> str:
        """Offset of a planned value, or MDY_NONE when this plan has no such value."""
        return f"{self.plan.layout.offsets[name]}u" if name in self.value else NONE

    def _life(self, name: str) -> str:
        value = self.value[name]
        return f"live {value.first}..{value.last}"

    def tensor(self, name: str) -> str:
        """Identifier of a tensor's table entry."""
        producer = self.graph.producer.get(name)
        return "input_y" if producer is None else f"{self.idents[producer.name]}_y"

    def _tensor(self, name: str, shape: Shape) -> Line:
        text = f"{{{self.offset(name):>8}, {_shape(shape)}}}"
        return Line(self.tensor(name), text, f"{elements(shape)} B, {self._life(name)}")

    def _all_gradients(self) -> list[Gradient]:
        found: dict[str, Gradient] = {self.plan.schedule.head_gradient.name: self.plan.schedule.head_gradient}
        for step in self.plan.schedule.back:
            for gradient in (step.dy, *step.dx, *step.joins):
                if gradient is not None:
                    found[gradient.name] = gradient
        return list(found.values())

    def _gradient(self, gradient: Gradient) -> None:
        base = ident = f"{self.idents[self.graph.producer[gradient.tensor].name]}_dy"
        number = 2
        while ident in self._gradient_names.values():
            ident = f"{base}{number}"
            number += 1
        self._gradient_names[gradient.name] = ident
        text = (
            f"{{{self.offset(gradient.storage):>8}, {_shape(self.graph.shapes[gradient.tensor])}, {gradient.slot:>3}}}"
        )
        comment = f"times {gradient.factor:.6g}, {self._life(gradient.storage)}"
        self.gradients.append(Line(ident, text, comment))

    def gradient(self, gradient: Gradient | None) -> str:
        """Address of a gradient's table entry."""
        return "NULL" if gradient is None else f"&{self._gradient_names[gradient.name]}"

    def _array(self, ctype: str, name: str, values: Any, comment: str) -> str:
        flat = [int(v) for v in np.asarray(values).reshape(-1)]
        self.arrays.append(Array(ctype, name, flat, comment))
        return name

    def _node(self, index: int, node: Node) -> None:
        facts = integers(self.plan.qgraph, self.plan.weights, index)
        if OPS[node.op].channel_axes is not None:
            self._weighted(index, node, facts)
        elif isinstance(node.attrs, Add):
            self._add(node, facts)
        elif isinstance(node.attrs, AveragePool):
            self._pool(node, facts)
        elif isinstance(node.attrs, Shortcut):
            self._shortcut(node, facts)

    def _order(self, node: Node) -> str:
        return str(self.plan.schedule.orders[node.name])

    def _comment(self, node: Node) -> str:
        inputs = " + ".join(str(shape) for shape in self.graph.input_shapes(node))
        return f"{node.name}: {node.op} {inputs} -> {self.graph.shapes[node.output]}"

    def _weighted(self, index: int, node: Node, facts: Integers) -> None:
        ident, weights, a = self.idents[node.name], self.plan.weights, node.attrs
        kernel = OPS[node.op].kernel
        assert kernel is not None and kernel.table is not None
        forward = forward_parameters(facts.multipliers)
        weight = weights[node.weight_name("weight")]
        weight_ident = self._array("int8_t", f"{ident}_w", weight, f"{weight.shape}")
        fields = [
            ("in", _shape(self.graph.shapes[node.inputs[0]])),
            ("out", _shape(self.graph.shapes[node.output])),
            ("kernel_h", str(a.kernel[0])),  # type: ignore[attr-defined]
            ("kernel_w", str(a.kernel[1])),  # type: ignore[attr-defined]
            ("stride_h", str(a.stride[0])),  # type: ignore[attr-defined]
            ("stride_w", str(a.stride[1])),  # type: ignore[attr-defined]
            ("dilation_h", str(a.dilation[0])),  # type: ignore[attr-defined]
            ("dilation_w", str(a.dilation[1])),  # type: ignore[attr-defined]
            ("pad_top", str(a.pads[0])),  # type: ignore[attr-defined]
            ("pad_left", str(a.pads[1])),  # type: ignore[attr-defined]
            ("x_zero", str(facts.inputs[0].zero)),
            ("y_zero", str(facts.output.zero)),
            ("act_min", str(facts.bounds[0])),
            ("act_max", str(facts.bounds[1])),
            ("bias", self._array("int32_t", f"{ident}_b", weights[node.weight_name("bias")], "bias")),
            ("mult", self._array("int32_t", f"{ident}_m", forward.mult, "forward multipliers")),
            ("shift", self._array("int8_t", f"{ident}_s", forward.shift, "forward shifts")),
        ]
        dy = self.dy_of.get(node.name)
        if dy is not None:
            fields += self._backward(index, node, dy)
        self.tables.append(Table(kernel.struct, f"{ident}_p", tuple(fields), self._comment(node)))
        candidate = self.candidate_of.get(node.name)
        layer = (
            ("op", f"&{kernel.table}"),
            ("p", f"&{ident}_p"),
            ("weight", weight_ident),
            ("weight_bytes", f"{weight.size}u"),
            ("mask", self.offset(f"{node.name}/mask")),
            ("scratch", self.offset(f"{node.name}/row")),
            ("scratch_back", self.offset(f"{node.name}/back")),
            ("order", self._order(node)),
            ("candidate", "MDY_FROZEN" if candidate is None else str(candidate)),
        )
        self.layers.append(Table("mdy_layer_t", ident, layer, ""))

    def _backward(self, index: int, node: Node, dy: Gradient) -> list[tuple[str, str]]:
        ident = self.idents[node.name]
        b = backward_parameters(self.plan.qgraph, self.plan.weights, index, dy, self.plan.limits.grad_bits)
        fields = [
            ("grad_mult", self._array("int16_t", f"{ident}_gm", b.grad_mult, "gradient multipliers")),
            ("grad_exponent", str(b.grad_exponent)),
        ]
        if node.name in self.candidate_of:
            fields += [
                ("rate_mult", self._array("uint16_t", f"{ident}_rm", b.rate_mult, "update multipliers")),
                ("rate_exponent", self._array("int8_t", f"{ident}_re", b.rate_exponent, "update exponents")),
                ("norm_mult", str(b.norm_mult)),
                ("norm_exponent", str(b.norm_exponent)),
            ]
        return fields

    def _add(self, node: Node, facts: Integers) -> None:
        largest = 2 * max(facts.inputs[0].scale, facts.inputs[1].scale)
        assert ADD_LEFT_SHIFT == 20
        pairs = [fixed_point(q.scale / largest) for q in facts.inputs]
        y_pair = fixed_point(add_output_multiplier(facts.inputs, facts.output))
        fields = (
            ("a_mult", str(pairs[0][0])),
            ("b_mult", str(pairs[1][0])),
            ("y_mult", str(y_pair[0])),
            ("a_shift", str(pairs[0][1])),
            ("b_shift", str(pairs[1][1])),
            ("y_shift", str(y_pair[1])),
            ("a_zero", str(facts.inputs[0].zero)),
            ("b_zero", str(facts.inputs[1].zero)),
            ("y_zero", str(facts.output.zero)),
            ("act_min", str(facts.bounds[0])),
            ("act_max", str(facts.bounds[1])),
            ("mask", self.offset(f"{node.name}/mask")),
            ("order", self._order(node)),
        )
        self._simple(node, fields)

    def _pool(self, node: Node, facts: Integers) -> None:
        a = node.attrs
        mult, shift = fixed_point(facts.multipliers[0])
        fields = (
            ("kernel_h", str(a.kernel[0])),  # type: ignore[attr-defined]
            ("kernel_w", str(a.kernel[1])),  # type: ignore[attr-defined]
            ("stride_h", str(a.stride[0])),  # type: ignore[attr-defined]
            ("stride_w", str(a.stride[1])),  # type: ignore[attr-defined]
            ("mult", str(mult)),
            ("shift", str(shift)),
            ("x_zero", str(facts.inputs[0].zero)),
            ("y_zero", str(facts.output.zero)),
            ("order", self._order(node)),
        )
        self._simple(node, fields)

    def _shortcut(self, node: Node, facts: Integers) -> None:
        a = node.attrs
        fields = (
            ("stride_h", str(a.stride[0])),  # type: ignore[attr-defined]
            ("stride_w", str(a.stride[1])),  # type: ignore[attr-defined]
            ("channels_before", str(a.before)),  # type: ignore[attr-defined]
            ("zero", str(facts.inputs[0].zero)),
            ("order", self._order(node)),
        )
        self._simple(node, fields)

    def _simple(self, node: Node, fields: tuple[tuple[str, str], ...]) -> None:
        kernel = OPS[node.op].kernel
        assert kernel is not None
        self.tables.append(Table(kernel.struct, self.idents[node.name], fields, self._comment(node)))

    def _head(self) -> None:
        plan, features = self.plan, self.graph.output
        quant = plan.qgraph.quant[features]
        step = 2.0**-HEAD_WEIGHT_BITS
        mult, exponent = mantissa15(quant.scale * step * 2**16)
        rate_mult, rate_exponent = mantissa15(2.0**-15 * quant.scale / step)
        weight = bias = "NULL"
        if plan.head.weight is not None and plan.head.bias is not None:
            weight = self._array("int16_t", "head_w", plan.head.weight, "pretrained classifier")
            bias = self._array("int32_t", "head_b", plan.head.bias, "pretrained classifier")
        fields = (
            ("x", f"{{{self.offset(features)}, {_shape(self.graph.shapes[features])}}}"),
            (
                "dx",
                f"{{{self.offset(plan.schedule.head_gradient.storage)}, "
                f"{_shape(self.graph.shapes[features])}, {plan.schedule.head_gradient.slot}}}",
            ),
            ("logits", self.offset("logits")),
            ("dlogits", self.offset("dlogits")),
            ("scratch", self.offset("head/acc")),
            ("features", f"{plan.state.features}u"),
            ("classes", str(plan.head.classes)),
            ("x_zero", str(quant.zero)),
            ("mult", str(mult)),
            ("exponent", str(exponent)),
            ("grad_exponent", str(head_factor(plan.qgraph)[1])),
            ("rate_mult", str(rate_mult)),
            ("rate_exponent", str(rate_exponent)),
            ("bias_exponent", "1"),
            ("weight", weight),
            ("bias", bias),
        )
        comment = f"head: {self.graph.shapes[features]} -> {plan.head.classes} classes, int16 in RAM"
        self.tables.append(Table("mdy_head_t", "head", fields, comment))

    def _model_arrays(self) -> None:
        bits = [bit for c in self.plan.candidates for bit in c.eligible]
        packed = np.packbits(np.array(bits, bool), bitorder="little") if bits else np.zeros(1, np.uint8)
        self._array("uint8_t", "eligible", packed, "candidate channels that may be drawn")
        self._array("int16_t", "exponents", self.plan.exponents, "first gradient exponents, 1/16 octaves")

    def forward_calls(self) -> list[Call]:
        """One line per node, then the head."""
        calls = []
        for node in self.graph:
            kernel = OPS[node.op].kernel
            assert kernel is not None
            tensors = [f"&{self.tensor(name)}" for name in (*node.inputs, node.output)]
            arguments = ", ".join(["m", f"&{self.idents[node.name]}", *tensors])
            calls.append(Call(f"{kernel.run}({arguments});", ""))
        return [*calls, Call("mdy_run_head(m, &head);", "")]

    def back_calls(self) -> list[Call]:
        """One line per backward step."""
        return [Call(self._back_call(number, step), "") for number, step in enumerate(self.plan.schedule.back)]

    def joins(self) -> list[Table]:
        """The join lists, called after the number of their step."""
        tables = []
        for number, step in enumerate(self.plan.schedule.back):
            if step.joins:
                parts = [self._join(gradient) for gradient in step.joins]
                tables.append(
                    Table("mdy_join_t", f"join_{number}", tuple((str(i), p) for i, p in enumerate(parts)), step.node)
                )
        return tables

    def _join(self, gradient: Gradient) -> str:
        mult, exponent = mantissa15(gradient.factor)
        return f"{{{self.gradient(gradient)}, {mult}, {exponent}}}"

    def _back_call(self, number: int, step: BackStep) -> str:
        joins = f"&joins_{number}" if step.joins else "NULL"
        if step.kind == "sum":
            target = step.dx[0]
            assert target is not None
            scratch = self.offset(f"{step.node}/sum/{target.tensor}")
            order = self.plan.schedule.orders[step.node]
            return f"mdy_back_sum(m, {order}, {self.gradient(target)}, {joins}, {scratch});"
        node = next(n for n in self.graph if n.name == step.node)
        kernel = OPS[node.op].kernel
        assert kernel is not None
        arguments = ["m", f"&{self.idents[node.name]}", self.gradient(step.dy)]
        arguments += [self.gradient(gradient) for gradient in step.dx]
        if step.kind == "layer":
            arguments.append(joins)
        return f"{kernel.back}({', '.join(arguments)});"

    def values(self) -> dict[str, Any]:
        """Everything the templates read."""
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
            "kernel_max": KERNEL_MAX,
            "network": graph.name,
            "headers": headers,
            "digest": f"0x{plan.digest:08x}u",
            "plan": plan,
            "input_shape": graph.shapes[graph.input],
            "input_bytes": elements(graph.shapes[graph.input]),
            "input_quant": quant,
            "bank_weight_bytes": sum(c.weight_bytes for c in plan.candidates),
            "input_tensor": self.tensor(graph.input),
            "input_line": self.tensors[0],
            "arrays": self.arrays,
            "tables": self.tables,
            "layers": self.layers,
            "tensors": self.tensors,
            "gradients": self.gradients,
            "candidates": candidates,
            "joins": self.joins(),
            "forward": self.forward_calls(),
            "backward": self.back_calls(),
        }


def _shape(shape: Shape) -> str:
    return f"{{{shape[0]}, {shape[1]}, {shape[2]}}}"
