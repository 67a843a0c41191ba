# SPDX-License-Identifier: Apache-2.0
"""Writes docs/ops.md: the operations that have kernels, and those of each format that are read.

    python tools/ops_table.py [--check]

Everything is read out of the code: the operations' records and the frontends' HANDLERS. --check fails
where the file differs from what would be written.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from medyate.ir import Graph, Node, Shape
from medyate.ops import OPS
from medyate.ops.activation import KINDS
from medyate.ops.conv2d import Conv2d
from medyate.ops.opdef import OpDef, Site
from medyate.quantize.apply import quantize, site

FILE = Path(__file__).resolve().parent.parent / "docs" / "ops.md"
FORMATS = {"TFLite": "tflite", "ONNX": "onnx", "PyTorch (torch.export)": "torch"}
HEADER = """# Operations

Written by `python tools/ops_table.py` from the code; a test fails where it is out of date.

## What runs

An operation here is one record in `compiler/medyate/ops/` and one C file in `runtime_c/src/ops/`. *Saved*
is what the backward pass reads again: *bits* is a clamp mask of one bit per output, *inputs* the int8
inputs themselves.

"""


def sites(op: OpDef) -> list[Site]:
    """The record's own examples, quantised; a convolution in front of each input makes its shape."""
    rng = np.random.default_rng(0)
    found = []
    for case in op.cases:
        height, width = (max(shape[axis] for shape in case.inputs) for axis in (0, 1))
        tensors: list[tuple[str, Shape]] = [("x", (height, width, 1))]
        nodes = []
        for number, shape in enumerate(case.inputs):
            window = (height - shape[0] + 1, width - shape[1] + 1)
            nodes.append(Node(f"in{number}", "conv2d", ("x",), f"x{number}", Conv2d(shape[2], window)))
            tensors.append((f"x{number}", shape))
        inputs = tuple(node.output for node in nodes)
        nodes.append(Node("op", op.name, inputs, "y", case.attrs))
        graph = Graph("case", "x", "y", tuple(nodes), (*tensors, ("y", op.shape(case.attrs, case.inputs))))
        weights = {
            node.weight_name(role): rng.normal(size=shape).astype(np.float32)
            for node in graph
            for role, shape in OPS[node.op].weights(node.attrs, graph.input_shapes(node)).items()
        }
        samples = rng.normal(size=(4, height, width, 1)).astype(np.float32)
        found.append(site(*quantize(graph, weights, samples), len(nodes) - 1))
    return found


def row(op: OpDef) -> tuple[str, ...]:
    """(operation, forward, backward, saved, trained)."""
    if op.kernel is None:
        return op.name, "folded into a layer", "", "", ""
    forward = f"`{op.kernel.run}`" + (f" with `{op.kernel.table}`" if op.kernel.table else "")
    saved = ["bits"] if op.fuses else []
    if op.channel_axes is not None:
        return op.name, forward, "`mdy_back_layer`", "bits, selected channels", "yes"
    if op.backward is None:
        return op.name, forward, "none: at the network's end only", "", ""
    passes = [op.backward(example) for example in sites(op)]
    saved += sorted({p.reads for p in passes if p.reads})
    return op.name, forward, ", ".join(sorted({f"`{p.function}`" for p in passes})), ", ".join(saved), ""


def table() -> str:
    """The whole file."""
    lines = ["| operation | forward | backward | saved | trained |", "| --- | --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(row(op)) + " |" for op in OPS.values()]
    lines += ["", "Functions of `activation`: " + ", ".join(KINDS) + "."]
    lines += ["", "## What is read", "", "What is not in these lists is refused by name."]
    for title, module in FORMATS.items():
        handlers = import_module(f"medyate.frontends.{module}").HANDLERS
        names = ", ".join(f"`{name}`" for name in sorted(handlers))
        lines += ["", f"**{title}**, {len(handlers)}: {names}."]
    return HEADER + "\n".join(lines) + "\n"


def main() -> None:
    """Writes or compares."""
    text = table()
    if "--check" not in sys.argv:
        FILE.write_text(text)
    elif not FILE.exists() or FILE.read_text() != text:
        print("docs/ops.md is out of date: run python tools/ops_table.py", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
