# SPDX-License-Identifier: Apache-2.0
"""Operations on integers as ONNX defines them: DequantizeLinear, the operation on real numbers, QuantizeLinear.

onnxruntime's own kernels for them (QLinearConv, QGemm ...) add pairs of products in 16 bits on processors without
VNNI, where they saturate: outputs are tens of steps off what the file says.

The importer expands the same operations for itself (onnx_quantised.on_integers). The two share the format's table of
inputs and nothing else, so that `verify` sees a mistake of the importer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from medyate.frontends.onnx_quantised import PARTS

PER_AXIS_OPSET = 13
"""From it on DequantizeLinear knows one scale for each slice."""
AXES_AS_INPUT_OPSET = 18
"""From it on ReduceMean takes its axes as an input."""


def has_real_bias(model: Any) -> bool:
    """Whether a layer of integers adds a bias of real numbers.

    onnxruntime's fusion rounds it to 32 bits in steps of its channel, in which it need not fit.
    """
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    return any(
        _given(node, 2) and [makers.get(_given(node, k)) == "DequantizeLinear" for k in (1, 2)] == [True, False]
        for node in layers
    )


def as_defined(model: Any) -> Any:
    """The model with every operation on integers expanded; a copy. What it cannot expand stays as it is."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if opset < PER_AXIS_OPSET:
        return changed
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made: dict[str, NDArray[Any]] = {}
    nodes = [step for node in model.graph.node for step in _steps(node, constants, made, opset)]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    changed.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in made.items())
    return changed


def _steps(node: Any, constants: dict[str, NDArray[Any]], made: dict[str, NDArray[Any]], opset: int) -> Iterator[Any]:
    """A node, or the three kinds of nodes that it stands for; `made` takes the constants that these add."""
    parts = PARTS.get(node.op_type)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    unit = _bias_unit(node, constants)
    if parts is None or attributes.pop("channels_last", 0) or (parts.bias is not None and unit is None):
        yield node
        return
    attributes.pop("opset", None)
    output = node.output[0]
    axis = {"Conv": 0, "Gemm": 0 if attributes.get("transB", 0) else 1}.get(parts.op, -1)
    names = []
    for number, positions in enumerate(parts.inputs or _triples(node)):
        names.append(f"{output}/defined/x{number}")
        own = [_given(node, position) for position in positions]
        yield onnx.helper.make_node("DequantizeLinear", own, names[-1:], axis=axis)
    if parts.bias is not None and _given(node, parts.bias):
        made[f"{output}/defined/unit"] = np.asarray(unit, np.float32)
        names.append(f"{output}/defined/bias")
        own = [node.input[parts.bias], f"{output}/defined/unit"]
        yield onnx.helper.make_node("DequantizeLinear", own, names[-1:], axis=0)
    if parts.op == "ReduceMean" and opset >= AXES_AS_INPUT_OPSET and "axes" in attributes:
        made[f"{output}/defined/axes"] = np.array(attributes.pop("axes"), np.int64)
        names.append(f"{output}/defined/axes")
    real = f"{output}/defined/real"
    yield onnx.helper.make_node(parts.op, names, [real], **attributes)
    scale = [_given(node, position) for position in parts.output]
    yield onnx.helper.make_node("QuantizeLinear", [real, *scale], [output])


def _bias_unit(node: Any, constants: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The scale of an accumulator: of input times weights; None where the file does not say it."""
    scales = [constants.get(_given(node, position)) for position in (1, 4)]
    if scales[0] is None or scales[1] is None:
        return None
    unit: NDArray[Any] = scales[0].astype(np.float64).reshape(-1) * scales[1].astype(np.float64).reshape(-1)
    return unit if len(unit) > 1 else unit.reshape(())


def _triples(node: Any) -> tuple[tuple[int, int, int], ...]:
    """Positions of a concatenation's inputs."""
    return tuple((k, k + 1, k + 2) for k in range(2, len(node.input), 3))


def _given(node: Any, position: int) -> str:
    return str(node.input[position]) if position < len(node.input) else ""
