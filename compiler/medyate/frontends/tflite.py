# SPDX-License-Identifier: Apache-2.0
"""TFLite files to the IR: float32, int8, and the older uint8 scheme. One row of HANDLERS per operation.

Multipliers are computed as TFLite's own preparation does, where that is not the plain formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate import files
from medyate.errors import ModelError
from medyate.frontends.builder import triple
from medyate.frontends.table import Row, row
from medyate.frontends.tflite_graph import (
    REAL_WEIGHTS,
    UINT8_SHIFT,
    WEIGHTS,
    Importer,
    Operator,
    sizes_of,
)
from medyate.ir import Imported
from medyate.ops._spatial import Pads, Pair
from medyate.ops.prelu import PRelu


def _weights(i: Importer, op: Operator, axis: int) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """(stored weight, its arrays); a float network that stores integers gets its real numbers back."""
    tensor = i.given(op, 1)
    weight = i.constant(op, 1)
    if tensor.kind not in WEIGHTS[i.given(op, 0).kind]:
        i.refuse(op, f"weights of {tensor.kind} beside activations of {i.given(op, 0).kind}")
    if tensor.kind == "float32":
        return weight, {}
    if len(tensor.scales) not in (1, weight.shape[axis]):
        i.refuse(op, f"{len(tensor.scales)} scales for {weight.shape[axis]} output channels")
    if i.given(op, 0).kind == "float32":
        shape = [-1 if k == axis else 1 for k in range(weight.ndim)]
        zeros = np.broadcast_to(tensor.zeros, tensor.scales.shape)
        if REAL_WEIGHTS not in i.builder.notes:
            i.builder.notes.append(REAL_WEIGHTS)
        real = (weight.astype(np.float64) - zeros.reshape(shape)) * tensor.scales.reshape(shape)
        return real.astype(np.float32), {}
    zero = int(tensor.zeros[0])
    if (tensor.zeros != zero).any() or (len(tensor.scales) > 1 and zero != 0):
        i.refuse(op, "a zero point for every output channel")
    arrays: dict[str, NDArray[Any]] = {"scale": np.array(np.broadcast_to(tensor.scales, weight.shape[axis]))}
    if tensor.kind == "uint8":
        weight, zero = (weight.astype(np.int16) - UINT8_SHIFT).astype(np.int8), zero - UINT8_SHIFT
    if zero != 0:
        arrays["zero"] = np.array(zero)
    return weight, arrays


def _multiplier(i: Importer, op: Operator, arrays: dict[str, NDArray[Any]], *, product_in_float: bool) -> None:
    """TFLite multiplies the scales of some operators in float32 before it divides in float64."""
    x, y = i.given(op, 0), op.output
    if not arrays or not product_in_float:
        return
    product = np.float32(x.scales[0]) * arrays["scale"].astype(np.float32)
    arrays["multiplier"] = product.astype(np.float64) / y.scales[0]


def _bias(i: Importer, op: Operator, arrays: dict[str, NDArray[Any]], taps: int) -> NDArray[Any] | None:
    """The bias, kept where no accumulator can overflow."""
    if len(op.inputs) < 3 or op.inputs[2] is None:
        return None
    bias, kind = i.constant(op, 2).reshape(-1), i.given(op, 2).kind
    if kind != ("int32" if arrays else "float32"):
        i.refuse(op, f"a bias of {kind} beside activations of {i.given(op, 0).kind}")
    if not arrays:
        return bias
    return i.builder.bias(op.name, bias.astype(np.int64), taps, int(arrays.get("zero", 0)))


def _integer_bias(bias: NDArray[Any] | None, arrays: Mapping[str, Any], outputs: int) -> NDArray[Any] | None:
    return np.zeros(outputs, np.int32) if bias is None and arrays else bias


def _pads(same: bool, extent: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    if not same:
        return 0, 0, 0, 0
    pads = []
    for size, k, s, d in zip(extent, kernel, stride, dilation, strict=True):
        total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        pads.append((total // 2, total - total // 2))
    return pads[0][0], pads[1][0], pads[0][1], pads[1][1]


def _window(i: Importer, op: Operator, o: Any, kernel: Pair) -> tuple[Pair, Pads, Pair]:
    """(stride, pads, dilation) of a windowed operator."""
    stride = (o.StrideH(), o.StrideW())
    dilation = (o.DilationHFactor(), o.DilationWFactor()) if hasattr(o, "DilationHFactor") else (1, 1)
    if min(*stride, *dilation, *kernel) < 1:
        i.refuse(op, f"window {kernel}, stride {stride}, dilation {dilation}")
    extent = i.builder.shape(i.given(op, 0).name)
    return stride, _pads(o.Padding() == tflite.Padding.SAME, extent[:2], kernel, stride, dilation), dilation


def _conv(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.Conv2DOptions)
    weight, arrays = _weights(i, op, 0)
    if weight.ndim != 4:
        i.refuse(op, f"a weight of {weight.shape}")
    channels = i.builder.shape(i.given(op, 0).name)[2]
    kernel = (weight.shape[1], weight.shape[2])
    stride, pads, dilation = _window(i, op, o, kernel)
    _multiplier(i, op, arrays, product_in_float="zero" in arrays or i.given(op, 1).kind == "uint8")
    bias = _integer_bias(_bias(i, op, arrays, weight[0].size), arrays, len(weight))
    groups = channels // max(1, weight.shape[3])
    i.builder.convolution(
        op.name,
        i.given(op, 0).name,
        op.output.name,
        weight,
        bias,
        stride,
        pads,
        dilation,
        groups,
        i.activation(op, o.FusedActivationFunction()),
        arrays,
    )


def _depthwise(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.DepthwiseConv2DOptions)
    weight, arrays = _weights(i, op, 3)
    if weight.ndim != 4 or weight.shape[0] != 1:
        i.refuse(op, f"a weight of {weight.shape}")
    kernel = (weight.shape[1], weight.shape[2])
    stride, pads, dilation = _window(i, op, o, kernel)
    _multiplier(i, op, arrays, product_in_float=i.given(op, 1).kind == "uint8")
    bias = _integer_bias(_bias(i, op, arrays, kernel[0] * kernel[1]), arrays, weight.shape[3])
    groups = i.builder.shape(i.given(op, 0).name)[2]
    i.builder.convolution(
        op.name,
        i.given(op, 0).name,
        op.output.name,
        weight.transpose(3, 1, 2, 0),
        bias,
        stride,
        pads,
        dilation,
        groups,
        i.activation(op, o.FusedActivationFunction()),
        arrays,
    )


def _linear(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.FullyConnectedOptions)
    weight, arrays = _weights(i, op, 0)
    if weight.ndim != 2 or o.WeightsFormat() != 0:
        i.refuse(op, f"a weight of {weight.shape} in format {o.WeightsFormat()}")
    _multiplier(i, op, arrays, product_in_float=len(i.given(op, 1).scales) == 1)
    bias = _integer_bias(_bias(i, op, arrays, weight.shape[1]), arrays, len(weight))
    activation = i.activation(op, o.FusedActivationFunction())
    i.builder.linear(
        op.name,
        i.given(op, 0).name,
        op.output.name,
        weight,
        bias,
        channels_first=False,
        activation=activation,
        arrays=arrays,
    )


def _two(i: Importer, op: Operator) -> tuple[str, str]:
    a, b = i.given(op, 0), i.given(op, 1)
    if b.constant is not None:
        i.refuse(op, "one side is a constant")
    return a.name, b.name


def _add(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.AddOptions)
    i.builder.add(op.name, *_two(i, op), op.output.name, i.activation(op, o.FusedActivationFunction()))


def _mul(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.MulOptions)
    i.builder.mul(op.name, *_two(i, op), op.output.name, i.activation(op, o.FusedActivationFunction()))


def _pool(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.Pool2DOptions)
    kernel = (o.FilterHeight(), o.FilterWidth())
    stride, pads, _ = _window(i, op, o, kernel)
    if i.activation(op, o.FusedActivationFunction()) is not None:
        i.refuse(op, "a fused activation")
    source, output = i.given(op, 0), op.output
    i.keeps_scale(op)
    if op.kind == "MAX_POOL_2D":
        pads = i.edges.get(source.index, pads)
        i.builder.max_pool(op.name, source.name, output.name, kernel, stride, pads)
        return
    arrays = {"origin": np.array(-UINT8_SHIFT)} if source.kind == "uint8" else None
    i.builder.average_pool(op.name, source.name, output.name, kernel, stride, pads, arrays)


def _mean(i: Importer, op: Operator) -> None:
    """MEAN multiplies by a quotient of scales even where it is 1; the array keeps it apart from AVERAGE_POOL_2D."""
    sizes = i.given(op, 0).shape
    axes = {int(axis) % max(1, len(sizes)) for axis in i.constant(op, 1).reshape(-1)}
    spatial = set(range(1, len(sizes) - 1))
    if not axes or not axes <= spatial or any(sizes[axis] != 1 for axis in spatial - axes):
        i.refuse(op, f"a mean over the axes {sorted(axes)} of {sizes}; only that of a whole map is supported")
    source, x, y = i.given(op, 0).name, i.given(op, 0).quant(), op.output.quant()
    if i.builder.shape(source)[:2] == (1, 1) and x != y:
        i.builder.function(op.name, "identity", source, op.output.name)
        return
    arrays = None if x is None or y is None else {"multiplier": np.array([x.scale / y.scale])}
    i.builder.average_pool(op.name, source, op.output.name, (0, 0), (0, 0), arrays=arrays)


def _same(i: Importer, op: Operator) -> None:
    sizes = op.output.shape[1:]
    if not 1 <= len(sizes) <= 3 or op.output.shape[0] not in (1, -1) or min(sizes) < 1:
        i.refuse(op, f"an output of {op.output.shape}")
    i.builder.reshape(op.name, i.given(op, 0).name, op.output.name, sizes_of(sizes))


def _concat(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.ConcatenationOptions)
    rank = len(op.output.shape)
    axes: Mapping[int, tuple[int | None, ...]] = {4: (None, 0, 1, 2), 3: (None, 0, 2), 2: (None, 2)}
    if rank not in axes:
        i.refuse(op, f"it joins tensors of {rank} axes")
    axis = axes[rank][o.Axis() % rank]
    if axis is None or any(t is None or t.quant() != op.output.quant() for t in op.inputs):
        i.refuse(op, "it joins samples, or tensors of different scales")
    if i.activation(op, o.FusedActivationFunction()) is not None:
        i.refuse(op, "a fused activation")
    i.builder.concat(op.name, tuple(t.name for t in op.inputs if t is not None), op.output.name, axis)


def _image(i: Importer, op: Operator) -> str:
    if len(i.given(op, 0).shape) != 4:
        i.refuse(op, f"an input of {i.given(op, 0).shape}; height, width and channels are expected")
    return i.given(op, 0).name


def _pad(i: Importer, op: Operator) -> None:
    source, pads = _image(i, op), i.constant(op, 1)
    pads = pads.reshape(-1, 2) if pads.size % 2 == 0 else pads
    if pads.shape != (4, 2) or pads[0].any() or pads.min() < 0:
        i.refuse(op, f"pads of {pads.tolist()}; nothing can be added to samples")
    i.keeps_scale(op)
    if op.kind == "PADV2" and not _adds_zeros(i, op):
        _edge(i, op, pads)
        return
    i.builder.pad(op.name, source, op.output.name, triple(pads[1:, 0]), triple(pads[1:, 1]))


def _adds_zeros(i: Importer, op: Operator) -> bool:
    """Whether PADV2 adds what stands for zero."""
    value, kind = i.constant(op, 2), i.given(op, 0).kind
    if value.size != 1 or i.given(op, 2).kind != kind:
        i.refuse(op, f"a value of {value.shape} in {i.given(op, 2).kind} beside activations of {kind}")
    zeros = i.given(op, 0).zeros
    return bool(value.item() == (int(zeros[0]) if len(zeros) else 0))


def _edge(i: Importer, op: Operator, pads: NDArray[Any]) -> None:
    """PADV2 with the least value, in front of max pools only: they pad by themselves."""
    value, readers = i.constant(op, 2), i.readers.get(op.output.index, [])
    least = np.finfo(value.dtype).min if value.dtype.kind == "f" else np.iinfo(value.dtype).min
    pools = all(
        reader.kind == "MAX_POOL_2D" and i.options(reader, tflite.Pool2DOptions).Padding() == tflite.Padding.VALID
        for reader in readers
    )
    in_front = readers and pools and op.output.index != i.output.index
    if not value.item() <= least or not in_front or pads[3].any():
        i.refuse(
            op, f"it adds {value.item():g}; supported are zeros, and the least value in front of unpadded max pools"
        )
    i.edges[op.output.index] = (int(pads[1, 0]), int(pads[2, 0]), int(pads[1, 1]), int(pads[2, 1]))
    i.builder.alias(op.output.name, i.given(op, 0).name)


def _slice(i: Importer, op: Operator) -> None:
    source = _image(i, op)
    start, size = i.constant(op, 1).reshape(-1), i.constant(op, 2).reshape(-1)
    if (len(start), len(size)) != (4, 4):
        i.refuse(op, f"a beginning of {len(start)} numbers and a size of {len(size)}; a map has 4 axes")
    end = [b + s if s >= 0 else e for b, s, e in zip(start[1:], size[1:], i.builder.shape(source), strict=True)]
    i.builder.slice(op.name, source, op.output.name, triple(start[1:]), triple(end), (1, 1, 1))


def _strided_slice(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.StridedSliceOptions)
    source = _image(i, op)
    begin, end, step = (i.constant(op, k).reshape(-1) for k in (1, 2, 3))
    if (len(begin), len(end), len(step)) != (4, 4, 4):
        i.refuse(op, f"{len(begin)} beginnings, {len(end)} ends and {len(step)} steps; a map has 4 axes")
    if o.EllipsisMask() or o.NewAxisMask() or o.ShrinkAxisMask() or o.Offset() or 0 in step:
        i.refuse(op, "ends that count from the beginnings, a step of 0, or masks that change the rank")
    parts = []
    for axis, size in enumerate(i.builder.shape(source), 1):
        first = None if o.BeginMask() >> axis & 1 else int(begin[axis])
        last = None if o.EndMask() >> axis & 1 else int(end[axis])
        parts.append(range(*slice(first, last, int(step[axis])).indices(size)))
    i.builder.slice(
        op.name,
        source,
        op.output.name,
        triple(p.start for p in parts),
        triple(p.stop for p in parts),
        triple(p.step for p in parts),
    )


def _transpose(i: Importer, op: Operator) -> None:
    source, order = _image(i, op), [int(axis) for axis in i.constant(op, 1).reshape(-1)]
    if len(order) != 4 or order[0] != 0:
        i.refuse(op, f"an order of {order}")
    i.builder.transpose(op.name, source, op.output.name, triple(axis - 1 for axis in order[1:]))


def _resize(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.ResizeNearestNeighborOptions)
    source, size = _image(i, op), i.constant(op, 1).reshape(-1)
    height, width, _ = i.builder.shape(source)
    if o.AlignCorners() or len(size) != 2 or size[0] % height or size[1] % width:
        i.refuse(op, "it does not enlarge by a whole number")
    i.builder.enlarge(op.name, source, op.output.name, (int(size[0]) // height, int(size[1]) // width))


def _clamp(low: float, high: float) -> Callable[[Importer, Operator], None]:
    def handler(i: Importer, op: Operator) -> None:
        source = i.given(op, 0)
        i.builder.clip(op.name, source.name, op.output.name, low, high)

    return handler


def _limit(kind: str) -> Callable[[Importer, Operator], None]:
    """MAXIMUM and MINIMUM with one constant: a clamp on one side."""

    def handler(i: Importer, op: Operator) -> None:
        source, other, constant = i.given(op, 0), i.given(op, 1), i.constant(op, 1)
        if constant.size != 1 or other.kind != source.kind or (other.kind != "float32" and not len(other.scales)):
            i.refuse(op, f"a limit of {constant.shape} in {other.kind} beside activations of {source.kind}")
        value = constant.item()
        limit = value if not len(other.scales) else (value - int(other.zeros[0])) * float(other.scales[0])
        low, high = (limit, math.inf) if kind == "MAXIMUM" else (-math.inf, limit)
        i.builder.clip(op.name, source.name, op.output.name, low, high)

    return handler


def _leaky(i: Importer, op: Operator) -> None:
    alpha = float(i.options(op, tflite.LeakyReluOptions).Alpha())
    if not 0.0 <= alpha <= 1.0:
        i.refuse(op, f"a slope of {alpha}")
    i.builder.function(op.name, "leaky_relu", i.given(op, 0).name, op.output.name, alpha)


def _prelu(i: Importer, op: Operator) -> None:
    """Slopes for the channels; where activations are integers, so are they."""
    source, slopes, constant = i.given(op, 0), i.given(op, 1), i.constant(op, 1)
    channels = source.shape[-1]
    if constant.size not in (1, channels) or (constant.size > 1 and constant.shape[-1] != channels):
        i.refuse(op, f"slopes of {constant.shape} for {source.shape}")
    if slopes.kind != source.kind or (slopes.kind != "float32" and len(slopes.scales) != 1):
        i.refuse(op, f"slopes in {slopes.kind} beside activations of {source.kind}")
    values, step = constant.reshape(-1).astype(np.float64), 0.0
    if slopes.kind != "float32":
        step = float(slopes.scales[0])
        values = (values - int(slopes.zeros[0])) * step
    all_channels = np.broadcast_to(values, (channels,)).tolist()
    i.builder.emit(op.name, "prelu", PRelu(tuple(all_channels), step), (source.name,), op.output.name)


def _function(kind: str) -> Callable[[Importer, Operator], None]:
    def handler(i: Importer, op: Operator) -> None:
        i.builder.function(op.name, kind, i.given(op, 0).name, op.output.name)

    return handler


def _quantize(i: Importer, op: Operator) -> None:
    """From real numbers at the input: another name. Between integers: another scale."""
    source, output = i.given(op, 0), op.output
    if source.kind == "float32":
        i.builder.alias(output.name, source.name)
        i.note_quant(output)
        return
    i.builder.function(op.name, "identity", source.name, output.name)


def _dequantize(i: Importer, op: Operator) -> None:
    if op.output.index != i.output.index:
        i.refuse(op, "the operations behind it compute in real numbers")
    i.builder.alias(op.output.name, i.given(op, 0).name)


def _softmax(i: Importer, op: Operator) -> None:
    i.builder.softmax(op.name, i.given(op, 0).name, op.output.name, float(i.options(op, tflite.SoftmaxOptions).Beta()))


HANDLERS: Mapping[str, Row[Importer, [Operator]]] = {
    "CONV_2D": row(_conv, "conv2d", "depthwise"),
    "DEPTHWISE_CONV_2D": row(_depthwise, "depthwise", "conv2d"),
    "FULLY_CONNECTED": row(_linear, "conv2d"),
    "ADD": row(_add, "add"),
    "MUL": row(_mul, "mul"),
    "AVERAGE_POOL_2D": row(_pool, "average_pool"),
    "MAX_POOL_2D": row(_pool, "max_pool"),
    "MEAN": row(_mean, "average_pool", "identity"),
    "CONCATENATION": row(_concat, "concat"),
    "RESHAPE": row(_same, "reshape", gone="reading"),
    "SQUEEZE": row(_same, "reshape", gone="reading"),
    "EXPAND_DIMS": row(_same, "reshape", gone="reading"),
    "PAD": row(_pad, "move"),
    "PADV2": row(_pad, "move"),
    "SLICE": row(_slice, "move"),
    "STRIDED_SLICE": row(_strided_slice, "move"),
    "TRANSPOSE": row(_transpose, "move"),
    "RESIZE_NEAREST_NEIGHBOR": row(_resize, "move"),
    "MAXIMUM": row(_limit("MAXIMUM"), "clip"),
    "MINIMUM": row(_limit("MINIMUM"), "clip"),
    "RELU": row(_clamp(0.0, math.inf), "clip"),
    "RELU6": row(_clamp(0.0, 6.0), "clip"),
    "RELU_N1_TO_1": row(_clamp(-1.0, 1.0), "clip"),
    "LEAKY_RELU": row(_leaky, "leaky_relu"),
    "PRELU": row(_prelu, "prelu"),
    "HARD_SWISH": row(_function("hard_swish"), "hard_swish"),
    "LOGISTIC": row(_function("sigmoid"), "sigmoid"),
    "TANH": row(_function("tanh"), "tanh"),
    "QUANTIZE": row(_quantize, "identity", gone="scale"),
    "DEQUANTIZE": row(_dequantize, gone="scale"),
    "SOFTMAX": row(_softmax, "softmax"),
}
SUPPORTED = tuple(HANDLERS)


def load(path: Path) -> Imported:
    """Reads a TFLite file. Raises ModelError, or UnsupportedOpError naming the operator that blocks."""
    data = files.read_bytes(path, ModelError)
    if data[4:8] != b"TFL3":
        raise ModelError(f"'{path}' is no TFLite file.", "Convert the model again.")
    with files.boundary(ModelError, f"'{path}' is not a sound TFLite file", "Convert the model again."):
        return Importer(path, data, HANDLERS).run()
