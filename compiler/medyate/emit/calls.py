# SPDX-License-Identifier: Apache-2.0
"""Steps to the lines of forward and backward: straight calls, and streams of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import mantissa15
from medyate.emit.context import Context
from medyate.emit.filters import derived
from medyate.ops import OPS
from medyate.plan import ids
from medyate.plan.ids import ValueId
from medyate.plan.steps import BackStep, Gradient, Step
from medyate.plan.stream import Group

ALL = "MDY_ALL"


@dataclass(frozen=True)
class Stream:
    """One group that runs row by row."""

    name: str
    comment: str
    stages: tuple[tuple[str, ...], ...]
    """Lines of each stage, for the row called `row`."""
    order: tuple[int, ...]


@dataclass(frozen=True)
class Joins:
    """Gradients that meet in the pass of a node."""

    name: str
    node: str
    entries: tuple[str, ...]


class Calls:
    """The lines of one plan."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.steps = context.steps
        self.nodes = {node.name: node for node in context.graph}
        self.streams: list[Stream] = []
        self.masks: dict[str, str] = {}
        self.joins = self._all_joins()
        self.forward: list[str] = []
        self.backward: list[str] = []
        lines = self.forward
        for group in context.plan.schedule.groups:
            lines += self._group(group)
            if group.stages[0].kind == "head":
                lines = self.backward

    def values(self) -> dict[str, Any]:
        """What the templates read of the calls."""
        return {
            "joins": self.joins,
            "masks": self.masks,
            "streams": self.streams,
            "forward": self.forward,
            "backward": self.backward,
        }

    def _group(self, group: Group) -> list[str]:
        after = [line for step in group.after for line in self._lines(step, ALL)]
        if not group.order:
            return [line for step in group.stages for line in self._lines(step, ALL)] + after
        name = f"stream_{len(self.streams)}"
        stages = tuple(tuple(self._lines(step, "row")) for step in group.stages)
        nodes = list(dict.fromkeys(step.node for step in group.stages))
        self.streams.append(Stream(name, f"{nodes[0]} .. {nodes[-1]}", stages, tuple(group.order)))
        return [f"mdy_stream(m, {name}, {name}_order, {len(group.order)}u);", *after]

    def _lines(self, step: Step, rows: str) -> list[str]:
        if step.back < 0:
            return self._values(step, rows)
        back = self.steps.back[step.back]
        gradient, order = self.context.gradient, str(self.steps.orders[step.node])
        table, dy, dx = f"&{self.context.idents[step.node]}", gradient(back.dy), gradient(back.dx[step.part])
        sums = self.context.offset(ValueId("sums", step.node))
        scratch = next((self.context.offset(use.value) for use in step.uses if use.mode == "work"), "")
        match step.kind:
            case "mask":
                call, arguments = "mask", [order, self._mask(step), dy, rows]
            case "copy":
                call, arguments = "copy", [order, dy, dx, rows]
            case "input":
                call, arguments = "input", [table, dy, dx, self._joined(step, back, 0), rows]
            case "weights":
                call, arguments = "weights", [table, dy, sums, rows]
            case "update":
                call, arguments = "update", [table, dy, sums]
            case "sum":
                call, arguments = "sum", [order, dx, self._joined(step, back, 0), scratch]
            case _:
                return self._through(step, back)
        return [f"mdy_back_{call}(m, {', '.join(arguments)});"]

    def _values(self, step: Step, rows: str) -> list[str]:
        """Lines of the steps that make values, in the forward pass or again on the way back."""
        match step.kind:
            case "head":
                return ["mdy_run_head(m, &head);"]
            case "load":
                return [f"mdy_load(m, &{self.context.tensor(ids.tensor(self.context.graph.input))}, {rows});"]
            case "clamp":
                return [self._clamp(step, rows)]
            case "again":
                return [f"if (mdy_again(m, {self._behind(step)})) {{", *self._again(step, rows), "}"]
            case _:
                return self._run(step, rows)

    def _mask(self, step: Step) -> str:
        """Address of a mask's own table entry: a literal would lie on the stack."""
        name = derived(self.context.idents[step.node], "mask")
        self.masks[name] = self.context.mask(ValueId("mask", step.node))
        return f"&{name}"

    def _clamp(self, step: Step, rows: str) -> str:
        node = self.nodes[step.node]
        weighted = OPS[node.op].channel_axes is not None
        ident, order = self.context.idents[node.name], self.steps.orders[node.name]
        table = derived(ident, "p") if weighted else ident
        limits, tensor = f"{table}.act_min, {table}.act_max", self.context.tensor(ids.tensor(node.output))
        return f"mdy_run_mask(m, {order}, {self._mask(step)}, &{tensor}, {limits}, {rows});"

    def _behind(self, step: Step) -> int:
        """Order of the last node that its rerun serves."""
        run = [s.node for s in self.steps.steps if s.kind == "again" and s.part == step.part]
        return max(self.steps.orders[name] for name in run)

    def _again(self, step: Step, rows: str) -> list[str]:
        return [f"    {line}" for line in self._run(step, rows, self.context.again(step.node, step.part))]

    def _run(self, step: Step, rows: str, table: str = "") -> list[str]:
        node = self.nodes[step.node]
        kernel = OPS[node.op].kernel
        assert kernel is not None
        read = [use.value for use in step.uses if use.mode == "read"]
        output = f"&{self.context.tensor(next(use.value for use in step.uses if use.mode == 'write'))}"
        tensors = [f"&{self.context.tensor(value)}" for value in read]
        table = f"m, &{table or self.context.idents[node.name]}"
        if kernel.per_input:
            return [f"{kernel.run}({table}, {i}, {tensor}, {output}, {rows});" for i, tensor in enumerate(tensors)]
        return [f"{kernel.run}({', '.join([table, *tensors, output, rows])});"]

    def _through(self, step: Step, back: BackStep) -> list[str]:
        node, backward = self.nodes[step.node], back.backward
        kernel = OPS[node.op].kernel
        assert backward is not None and kernel is not None
        start = ["m", f"&{self.context.idents[node.name]}"]
        dy, dx = self.context.gradient(back.dy), [self.context.gradient(gradient) for gradient in back.dx]
        read = [f"&{self.context.tensor(ids.tensor(name))}" for name in backward.tensors(node)]
        joins = [self._joined(step, back, i) for i in range(len(dx))] if back.kind == "sink" else []
        if kernel.per_input:
            lines = [[*start, str(i), dy, target] for i, target in enumerate(dx)]
        else:
            lines = [[*start, dy, *read, *dx, *joins]]
        return [f"{backward.function}({', '.join(line)});" for line in lines]

    def _all_joins(self) -> list[Joins]:
        """The join lists, called after the number of their step and of the input."""
        found = []
        for number, step in enumerate(self.steps.back):
            for position, joins in enumerate(step.joins):
                into = step.dx[position]
                if joins and into is not None:
                    entries = tuple(self._entry(gradient, into) for gradient in joins)
                    found.append(Joins(f"{number}_{position}", step.node, entries))
        return found

    def _entry(self, gradient: Gradient, into: Gradient) -> str:
        mult, exponent = mantissa15(gradient.factor / into.factor)
        return f"{{{self.context.gradient(gradient)}, {mult}, {exponent}}}"

    def _joined(self, step: Step, back: BackStep, position: int) -> str:
        return f"&joins_{step.back}_{position}" if back.joins[position] else "NULL"
