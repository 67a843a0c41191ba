# SPDX-License-Identifier: Apache-2.0
"""Writes docs/ops.md: what every operation of a format becomes, and the kernels that run it.

    python tools/ops_table.py [--check]

Everything is read out of the code: the operations' records and the rows of the frontends' tables. --check
fails where the file differs from what would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from medyate.arithmetic.functions import KINDS
from medyate.frontends import onnx, pointwise, tflite, torch
from medyate.frontends.onnx_graph import FOLDED
from medyate.frontends.table import GONE, Row
from medyate.ir import Graph, Node, Shape
from medyate.ops import OPS
from medyate.ops.conv2d import Conv2d
from medyate.ops.opdef import OpDef, Site
from medyate.quantize.apply import quantize, site

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "ops.md"
Named = tuple[tuple[str, Row], ...]


def torch_name(name: str) -> str:
    """A name of the PyTorch table as the page prints it."""
    return name.removeprefix("aten.") if name.startswith("aten.") else f"operator.{name}"


FORMATS: dict[str, Named] = {
    "TFLite": tuple(tflite.HANDLERS.items()),
    "ONNX": tuple(onnx.HANDLERS.items()),
    "PyTorch": tuple((torch_name(name), row) for row, names in torch.TABLE for name in names.split()),
}
"""Rows by the names that the page prints."""
HEADER = """# Operations

Written by `python tools/ops_table.py` from the code; a test fails where it is out of date.

## What an operation becomes, and what runs it

One row is one operation of the runtime, or one function of `activation`. TFLite, ONNX and PyTorch list the
operations of a file that become it. An operation in several rows becomes one of them, depending on its inputs. An
empty cell means that no operation does. The import refuses an operation that is in no list of this page, and would
refuse to turn one into anything that its lists do not name.

- PyTorch names are those of ATen: `conv1d` is `aten.conv1d.default`, `relu(_)` also the in-place `aten.relu_.default`.
  *Spelled out*: several operations that together compute the function.
- A sum or product of a tensor and a constant is a `batch_norm`, or between integers a `depthwise` with one tap
  (a `conv2d` where there is one channel). Normalising folds a `batch_norm` into the layer in front, or makes it
  a `depthwise`. A `clip` behind `conv2d`, `depthwise`, `add` or `mul` is fused into it, and so is TFLite's fused
  activation.
- Tensors are read where they lie. Where an operation needs the values in another order or shape, a `move` or `reshape`
  is put in front of it; this can happen with every operation.
- *Saved* is what the backward pass reads again: *bits* is a clamp mask of one bit per output, *inputs* and *output*
  are those int8 tensors themselves. Operations that save *selected channels* have weights that are trained.
- C files are in `runtime_c/src/`; the steps of layers with weights are in `layer.c`.

"""
NOTHING = """
## What becomes no operation of the runtime

| why | TFLite | ONNX | PyTorch |
| --- | --- | --- | --- |
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


def kernels(op: OpDef) -> tuple[str, str, str, str]:
    """(forward, backward, saved, C file)."""
    if op.kernel is None:
        return "none: folded into a layer", "", "", ""
    forward = f"`{op.kernel.run}`" + (f" with `{op.kernel.table}`" if op.kernel.table else "")
    saved = ["bits"] if op.fuses else []
    if op.channel_axes is not None:
        return (
            forward,
            "`mdy_back_input`, `mdy_back_update`",
            "bits, selected channels",
            f"`ops/{Path(op.kernel.header).stem}.c`",
        )
    assert op.backward is not None
    passes = [op.backward(example) for example in sites(op)]
    saved += sorted({p.reads for p in passes if p.reads})
    return (
        forward,
        ", ".join(sorted({f"`{p.function}`" for p in passes})),
        ", ".join(saved),
        f"`ops/{Path(op.kernel.header).stem}.c`",
    )


def listed(names: Iterable[str]) -> str:
    """Names in one cell."""
    return ", ".join(f"`{name}`" for name in names)


def cells(made: str) -> Iterator[str]:
    """The operations of each format that become it."""
    for title, rows in FORMATS.items():
        names = listed(name for name, row in rows if made in row.makes)
        spelled = title == "PyTorch" and made in torch.RECOGNISED.makes
        yield ", ".join(filter(None, (names, "*spelled out*" if spelled else "")))


def vanishing() -> Iterator[tuple[str, ...]]:
    """What leaves nothing behind."""
    for reason, text in GONE.items():
        names = {title: listed(name for name, row in rows if row.gone == reason) for title, rows in FORMATS.items()}
        if reason == "constant":
            names["ONNX"] = listed(dict.fromkeys((*FOLDED, "DequantizeLinear")))
            names["PyTorch"] += ", and all others that read nothing but constants"
        yield text, *names.values()


def table() -> str:
    """The whole file."""
    rows = [("operation", *FORMATS, "forward", "backward", "saved", "C file"), ("---",) * 8]
    for op in OPS.values():
        own = kernels(op)
        if op.name == "activation":
            rows += [(f"activation: {kind}", *cells(kind), *own) for kind in KINDS]
        else:
            rows.append((op.name, *cells(op.name), *own))
    spelling = sorted({name.split(".")[1].rstrip("_") for name in pointwise.POINTWISE})
    return (
        HEADER
        + "".join(map(line, rows))
        + f"\nA function may be spelled out with {listed(spelling)}.\n"
        + NOTHING
        + "".join(map(line, vanishing()))
    )


def line(row: tuple[str, ...]) -> str:
    """One row of a table."""
    return "| " + " | ".join(row) + " |\n"


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
