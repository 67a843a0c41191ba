# SPDX-License-Identifier: Apache-2.0
"""ONNX float models to the IR. One row of HANDLERS per ONNX operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import ModelError, ToolchainError
from medyate.frontends.builder import GraphBuilder, triple
from medyate.ir import Imported, Shape
from medyate.ops._spatial import Pads


class _Importer:
    """One pass over a model's nodes; constants are folded as they appear."""

    def __init__(self, path: Path, model: Any) -> None:
        import onnx

        self.onnx = onnx
        self.model = model
        self.constants: dict[str, NDArray[Any]] = {
            tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        inputs = [value for value in model.graph.input if value.name not in self.constants]
        if len(inputs) != 1 or len(model.graph.output) != 1:
            raise ModelError(
                f"'{path}' has {len(inputs)} inputs and {len(model.graph.output)} outputs.",
                "Export a classifier with one of each.",
            )
        name = path.stem
        self.builder = GraphBuilder(name, inputs[0].name, _input_shape(path, inputs[0]), SUPPORTED)
        self.output = model.graph.output[0].name

    def attributes(self, node: Any) -> dict[str, Any]:
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    def constant(self, node: Any, name: str) -> NDArray[Any]:
        if name not in self.constants:
            raise self.builder.refuse(_name(node), node.op_type, f"'{name}' is not a constant")
        return self.constants[name]

    def fold(self, node: Any) -> None:
        """Works out a node that reads constants only, as sizes for a Reshape are made."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: self.constants[name] for name in node.input if name}
        typed = [
            self.onnx.helper.make_tensor_value_info(
                name, self.onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        outputs = [name for name in node.output if name]
        graph = self.onnx.helper.make_graph(
            [node], "constant", typed, [self.onnx.ValueInfoProto(name=name) for name in outputs]
        )
        model = self.onnx.helper.make_model(graph, opset_imports=self.model.opset_import)
        try:
            results = ReferenceEvaluator(model).run(None, feeds)
        except Exception as error:  # the evaluator's operations raise what they like
            raise self.builder.refuse(_name(node), node.op_type, "its constants cannot be folded") from error
        self.constants.update(zip(outputs, map(np.asarray, results), strict=True))

    def run(self) -> Imported:
        for node in self.model.graph.node:
            if node.input and all(name in self.constants for name in node.input if name):
                self.fold(node)
                continue
            handler = HANDLERS.get(node.op_type)
            if handler is None:
                raise self.builder.refuse(_name(node), node.op_type, "there is no such operation here")
            handler(self, node)
        return self.builder.finish(self.output)


def _name(node: Any) -> str:
    return str(node.name or (node.output[0] if node.output else node.op_type))


def _input_shape(path: Path, value: Any) -> Shape:
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if len(dims) != 4 or any(d <= 0 for d in dims[1:]) or dims[0] > 1:
        raise ModelError(
            f"'{path}' takes an input of {dims}; one image (1, C, H, W) is expected.",
            "Export it with a batch of 1 (or symbolic) and fixed height and width.",
        )
    return dims[2], dims[3], dims[1]


def _pads(i: _Importer, a: Mapping[str, Any], source: str, kernel: tuple[int, int]) -> Pads:
    auto = a.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        top, left, bottom, right = a.get("pads", (0, 0, 0, 0)) if auto == "NOTSET" else (0, 0, 0, 0)
        return int(top), int(left), int(bottom), int(right)
    strides = a.get("strides", (1, 1))
    dilations = a.get("dilations", (1, 1))
    both = []
    for axis in range(2):
        size = i.builder.shape(source)[axis]
        span = dilations[axis] * (kernel[axis] - 1) + 1
        total = max(0, (math.ceil(size / strides[axis]) - 1) * strides[axis] + span - size)
        small, large = total // 2, total - total // 2
        both.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return both[0][0], both[1][0], both[0][1], both[1][1]


def _conv(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    weight = i.constant(node, node.input[1])
    if weight.ndim != 4:
        raise i.builder.refuse(_name(node), node.op_type, f"a kernel of {weight.ndim - 2} dimensions")
    bias = i.constant(node, node.input[2]) if len(node.input) > 2 and node.input[2] else None
    stride = tuple(a.get("strides", (1, 1)))
    dilation = tuple(a.get("dilations", (1, 1)))
    pads = _pads(i, a, node.input[0], (weight.shape[2], weight.shape[3]))
    i.builder.convolution(
        _name(node),
        node.input[0],
        node.output[0],
        weight.transpose(0, 2, 3, 1),
        bias,
        (stride[0], stride[1]),
        pads,
        (dilation[0], dilation[1]),
        a.get("group", 1),
    )


def _gemm(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    if a.get("transA", 0) or a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0:
        raise i.builder.refuse(_name(node), node.op_type, "transA, alpha or beta is not the default")
    weight = i.constant(node, node.input[1])
    weight = weight if a.get("transB", 0) else weight.T
    bias = None
    if len(node.input) > 2 and node.input[2]:
        given = i.constant(node, node.input[2])
        if given.size not in (1, weight.shape[0]):
            raise i.builder.refuse(_name(node), node.op_type, f"a bias of {given.shape} for {weight.shape[0]} outputs")
        bias = np.broadcast_to(given.reshape(-1), (weight.shape[0],))
    i.builder.linear(_name(node), node.input[0], node.output[0], weight, bias)


def _matmul(i: _Importer, node: Any) -> None:
    weight = i.constant(node, node.input[1])
    i.builder.linear(_name(node), node.input[0], node.output[0], weight.T, None)


def _batch_norm(i: _Importer, node: Any) -> None:
    gamma, beta, mean, variance = (i.constant(node, name) for name in node.input[1:5])
    epsilon = i.attributes(node).get("epsilon", 1e-5)
    i.builder.batch_norm(_name(node), node.input[0], node.output[0], (gamma, beta, mean, variance), epsilon)


def _clip(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    bounds = [a.get("min", -math.inf), a.get("max", math.inf)]
    for position, name in enumerate(node.input[1:3]):
        if name:
            bounds[position] = i.constant(node, name).item()
    i.builder.clip(_name(node), node.input[0], node.output[0], bounds[0], bounds[1])


def _relu(i: _Importer, node: Any) -> None:
    i.builder.clip(_name(node), node.input[0], node.output[0], 0.0, math.inf)


def _add(i: _Importer, node: Any) -> None:
    constants = [name for name in node.input if name in i.constants]
    if constants:
        raise i.builder.refuse(_name(node), node.op_type, "one side is a constant")
    i.builder.add(_name(node), node.input[0], node.input[1], node.output[0])


def _average_pool(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    kernel = tuple(a["kernel_shape"])
    stride = tuple(a.get("strides", (1, 1)))
    pads = _pads(i, a, node.input[0], (kernel[0], kernel[1]))
    if any(pads) or a.get("ceil_mode", 0):
        raise i.builder.refuse(_name(node), node.op_type, "padding or ceil_mode")
    i.builder.average_pool(_name(node), node.input[0], node.output[0], (kernel[0], kernel[1]), (stride[0], stride[1]))


def _global_pool(i: _Importer, node: Any) -> None:
    i.builder.average_pool(_name(node), node.input[0], node.output[0], (0, 0), (0, 0))


def _reduce_mean(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    axes = list(i.constant(node, node.input[1])) if len(node.input) > 1 else list(a.get("axes", ()))
    if sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        raise i.builder.refuse(_name(node), node.op_type, f"a mean over the axes {axes}")
    pooled = node.output[0] if a.get("keepdims", 1) else f"{node.output[0]}/map"
    i.builder.average_pool(_name(node), node.input[0], pooled, (0, 0), (0, 0))
    if pooled != node.output[0]:
        i.builder.alias(node.output[0], pooled, flat=True)


def _shape_of(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    height, width, channels = i.builder.shape(node.input[0])
    flat = i.builder.is_flat(node.input[0])
    sizes = [1, height * width * channels] if flat else [1, channels, height, width]
    i.constants[node.output[0]] = np.array(sizes[a.get("start", 0) : a.get("end")], np.int64)


def _flatten(i: _Importer, node: Any) -> None:
    if i.attributes(node).get("axis", 1) != 1:
        raise i.builder.refuse(_name(node), node.op_type, "an axis other than 1")
    i.builder.alias(node.output[0], node.input[0], flat=True)


def _reshape(i: _Importer, node: Any) -> None:
    height, width, channels = i.builder.shape(node.input[0])
    target = [int(d) for d in i.constant(node, node.input[1])]
    size = height * width * channels
    if len(target) != 2 or target[0] not in (-1, 0, 1) or target[1] not in (-1, size):
        raise i.builder.refuse(_name(node), node.op_type, f"a reshape to {target} is no flattening")
    i.builder.alias(node.output[0], node.input[0], flat=True)


def _transpose(i: _Importer, node: Any) -> None:
    height, width, _ = i.builder.shape(node.input[0])
    if (height, width) != (1, 1):
        raise i.builder.refuse(_name(node), node.op_type, "a transpose of a map")
    i.builder.alias(node.output[0], node.input[0])


def _identity(i: _Importer, node: Any) -> None:
    i.builder.alias(node.output[0], node.input[0])


def _constant(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    if "value" not in a:
        raise i.builder.refuse(_name(node), node.op_type, "it holds no tensor")
    i.constants[node.output[0]] = i.onnx.numpy_helper.to_array(a["value"])


def _softmax(i: _Importer, node: Any) -> None:
    i.builder.softmax(_name(node), node.input[0], node.output[0])


def _slice(i: _Importer, node: Any) -> None:
    if len(node.input) < 3:
        raise i.builder.refuse(_name(node), node.op_type, "its bounds are attributes (before opset 10)")
    given = [list(map(int, i.constant(node, name))) if name else None for name in node.input[1:5]]
    starts, ends = given[0] or [], given[1] or []
    axes = given[2] if len(given) > 2 and given[2] else list(range(len(starts)))
    steps = given[3] if len(given) > 3 and given[3] else [1] * len(axes)
    height, width, channels = i.builder.shape(node.input[0])
    sizes = {0: 1, 1: channels, 2: height, 3: width}
    ranges = {axis: range(size) for axis, size in sizes.items()}
    for start, end, given_axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise i.builder.refuse(_name(node), node.op_type, f"a step of {step}")
        ranges[given_axis % 4] = range(*slice(start, end, step).indices(sizes[given_axis % 4]))
    parts = [ranges[axis] for axis in (2, 3, 1)]
    if len(ranges[0]) != 1 or not all(parts):
        raise i.builder.refuse(_name(node), node.op_type, "nothing is left of it")
    i.builder.slice(
        _name(node),
        node.input[0],
        node.output[0],
        triple(r.start for r in parts),
        triple(r.stop for r in parts),
        triple(r.step for r in parts),
    )


def _pad(i: _Importer, node: Any) -> None:
    a = i.attributes(node)
    pads = list(map(int, i.constant(node, node.input[1]))) if len(node.input) > 1 else list(a["pads"])
    value = i.constant(node, node.input[2]).item() if len(node.input) > 2 and node.input[2] else 0.0
    if a.get("mode", b"constant") != b"constant" or value != 0.0 or len(pads) != 8:
        raise i.builder.refuse(_name(node), node.op_type, "only zeros can be added")
    if pads[0] or pads[4]:
        raise i.builder.refuse(_name(node), node.op_type, "samples are added")
    before, behind = triple(pads[k] for k in (2, 3, 1)), triple(pads[k] for k in (6, 7, 5))
    i.builder.pad(_name(node), node.input[0], node.output[0], before, behind)


HANDLERS: Mapping[str, Callable[[_Importer, Any], None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Relu": _relu,
    "Add": _add,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "ReduceMean": _reduce_mean,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _flatten,
    "Transpose": _transpose,
    "Identity": _identity,
    "Dropout": _identity,
    "Constant": _constant,
    "Softmax": _softmax,
    "Shape": _shape_of,
    "Slice": _slice,
    "Pad": _pad,
}
SUPPORTED = tuple(HANDLERS)


def load(path: Path) -> Imported:
    """Reads an ONNX file. Raises ModelError, or UnsupportedOpError naming the node that blocks."""
    try:
        import onnx
    except ImportError as error:
        raise ToolchainError(
            "reading ONNX needs the package onnx.", "Install it with: pip install 'medyate[onnx]'."
        ) from error
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ModelError(f"'{path}' does not exist.", "Check the path.") from error
    except Exception as error:  # protobuf and checker raise many unrelated types
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"'{path}' is not a sound ONNX file ({reason[0][:120]}).", "Export it again.") from error
    return _Importer(path, model).run()
