# SPDX-License-Identifier: Apache-2.0
"""What ONNX says of integers: QuantizeLinear, DequantizeLinear, and the operations between them.

A real tensor between the two is the stored one under another name: an operation reads integers, and the
QuantizeLinear behind it says what scale its result has. Operations on integers (QLinearConv ...) are
imported as the same three steps. uint8 becomes int8 by taking 128 off values and zero points, which
changes no real number. Tables round as ONNX does: halves to even, in binary32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from medyate.arithmetic.scheme import QMAX, QMIN, UINT8_SHIFT, WEIGHT_MAX, activation_quant, weight_scales
from medyate.frontends.onnx_graph import Importer, Stored, View, name_of
from medyate.ir import Activation, Quant
from medyate.ops.softmax import OUTPUT
from medyate.quantize.apply import bias_limit, scales_for_bias

BIAS_TOLERANCE = 1e-3
"""How far a bias's scale may be from the product of its layer's scales, relative to it."""
TYPES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT8: "int8"}


@dataclass(frozen=True)
class Parts:
    """Where an operation on integers has its inputs: positions of (value, scale, zero point)."""

    op: str
    inputs: tuple[tuple[int, int, int], ...]
    output: tuple[int, int]
    """Positions of the output's scale and zero point."""
    bias: int | None = None


ONE = ((0, 1, 2),)
TWO = ((0, 1, 2), (3, 4, 5))
PARTS: Mapping[str, Parts] = {
    "QLinearConv": Parts("Conv", TWO, (6, 7), 8),
    "QGemm": Parts("Gemm", TWO, (7, 8), 6),
    "QLinearMatMul": Parts("MatMul", TWO, (6, 7)),
    "QLinearAdd": Parts("Add", TWO, (6, 7)),
    "QLinearMul": Parts("Mul", TWO, (6, 7)),
    "QLinearAveragePool": Parts("AveragePool", ONE, (3, 4)),
    "QLinearGlobalAveragePool": Parts("GlobalAveragePool", ONE, (3, 4)),
    "QLinearReduceMean": Parts("ReduceMean", ONE, (3, 4)),
    "QLinearLeakyRelu": Parts("LeakyRelu", ONE, (3, 4)),
    "QLinearSigmoid": Parts("Sigmoid", ONE, (3, 4)),
    "QLinearSoftmax": Parts("Softmax", ONE, (3, 4)),
    "QLinearConcat": Parts("Concat", (), (0, 1)),
}


# --- scales and zero points ---


def _scales(i: Importer, node: Any, scale: str, zero: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scales = i.constant(node, scale).astype(np.float64).reshape(-1)
    zeros = i.constant(node, zero).astype(np.int64).reshape(-1) if zero else np.zeros(1, np.int64)
    if not np.isfinite(scales).all() or (scales <= 0).any() or len(zeros) not in (1, len(scales)):
        i.refuse(node, "its scales are invalid")
    return scales, np.array(np.broadcast_to(zeros, scales.shape))


def _kind(i: Importer, node: Any, default: str) -> str:
    """'int8' or 'uint8': what a QuantizeLinear or DequantizeLinear stores."""
    a = i.attributes(node)
    kind = TYPES.get(a["output_dtype"], "another type") if a.get("output_dtype") else default
    if i.given(node, 2):
        kind = str(i.constant(node, node.input[2]).dtype)
    if kind not in TYPES.values():
        i.refuse(node, f"activations of {kind}; int8 and uint8 are supported")
    return kind


def _quant(i: Importer, node: Any, kind: str) -> Quant:
    scales, zeros = _scales(i, node, node.input[1], i.given(node, 2))
    if len(scales) != 1:
        i.refuse(node, f"{len(scales)} scales for one tensor of activations")
    return Quant(float(scales[0]), int(zeros[0]) - (UINT8_SHIFT if kind == "uint8" else 0))


def ahead(i: Importer, name: str) -> Quant | None:
    """The scale that the only reader of a tensor gives it."""
    readers = i.readers.get(name, [])
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return None
    return _quant(i, readers[0], _kind(i, readers[0], "uint8"))


def quantize(i: Importer, node: Any) -> None:
    """The tensor that it reads gets a scale, or another one."""
    kind = _kind(i, node, "uint8")
    quant, view = _quant(i, node, kind), i.view(node)
    known = i.builder.quant(view.tensor)
    tensor = view.tensor
    if known is None:
        i.settle(tensor, quant)
    elif known != quant and tensor in i.fixed:
        i.builder.notes.append(f"'{name_of(node)}': probabilities have the scale 1/256 instead of {quant.scale:.6g}")
    elif known != quant:
        tensor = requantised(i, name_of(node), view, quant)
    i.views[node.output[0]] = replace(view, tensor=tensor, integer=kind)


def dequantize(i: Importer, node: Any) -> None:
    """Another name of the tensor that it reads; of a constant, its real numbers."""
    if node.input[0] in i.constants:
        _dequantize_constant(i, node)
        return
    view = i.view(node)
    if not view.integer:
        i.refuse(node, "it reads real numbers")
    quant, known = _quant(i, node, _kind(i, node, view.integer)), i.builder.quant(view.tensor)
    i.settle(view.tensor, quant)
    if known not in (None, quant) and view.tensor not in i.fixed:
        i.refuse(node, "its scale is not that with which its input was quantised")
    i.views[node.output[0]] = replace(view, integer="")


def _dequantize_constant(i: Importer, node: Any) -> None:
    values = i.constants[node.input[0]]
    scales, zeros = _scales(i, node, node.input[1], i.given(node, 2))
    axis = int(i.attributes(node).get("axis", 1)) % max(1, values.ndim)
    shape = [-1 if k == axis and len(scales) > 1 else 1 for k in range(values.ndim)]
    if i.attributes(node).get("block_size", 0) or len(scales) not in (1, (*values.shape, 1)[axis]):
        i.refuse(node, f"{len(scales)} scales for a constant of {values.shape}")
    real = (values.astype(np.float64) - zeros.reshape(shape)) * scales.reshape(shape)
    i.constants[node.output[0]] = real.astype(np.float32)
    i.stored[node.output[0]] = Stored(values, scales, zeros, axis)


# --- functions of one value ---


def table(x: Quant, y: Quant, function: Callable[[NDArray[np.float32]], NDArray[Any]]) -> NDArray[np.int8]:
    """Y's steps of a function of every value of x."""
    real = (np.arange(QMIN, QMAX + 1) - x.zero).astype(np.float32) * np.float32(x.scale)
    steps = np.rint(function(real).astype(np.float32) / np.float32(y.scale)) + y.zero
    values: NDArray[np.int8] = np.clip(steps, QMIN, QMAX).astype(np.int8)
    return values


def requantised(i: Importer, node: str, view: View, quant: Quant) -> str:
    """The same real numbers under another scale."""
    known = i.builder.quant(view.tensor)
    if known is None or known == quant:
        return view.tensor
    if (view.tensor, quant) not in i.requantised:
        output = i.builder.fresh(f"{view.tensor}/{quant.scale:.6g}/{quant.zero}")
        i.builder.function(node, "identity", view.tensor, output, table=table(known, quant, lambda real: real))
        i.builder.quantise(output, quant)
        i.requantised[view.tensor, quant] = output
    return i.requantised[view.tensor, quant]


def function(
    i: Importer,
    node: Any,
    kind: str,
    low: float = 0.0,
    high: float = 0.0,
    exact: Callable[[NDArray[np.float32]], NDArray[Any]] | None = None,
) -> None:
    """A function of every value; `exact` is the one whose rounding shows."""
    view, output = i.view(node), node.output[0]
    known, values = i.builder.quant(view.tensor), None
    wanted = ahead(i, output) or (known if kind == "clip" else None)
    if known is not None and wanted is not None and exact is not None:
        values = table(known, wanted, exact)
        if known == wanted and (values == np.arange(QMIN, QMAX + 1)).all():
            i.views[output] = view
            return
    if kind == "clip":
        i.builder.clip(name_of(node), view.tensor, output, low, high, values)
    else:
        i.builder.function(name_of(node), kind, view.tensor, output, low, high, values)
    i.views[output] = replace(view, tensor=i.builder.tensor(output))
    if known is not None and wanted is not None:
        i.settle(i.builder.tensor(output), wanted)


def softmax_scale(i: Importer, tensor: str) -> None:
    """Probabilities have the scale that the kernel gives them, whatever the file says."""
    i.builder.quantise(tensor, OUTPUT)
    i.fixed.add(tensor)


# --- layers ---


def fused(i: Importer, node: Any) -> tuple[Activation, str]:
    """(clamp that the operation takes over, name of its output); real networks keep theirs for the passes."""
    output = str(node.output[0])
    readers = i.readers.get(output, [])
    if not i.quantised or output == i.output or len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip"):
        return None, output
    low, high = bounds(i, readers[0])
    i.skipped.add(readers[0].output[0])
    return (low, high), str(readers[0].output[0])


def bounds(i: Importer, node: Any) -> tuple[float, float]:
    """The range of a Relu or Clip."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    a = i.attributes(node)
    found = [float(a.get("min", -math.inf)), float(a.get("max", math.inf))]
    for position in (1, 2):
        if i.given(node, position):
            found[position - 1] = float(i.constant(node, node.input[position]).item())
    return found[0], found[1]


def layer(
    i: Importer, node: Any, source: str, axis: int
) -> tuple[NDArray[Any], NDArray[Any] | None, dict[str, NDArray[Any]] | None]:
    """(weight, bias, arrays) of a node's inputs 1 and 2; `axis` is that of the output channels."""
    name, given = node.input[1], i.given(node, 2)
    weight = i.constant(node, name)
    axis %= max(1, weight.ndim)
    if not i.quantised:
        if weight.dtype.kind != "f":
            i.refuse(node, f"weights of {weight.dtype} beside real numbers")
        return weight, _per_output(i, node, i.constant(node, given), weight.shape[axis]) if given else None, None
    if name not in i.stored:
        i.refuse(node, "its weights are real numbers in a quantised network")
    x, stored = i.builder.quant(source), i.stored[name]
    outputs = weight.shape[axis]
    if x is None:
        i.refuse(node, "its input has no scale")
    if stored.values.dtype not in (np.int8, np.uint8) or (len(stored.scales) > 1 and stored.axis != axis):
        i.refuse(node, f"weights of {stored.values.dtype} with scales along axis {stored.axis}")
    if (stored.zeros != stored.zeros[0]).any():
        i.refuse(node, "a weight zero point for every output channel")
    values, zero = stored.values, int(stored.zeros[0])
    if values.dtype == np.uint8:
        values, zero = (values.astype(np.int16) - UINT8_SHIFT).astype(np.int8), zero - UINT8_SHIFT
    if zero == 0 and (values < -WEIGHT_MAX).any():
        i.builder.notes.append(f"'{name_of(node)}': weights of -128 became -127")
        values = np.maximum(values, np.int8(-WEIGHT_MAX))
    scales, taps = np.array(np.broadcast_to(stored.scales, (outputs,))), values.size // max(1, outputs)
    steps = np.zeros(outputs) if not given else _bias_steps(i, node, given, x.scale * scales)
    if steps is None:
        real = _per_output(i, node, i.constant(node, given), outputs).astype(np.float64)
        least = scales_for_bias(real, x.scale, bias_limit(taps, zero))
        values, scales = with_room(values, scales, least, zero, axis)
        steps = np.rint(real / (x.scale * scales))
    bias = i.builder.bias(name_of(node), _per_output(i, node, steps, outputs), taps, zero)
    arrays: dict[str, NDArray[Any]] = {"scale": scales}
    if zero != 0:
        arrays["zero"] = np.array(zero)
    return values, bias, arrays


def with_room(
    values: NDArray[Any], scales: NDArray[np.float64], least: NDArray[np.float64], zero: int, axis: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Weights and scales such that no scale is below the one that its channel's real bias needs."""
    raised = np.maximum(scales, least)
    if (raised == scales).all():
        return values, scales
    share = (scales / raised).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    return (np.rint((values.astype(np.float64) - zero) * share) + zero).astype(values.dtype), raised


def _per_output(i: Importer, node: Any, bias: NDArray[Any], outputs: int) -> NDArray[Any]:
    if bias.size not in (1, outputs):
        i.refuse(node, f"a bias of {bias.shape} for {outputs} outputs")
    return np.array(np.broadcast_to(bias.reshape(-1), (outputs,)))


def _bias_steps(i: Importer, node: Any, name: str, unit: NDArray[np.float64]) -> NDArray[Any] | None:
    """A bias's own integers, if their scale is the accumulator's; None: its real numbers count."""
    real, stored = i.constant(node, name), i.stored.get(name)
    if stored is not None and not stored.zeros.any():
        scales = np.broadcast_to(stored.scales, unit.shape) if len(stored.scales) in (1, len(unit)) else None
        if scales is not None and np.allclose(scales, unit, rtol=BIAS_TOLERANCE, atol=0.0):
            return stored.values
    if not np.isfinite(real).all():
        i.refuse(node, "its bias holds NaN or infinite values")
    return None


def affine(i: Importer, node: Any, view: View, scale: NDArray[Any], shift: NDArray[Any]) -> None:
    """Every channel times its scale and plus its shift, as a depthwise convolution with one tap."""
    x = i.builder.quant(view.tensor)
    if x is None:
        i.refuse(node, "its input has no scale")
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        i.refuse(node, "its factors hold NaN or infinite values")
    scales = np.maximum(weight_scales(scale.reshape(-1, 1), 0), scales_for_bias(shift, x.scale, bias_limit(1)))
    weight = np.rint(scale / scales).astype(np.int8)
    bias = i.builder.bias(name_of(node), np.rint(shift / (x.scale * scales)), 1)
    activation, output = fused(i, node)
    channels = len(scale)
    i.builder.convolution(
        name_of(node),
        view.tensor,
        output,
        weight.reshape(channels, 1, 1, 1),
        bias,
        groups=channels,
        activation=activation,
        arrays={"scale": scales},
    )
    i.made(node, view.dims, view.order, output)


# --- operations on integers ---


def on_integers(i: Importer, node: Any) -> None:
    """An operation on integers as DequantizeLinear, the operation, QuantizeLinear."""
    parts, name, output = PARTS[node.op_type], name_of(node), node.output[0]
    inputs = parts.inputs or tuple((k, k + 1, k + 2) for k in range(2, len(node.input), 3))
    a = i.attributes(node)
    if a.pop("channels_last", 0):
        i.refuse(node, "channels are last")
    a.pop("opset", None)
    axis = {"Conv": 0, "Gemm": 0 if a.get("transB", 0) else 1}.get(parts.op, -1)
    names, steps = [], []
    for number, positions in enumerate(inputs):
        names.append(i.builder.fresh(f"{output}/x{number}"))
        own = [i.given(node, position) for position in positions]
        steps.append(onnx.helper.make_node("DequantizeLinear", own, names[-1:], name, axis=axis))
    if parts.bias is not None and i.given(node, parts.bias):
        unit = [i.constant(node, node.input[k]).astype(np.float64).reshape(-1) for k in (1, 4)]
        scales = i.builder.fresh(f"{output}/unit")
        i.constants[scales] = (unit[0] * unit[1]).astype(np.float32)
        own = [node.input[parts.bias], scales]
        names.append(i.builder.fresh(f"{output}/bias"))
        steps.append(onnx.helper.make_node("DequantizeLinear", own, names[-1:], name, axis=0))
    real = i.builder.fresh(f"{output}/real")
    steps.append(onnx.helper.make_node(parts.op, names, [real], name, **a))
    scale = [i.given(node, position) for position in parts.output]
    if not scale[0]:
        i.refuse(node, "its output has no scale")
    steps.append(onnx.helper.make_node("QuantizeLinear", [real, *scale], [output], name))
    i.readers[real] = steps[-1:]
    for step in steps:
        i.step(step)


def one_scale(i: Importer, node: Any, views: Sequence[View]) -> tuple[str, ...]:
    """The tensors that a Concat joins or a Max compares, all under the scale of its output, or one that holds all."""
    quants = {i.builder.quant(view.tensor) for view in views}
    if len(quants) == 1:
        return tuple(view.tensor for view in views)
    wanted, known = ahead(i, node.output[0]), [quant for quant in quants if quant is not None]
    if wanted is None and len(known) < len(quants):
        i.refuse(node, "it joins tensors of different scales, and some have none yet")
    if wanted is None:
        low, high = (choose((end - q.zero) * q.scale for q in known) for choose, end in ((min, QMIN), (max, QMAX)))
        wanted = activation_quant(low, high)
    return tuple(requantised(i, f"{name_of(node)}/{k}", view, wanted) for k, view in enumerate(views))


def stored_zero(i: Importer, view: View) -> int:
    """The number that stands for zero in an ONNX tensor."""
    quant = i.builder.quant(view.tensor)
    if not view.integer or quant is None:
        return 0
    return quant.zero + (UINT8_SHIFT if view.integer == "uint8" else 0)
