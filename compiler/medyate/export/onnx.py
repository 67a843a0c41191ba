# SPDX-License-Identifier: Apache-2.0
"""The IR to ONNX files, channels first: float32, or int8 in the QDQ form of onnxruntime's quantisation tools.

The ends of a quantised file are real numbers, as users of such files expect: QuantizeLinear is its first
operation and DequantizeLinear its last. Between them every tensor is int8 with a scale and a zero point,
weights have a scale per output channel and biases are int32 in units of the accumulator. Runtimes round
once and in float, so a step of difference from the device is to be expected. A linear layer is a
convolution whose window covers its input; a vector at the output has two axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from medyate.arithmetic.functions import Function
from medyate.arithmetic.scheme import Integers
from medyate.artefact import write_bytes
from medyate.export import ExportError
from medyate.ir import Activation, Graph, Node, QGraph, Shape, Weights, elements
from medyate.ops import OPS
from medyate.ops._pool import PoolAttrs
from medyate.ops.concat import Concat
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.ops.move import Move, Triple
from medyate.ops.offset import Offset
from medyate.ops.prelu import PRelu, slope_steps
from medyate.ops.softmax import Softmax
from medyate.quantize.apply import integers

OPSET = 13
"""The first with a scale per channel; a network gets a newer one only where an operation needs it."""
NEWER: Mapping[str, int] = {"HardSwish": 14, "Mish": 18, "Gelu": 20}
FIRST: tuple[int, int, int, int] = (0, 3, 1, 2)
LAST: tuple[int, int, int, int] = (0, 2, 3, 1)
"""Orders of axes that bring channels to the front, and to the back."""
AXES: Triple = (2, 3, 1)
"""ONNX axes of (height, width, channels)."""


class _Writer:
    """One pass over a graph's nodes."""

    def __init__(self, graph: Graph, weights: Weights, qgraph: QGraph | None) -> None:
        self.graph = graph
        self.weights = weights
        self.qgraph = qgraph
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.opset = OPSET
        self.taken = {name for name, _ in graph.tensors}
        self.read: dict[str, str] = {}
        """What an operation reads for a tensor of the IR."""

    def run(self) -> bytes:
        shape = self.graph.shapes[self.graph.input]
        source = self.fresh(f"{self.graph.input}/real") if self.qgraph else self.graph.input
        self.made(self.graph.input, source)
        for index, node in enumerate(self.graph):
            facts = None if self.qgraph is None else integers(self.qgraph, self.weights, index)
            HANDLERS[node.op](self, node, facts)
        output, sizes = self.read[self.graph.output], _sizes(self.graph.shapes[self.graph.output])
        if sizes[2:] == (1, 1):
            output, sizes = self.emit("Flatten", (output,), f"{self.graph.output}/vector", axis=1), sizes[:2]
        graph = helper.make_graph(
            self.nodes,
            self.graph.name,
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, _sizes(shape))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, sizes)],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        version = helper.find_min_ir_version_for(opsets)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="medyate")
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def fresh(self, title: str) -> str:
        """A name that is not taken."""
        while title in self.taken:
            title += "_"
        self.taken.add(title)
        return title

    def constant(self, title: str, values: Any, dtype: Any) -> str:
        """Name of a new constant."""
        name = self.fresh(title)
        self.constants[name] = numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def emit(self, kind: str, inputs: Sequence[str], title: str, **attributes: Any) -> str:
        """One operation; the name of its output."""
        output = self.fresh(title)
        self.opset = max(self.opset, NEWER.get(kind, OPSET))
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def made(self, tensor: str, real: str) -> None:
        """Notes what a tensor of the IR is; in a quantised network it is rounded to int8 first."""
        if self.qgraph is None:
            self.read[tensor] = real
            return
        quant = self.qgraph.quant[tensor]
        scale = self.constant(f"{tensor}/scale", quant.scale, np.float32)
        zero = self.constant(f"{tensor}/zero", quant.zero, np.int8)
        stored = self.emit("QuantizeLinear", (real, scale, zero), f"{tensor}/int8")
        self.read[tensor] = self.emit("DequantizeLinear", (stored, scale, zero), f"{tensor}/dequantised")

    def finish(self, node: Node, real: str) -> None:
        """The node's output, behind its fused activation if it has one."""
        activation: Activation = getattr(node.attrs, "activation", None)
        if activation is not None:
            real = self.clip(f"{node.output}/clipped", real, *activation)
        self.made(node.output, real)

    def clip(self, title: str, source: str, low: float, high: float) -> str:
        """Relu where it is one, else Clip."""
        if (low, high) == (0.0, math.inf):
            return self.emit("Relu", (source,), title)
        ends = [
            "" if math.isinf(limit) else self.constant(f"{title}/{name}", limit, np.float32)
            for name, limit in (("low", low), ("high", high))
        ]
        return self.emit("Clip", [source, *ends] if ends[1] else [source, ends[0]], title)


def _sizes(shape: Shape) -> tuple[int, ...]:
    height, width, channels = shape
    return 1, channels, height, width


def _layer(w: _Writer, node: Node, facts: Integers | None, weight: NDArray[Any]) -> tuple[str, str]:
    """(weight, bias) of a layer as an operation reads them."""
    title, bias = node.output, np.asarray(w.weights[node.weight_name("bias")])
    if facts is None:
        return w.constant(f"{title}/weight", weight, np.float32), w.constant(f"{title}/bias", bias, np.float32)
    scales = np.asarray(facts.arrays["scale"], np.float64)
    units = (scales * facts.inputs[0].scale).astype(np.float32)
    parts = {
        "weight": (weight, np.int8, scales.astype(np.float32), np.full(len(scales), facts.weight_zero), np.int8),
        "bias": (bias, np.int32, units, np.zeros(len(scales)), np.int32),
    }
    names = []
    for role, (values, dtype, steps, zeros, zero_type) in parts.items():
        inputs = (
            w.constant(f"{title}/{role}/stored", values, dtype),
            w.constant(f"{title}/{role}/scale", steps, np.float32),
            w.constant(f"{title}/{role}/zero", zeros, zero_type),
        )
        names.append(w.emit("DequantizeLinear", inputs, f"{title}/{role}", axis=0))
    return names[0], names[1]


def _convolution(w: _Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Conv2d | Depthwise)
    weight = np.asarray(w.weights[node.weight_name("weight")])
    if isinstance(a, Depthwise):
        filters, groups = weight.transpose(2, 0, 1)[:, None], weight.shape[2]
    else:
        filters, groups = weight.transpose(0, 3, 1, 2), a.groups
    inputs = (w.read[node.inputs[0]], *_layer(w, node, facts, filters))
    real = w.emit(
        "Conv",
        inputs,
        f"{node.output}/real",
        kernel_shape=a.kernel,
        strides=a.stride,
        dilations=a.dilation,
        pads=a.pads,
        group=groups,
    )
    w.finish(node, real)


def _two(w: _Writer, node: Node, _: Integers | None) -> None:
    kind = {"add": "Add", "mul": "Mul"}[node.op]
    w.finish(node, w.emit(kind, [w.read[name] for name in node.inputs], f"{node.output}/real"))


def _offset(w: _Writer, node: Node, _: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Offset)
    summands = w.constant(f"{node.output}/summands", np.reshape(a.real, (-1, 1, 1)), np.float32)
    w.finish(node, w.emit("Add", (w.read[node.inputs[0]], summands), f"{node.output}/real"))


def _pool(w: _Writer, node: Node, _: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, PoolAttrs)
    window = {"kernel_shape": a.kernel, "strides": a.stride, "pads": a.pads}
    kind = {"average_pool": "AveragePool", "max_pool": "MaxPool"}[node.op]
    extent = w.graph.shapes[node.inputs[0]][:2]
    if kind == "AveragePool" and a == type(a)(extent, extent):
        kind, window = "GlobalAveragePool", {}
    w.made(node.output, w.emit(kind, (w.read[node.inputs[0]],), f"{node.output}/real", **window))


def _activation(w: _Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Function)
    source, title = w.read[node.inputs[0]], f"{node.output}/real"
    if a.kind == "identity":
        w.made(node.output, source if facts else w.emit("Identity", (source,), title))
    elif a.kind == "clip":
        w.made(node.output, w.clip(title, source, a.low, a.high))
    elif a.kind == "square":
        w.made(node.output, w.emit("Mul", (source, source), title))
    elif a.kind == "silu":
        gate = w.emit("Sigmoid", (source,), f"{node.output}/gate")
        w.made(node.output, w.emit("Mul", (source, gate), title))
    else:
        kind, attributes = FUNCTIONS[a.kind]
        w.made(node.output, w.emit(kind, (source,), title, **attributes(a)))


FUNCTIONS: Mapping[str, tuple[str, Callable[[Function], Mapping[str, float | str]]]] = {
    "leaky_relu": ("LeakyRelu", lambda a: {"alpha": a.low}),
    "hard_swish": ("HardSwish", lambda _: {}),
    "hard_sigmoid": ("HardSigmoid", lambda _: {"alpha": 1 / 6, "beta": 0.5}),
    "sigmoid": ("Sigmoid", lambda _: {}),
    "tanh": ("Tanh", lambda _: {}),
    "gelu": ("Gelu", lambda _: {}),
    "gelu_tanh": ("Gelu", lambda _: {"approximate": "tanh"}),
    "elu": ("Elu", lambda _: {"alpha": 1.0}),
    "selu": ("Selu", lambda _: {}),
    "softplus": ("Softplus", lambda _: {}),
    "mish": ("Mish", lambda _: {}),
    "abs": ("Abs", lambda _: {}),
    "neg": ("Neg", lambda _: {}),
    "exp": ("Exp", lambda _: {}),
}


def _prelu(w: _Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, PRelu)
    steps, step = slope_steps(a)
    slopes = a.slopes if facts is None else [number * step for number in steps]
    source, title = w.read[node.inputs[0]], node.output
    slope = w.constant(f"{title}/slope", np.reshape(slopes, (-1, 1, 1)), np.float32)
    w.made(node.output, w.emit("PRelu", (source, slope), f"{title}/real"))


def _concat(w: _Writer, node: Node, _: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Concat)
    inputs = [w.read[name] for name in node.inputs]
    w.made(node.output, w.emit("Concat", inputs, f"{node.output}/real", axis=AXES[a.axis]))


def _in_order(values: Sequence[int]) -> list[int]:
    """(height, width, channels) as ONNX has the axes behind the batch."""
    height, width, channels = values
    return [channels, height, width]


def _move(w: _Writer, node: Node, _: Integers | None) -> None:
    """Transpose, Slice and Pad in this order, as far as they are needed; or Resize."""
    a = node.attrs
    assert isinstance(a, Move)
    shape, title = w.graph.shapes[node.inputs[0]], node.output
    real = w.read[node.inputs[0]]
    if max(a.repeat) > 1:
        w.made(node.output, _enlarged(w, title, real, a))
        return
    turned = [shape[axis] for axis in a.axes]
    if a.axes != (0, 1, 2):
        order = [0, *_in_order([AXES[axis] for axis in a.axes])]
        real = w.emit("Transpose", (real,), f"{title}/turned", perm=order)
    inside = [[p for p in range(a.size[k]) if 0 <= a.source(k, p) < turned[k]] for k in range(3)]
    if not all(inside):
        raise _refusal(node, "nothing of its input is left")
    taken = [len(positions) for positions in inside]
    step = [s if size > 1 else 1 for s, size in zip(a.step, taken, strict=True)]
    if 0 in step:
        raise _refusal(node, "it repeats one row or channel")
    if taken != turned or min(step) < 0:
        start = [a.source(k, inside[k][0]) for k in range(3)]
        end = [f + s * n for f, s, n in zip(start, step, taken, strict=True)]
        end = [e if e >= 0 else np.iinfo(np.int64).min for e in end]  # below zero would count from the back
        limits = {"start": start, "end": end, "axes": AXES, "step": step}
        names = [w.constant(f"{title}/{role}", values, np.int64) for role, values in limits.items()]
        real = w.emit("Slice", (real, *names), f"{title}/slice")
    if tuple(taken) != a.size:
        before = [positions[0] for positions in inside]
        behind = [a.size[k] - 1 - inside[k][-1] for k in range(3)]
        pads = w.constant(f"{title}/pads", [0, *_in_order(before), 0, *_in_order(behind)], np.int64)
        real = w.emit("Pad", (real, pads), f"{title}/padded", mode="constant")
    w.made(node.output, real)


def _enlarged(w: _Writer, title: str, real: str, a: Move) -> str:
    times = w.constant(f"{title}/times", [1, *_in_order(a.repeat)], np.float32)
    rule = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return w.emit("Resize", (real, "", times), f"{title}/enlarged", **rule)


def _reshape(w: _Writer, node: Node, _: Integers | None) -> None:
    """Values of the IR run with the channels last: they are turned where that matters on either side."""
    before, behind = w.graph.shapes[node.inputs[0]], w.graph.shapes[node.output]
    real, title = w.read[node.inputs[0]], node.output
    if not _one_order(before):
        real = w.emit("Transpose", (real,), f"{title}/last", perm=LAST)
    if _one_order(behind):
        sizes = w.constant(f"{title}/sizes", _sizes(behind), np.int64)
        w.made(node.output, w.emit("Reshape", (real, sizes), f"{title}/real"))
        return
    sizes = w.constant(f"{title}/sizes", (1, *behind), np.int64)
    real = w.emit("Reshape", (real, sizes), f"{title}/reshaped")
    w.made(node.output, w.emit("Transpose", (real,), f"{title}/real", perm=FIRST))


def _one_order(shape: Shape) -> bool:
    """Whether values run alike with the channels first and last."""
    return elements(shape) in (shape[2], shape[0] * shape[1])


def _softmax(w: _Writer, node: Node, _: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Softmax)
    source = w.read[node.inputs[0]]
    if a.beta != 1.0:
        source = w.emit("Mul", (source, w.constant(f"{node.output}/beta", a.beta, np.float32)), f"{node.output}/scaled")
    w.made(node.output, w.emit("Softmax", (source,), f"{node.output}/real", axis=1))


def _refusal(node: Node, why: str) -> ExportError:
    return ExportError(f"node '{node.name}' ({node.op}) cannot be written to ONNX: {why}.", "Simplify the network.")


def _batch_norm(_: _Writer, node: Node, __: Integers | None) -> None:
    raise ExportError(
        f"node '{node.name}' is a batch norm that was not folded.", "Run passes.pipeline.simplify on the network."
    )


HANDLERS: Mapping[str, Callable[[_Writer, Node, Integers | None], None]] = {
    "conv2d": _convolution,
    "depthwise": _convolution,
    "add": _two,
    "mul": _two,
    "offset": _offset,
    "average_pool": _pool,
    "max_pool": _pool,
    "activation": _activation,
    "prelu": _prelu,
    "concat": _concat,
    "move": _move,
    "reshape": _reshape,
    "softmax": _softmax,
    "batch_norm": _batch_norm,
}
assert HANDLERS.keys() == OPS.keys()


def _checked(content: bytes) -> bytes:
    """The file, if ONNX itself finds nothing wrong with it."""
    onnx.checker.check_model(content)
    return content


def write(qgraph: QGraph, weights: Weights, path: Path) -> None:
    """Writes a quantised network. Raises ExportError for what ONNX has not."""
    write_bytes(path, _checked(_Writer(qgraph.graph, weights, qgraph).run()))


def write_real(graph: Graph, weights: Weights, path: Path) -> None:
    """Writes a network of real numbers, batch norms folded. Raises ExportError for what ONNX has not."""
    write_bytes(path, _checked(_Writer(graph, weights, None).run()))
