# SPDX-License-Identifier: Apache-2.0
"""TFLite files to the IR: float32, int8, and the older uint8 scheme. One row of HANDLERS per operation.

Multipliers are computed as TFLite's own preparation does, where that is not the plain formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate import files
from medyate.arithmetic.scheme import UINT8_SHIFT
from medyate.arithmetic.tflite_kernels import looked_up, magnitudes, turns_signs
from medyate.errors import ModelError
from medyate.frontends.builder import LAYOUT, triple
from medyate.frontends.table import Row, row
from medyate.frontends.tflite_graph import (
    REAL_WEIGHTS,
    WEIGHTS,
    Importer,
    Operator,
    Spread,
    Tensor,
    sizes_of,
)
from medyate.ir import Activation, Imported
from medyate.ops._spatial import Pads, Pair
from medyate.ops.offset import Offset
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
    if i.dilated is not None:
        return stride, i.dilated[1], i.dilated[0]
    return stride, _pads(o.Padding() == tflite.Padding.SAME, extent[:2], kernel, stride, dilation), dilation


def _between(i: Importer, op: Operator, o: Any) -> bool:
    """Whether a convolution reads pixels that lie in the batch: it is read when they lie in the map again."""
    spread = i.spread.get(i.given(op, 0).index)
    if spread is None:
        return False
    dilation = (o.DilationHFactor(), o.DilationWFactor())
    plain = (o.StrideH(), o.StrideW()) == (1, 1) and dilation == (1, 1) and o.Padding() == tflite.Padding.VALID
    if not plain:
        i.refuse(op, "strides, a dilation or padding between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND")
    i.spread[op.output.index] = replace(spread, layer=op)
    return True


def _conv(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.Conv2DOptions)
    if _between(i, op, o):
        return
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
    if _between(i, op, o):
        return
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


OPTIONS: Mapping[str, type[Any]] = {"ADD": tflite.AddOptions, "MUL": tflite.MulOptions, "SUB": tflite.SubOptions}


def _two(i: Importer, op: Operator) -> None:
    """A sum, difference or product of two tensors, or of one and a constant."""
    activation = i.activation(op, i.options(op, OPTIONS[op.kind]).FusedActivationFunction())
    a, b = i.given(op, 0), i.given(op, 1)
    if a.constant is not None or b.constant is not None:
        _with_constant(i, op, activation)
        return
    first, second, output = a.name, b.name, op.output.name
    if op.kind == "MUL":
        i.builder.mul(op.name, first, second, output, activation)
    elif op.kind == "ADD":
        i.builder.add(op.name, first, second, output, activation)
    else:
        quants = a.quant(), b.quant()
        if quants[0] is not None and quants[1] is not None and not turns_signs((quants[0], quants[1]), 1):
            i.refuse(op, "with these scales TFLite rounds it otherwise than the sum with the negative second tensor")
        i.builder.difference(op.name, first, second, output, activation)


def _with_constant(i: Importer, op: Operator, activation: Activation) -> None:
    """A constant factor or summand for every channel."""
    place = 0 if i.given(op, 0).constant is not None else 1
    source, constant = i.given(op, 1 - place), i.given(op, place)
    numbers = _per_channel(i, op, source, constant)
    if constant.kind != source.kind or (source.kind != "float32" and len(constant.scales) != 1):
        i.refuse(op, f"a constant of {constant.kind} beside activations of {source.kind}")
    if source.kind == "float32":
        real, ones, zeros = numbers.astype(np.float64), np.ones(len(numbers)), np.zeros(len(numbers))
        sign = -1.0 if op.kind == "SUB" else 1.0
        scale, shift = (real, zeros) if op.kind == "MUL" else (ones, sign * real)
        if op.kind == "SUB" and place == 0:
            scale, shift = -ones, real
        i.builder.scaled(op.name, source.name, op.output.name, scale, shift, activation)
        return
    quant, own, output = source.quant(), constant.quant(), op.output.quant()
    assert quant is not None and own is not None and output is not None
    steps = numbers.astype(np.int64) - int(constant.zeros[0])
    if op.kind == "MUL":
        product = np.float32(quant.scale) * np.float32(own.scale) / np.float32(output.scale)
        i.builder.factors(op.name, source.name, op.output.name, steps, own.scale, float(product), activation)
        return
    minus, name = op.kind == "SUB" and place == 1, source.name
    if op.kind == "SUB" and place == 0:
        if not turns_signs((own, quant), 1):
            i.refuse(op, "with these scales TFLite rounds it otherwise than the sum with the negative tensor")
        name = i.builder.negative(op.name, name)
    offset = Offset(tuple(steps.tolist()), own.scale, minus, activation)
    i.builder.emit(op.name, "offset", offset, (name,), op.output.name)


def _per_channel(i: Importer, op: Operator, source: Tensor, constant: Tensor) -> NDArray[Any]:
    """A constant as one number for every channel of the tensor."""
    values = i.known(constant)
    try:
        full = np.broadcast_to(values, (1, *source.shape[1:]))
    except ValueError:
        i.refuse(op, f"a constant of {values.shape} beside a tensor of {source.shape}")
    rows = full.reshape(-1, source.shape[-1])
    if values.size > 1 and not (rows == rows[:1]).all():
        i.refuse(op, "a constant that is neither one number nor one for each channel")
    return np.array(rows[0])


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


AXES: Mapping[int, tuple[int, ...]] = {4: (0, 1, 2), 3: (0, 2), 2: (2,)}
"""Axes of the IR's tensor that are those of a TFLite tensor behind the batch, by its rank."""


def _placed(i: Importer, op: Operator) -> tuple[str, tuple[int, ...]]:
    """(input, the IR's axis of each of its axes behind the batch)."""
    source = i.given(op, 0)
    if len(source.shape) not in AXES:
        i.refuse(op, f"an input of {source.shape}; a batch of one and one to three sizes are expected")
    return source.name, AXES[len(source.shape)]


def _reduced(i: Importer, op: Operator) -> tuple[str, Pair]:
    """(input, window of the axes over which an operator runs)."""
    source, places = _placed(i, op)
    sizes = i.given(op, 0).shape
    axes = {int(axis) % len(sizes) for axis in i.constant(op, 1).reshape(-1)}
    shape, over = i.builder.shape(source), {places[axis - 1] for axis in axes if axis > 0}
    if not axes or 0 in axes or (2 in over and shape[2] > 1):
        i.refuse(op, f"it runs over the axes {sorted(axes)} of {sizes}; height and width are supported")
    return source, (shape[0] if 0 in over else 1, shape[1] if 1 in over else 1)


def _settled(i: Importer, op: Operator, made: str) -> None:
    """The output under its own sizes, which an axis that is gone has changed."""
    wanted = sizes_of(op.output.shape[1:]) if 2 <= len(op.output.shape) <= 4 else i.builder.shape(made)
    with i.builder.reading(LAYOUT):
        quant = op.output.quant()
        if quant is not None:
            i.builder.quantise(made, quant)
        i.builder.reshape(op.name, made, op.output.name, wanted)


def _mean(i: Importer, op: Operator) -> None:
    """MEAN multiplies by a quotient of scales even where it is 1; the array keeps it apart from AVERAGE_POOL_2D."""
    source, kernel = _reduced(i, op)
    x, y = i.given(op, 0).quant(), op.output.quant()
    made = i.between(op)
    if kernel == (1, 1) and x != y:
        i.builder.function(op.name, "identity", source, made)
    else:
        arrays = None if x is None or y is None else {"multiplier": np.array([x.scale / y.scale])}
        i.builder.average_pool(op.name, source, made, kernel, kernel, arrays=arrays)
    _settled(i, op, made)


def _largest(i: Importer, op: Operator) -> None:
    source, kernel = _reduced(i, op)
    i.keeps_scale(op)
    made = i.between(op)
    i.builder.max_pool(op.name, source, made, kernel, kernel, (0, 0, 0, 0))
    _settled(i, op, made)


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
    source, places = _placed(i, op)
    pads = i.constant(op, 1)
    pads = pads.reshape(-1, 2) if pads.size % 2 == 0 else pads
    if pads.shape != (len(places) + 1, 2) or pads[0].any() or pads.min() < 0:
        i.refuse(op, f"pads of {pads.tolist()}; nothing can be added to samples")
    i.keeps_scale(op)
    around = np.zeros((4, 2), np.int64)
    for place, pair in zip(places, pads[1:], strict=True):
        around[place + 1] = pair
    if op.kind == "PADV2" and not _adds_zeros(i, op):
        _edge(i, op, around)
        return
    i.builder.pad(op.name, source, op.output.name, triple(around[1:, 0]), triple(around[1:, 1]))


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
    source, places = _placed(i, op)
    start, size = i.constant(op, 1).reshape(-1), i.constant(op, 2).reshape(-1)
    if (len(start), len(size)) != (len(places) + 1,) * 2:
        i.refuse(op, f"a beginning of {len(start)} numbers and a size of {len(size)} for {len(places) + 1} axes")
    shape = i.builder.shape(source)
    parts = [range(extent) for extent in shape]
    for place, first, count in zip(places, start[1:].tolist(), size[1:].tolist(), strict=True):
        parts[place] = range(first, first + count if count >= 0 else shape[place])
    _part(i, op, source, parts, op.output)


def _part(i: Importer, op: Operator, source: str, parts: Sequence[range], output: Tensor) -> None:
    """Some elements of every axis of the IR's tensor, under the output's sizes."""
    made = i.between(op)
    bounds = (triple(p.start for p in parts), triple(p.stop for p in parts), triple(p.step for p in parts))
    i.builder.slice(op.name, source, made, *bounds)
    quant = i.builder.quant(source)
    if output.quant() != quant:
        i.refuse(op, "its output has another scale than its input")
    with i.builder.reading(LAYOUT):
        wanted = sizes_of(output.shape[1:]) if 2 <= len(output.shape) <= 4 else i.builder.shape(made)
        i.builder.reshape(f"{op.name}/sizes", made, output.name, wanted)


def _strided_slice(i: Importer, op: Operator) -> None:
    o = i.options(op, tflite.StridedSliceOptions)
    source, places = _placed(i, op)
    begin, end, step = (i.constant(op, k).reshape(-1) for k in (1, 2, 3))
    if {len(begin), len(end), len(step)} != {len(places) + 1}:
        i.refuse(op, f"{len(begin)} beginnings, {len(end)} ends and {len(step)} steps for {len(places) + 1} axes")
    if o.EllipsisMask() or o.NewAxisMask() or o.Offset() or 0 in step or o.ShrinkAxisMask() & 1:
        i.refuse(op, "ends that count from the beginnings, a step of 0, or masks that add axes or take samples away")
    shape = i.builder.shape(source)
    parts = [range(extent) for extent in shape]
    for axis, place in enumerate(places, 1):
        size = shape[place]
        if o.ShrinkAxisMask() >> axis & 1:
            one = range(size)[int(begin[axis])]
            parts[place] = range(one, one + 1)
            continue
        first = None if o.BeginMask() >> axis & 1 else int(begin[axis])
        last = None if o.EndMask() >> axis & 1 else int(end[axis])
        parts[place] = range(*slice(first, last, int(step[axis])).indices(size))
    _part(i, op, source, parts, op.output)


def _split(i: Importer, op: Operator) -> None:
    """Neighbouring parts of an axis, each an output of its own."""
    data, axes = (1, 0) if op.kind == "SPLIT" else (0, 2)
    source = i.given(op, data)
    if len(source.shape) not in AXES:
        i.refuse(op, f"an input of {source.shape}")
    axis = int(i.constant(op, axes).item()) % len(source.shape)
    sizes = [output.shape[axis] for output in op.outputs]
    if axis == 0 or sum(sizes) != source.shape[axis]:
        i.refuse(op, f"parts of {sizes} along axis {axis} of {source.shape}")
    start, place = 0, AXES[len(source.shape)][axis - 1]
    for output, size in zip(op.outputs, sizes, strict=True):
        parts = [range(extent) for extent in i.builder.shape(source.name)]
        parts[place] = range(start, start + size)
        _part(i, op, source.name, parts, output)
        start += size


def _unpack(i: Importer, op: Operator) -> None:
    """Every position of an axis as an output of its own."""
    o, (source, places) = i.options(op, tflite.UnpackOptions), _placed(i, op)
    axis = o.Axis() % (len(places) + 1)
    if axis == 0 or len(op.outputs) != i.builder.shape(source)[places[axis - 1]]:
        i.refuse(op, f"{len(op.outputs)} parts along axis {axis}")
    for position, output in enumerate(op.outputs):
        parts = [range(extent) for extent in i.builder.shape(source)]
        parts[places[axis - 1]] = range(position, position + 1)
        _part(i, op, source, parts, output)


def _transpose(i: Importer, op: Operator) -> None:
    source, places = _placed(i, op)
    order = [int(axis) for axis in i.constant(op, 1).reshape(-1)]
    if sorted(order) != list(range(len(places) + 1)) or order[0] != 0:
        i.refuse(op, f"an order of {order}")
    axes = [0, 1, 2]
    for place, axis in zip(places, order[1:], strict=True):
        axes[place] = places[axis - 1]
    i.builder.transpose(op.name, source, op.output.name, triple(axes))


# --- pixels as channels, as samples, and more of them ---


def _space_to_depth(i: Importer, op: Operator) -> None:
    i.keeps_scale(op)
    block = i.options(op, tflite.SpaceToDepthOptions).BlockSize()
    i.builder.space_to_depth(op.name, _image(i, op), op.output.name, block)


def _depth_to_space(i: Importer, op: Operator) -> None:
    i.keeps_scale(op)
    block = i.options(op, tflite.DepthToSpaceOptions).BlockSize()
    i.builder.depth_to_space(op.name, _image(i, op), op.output.name, block)


def _transposed(i: Importer, op: Operator) -> None:
    """TRANSPOSE_CONV: its inputs are the output's sizes, the weight (out, h, w, in), the map and the bias."""
    o = i.options(op, tflite.TransposeConvOptions)
    layer = replace(op, inputs=(i.given(op, 2), i.given(op, 1), *op.inputs[3:4]))
    weight, arrays = _weights(i, layer, 0)
    if weight.ndim != 4 or "zero" in arrays:
        i.refuse(op, f"a weight of {weight.shape}")
    stride, size = (o.StrideH(), o.StrideW()), [int(n) for n in i.constant(op, 0).reshape(-1)][1:3]
    source, kernel = i.given(op, 2).name, weight.shape[1:3]
    bias = _integer_bias(_bias(i, layer, arrays, weight[0].size), arrays, len(weight))
    same = o.Padding() == tflite.Padding.SAME
    first = [
        max(0, (before - 1) * s + k - n) // 2 if same else 0
        for before, s, k, n in zip(i.builder.shape(source)[:2], stride, kernel, size, strict=False)
    ]
    i.builder.transposed_convolution(
        op.name,
        source,
        op.output.name,
        weight,
        bias,
        stride,
        (first[0], first[1]),
        (size[0], size[1]),
        op.output.quant(),
        arrays,
    )


def _to_batch(i: Importer, op: Operator) -> None:
    """What only a convolution reads: together with BATCH_TO_SPACE_ND it is a dilated one."""
    block, pads = i.constant(op, 1).reshape(-1).tolist(), i.constant(op, 2).reshape(-1, 2).tolist()
    rank = len(i.given(op, 0).shape)
    if (
        rank not in (3, 4)
        or len(block) != rank - 2
        or len(pads) != rank - 2
        or op.output.quant() != i.given(op, 0).quant()
    ):
        i.refuse(op, f"blocks of {block} with pads of {pads} for {rank} axes")
    block, pads = [*block, 1][:2], [*pads, [0, 0]][:2]
    before, behind = (pads[0][0], pads[1][0]), (pads[0][1], pads[1][1])
    i.spread[op.output.index] = Spread(i.given(op, 0), (block[0], block[1]), before, behind)


def _to_space(i: Importer, op: Operator) -> None:
    """The convolution that stands between the two, with the distance of the pixels as its dilation."""
    spread = i.spread.get(i.given(op, 0).index)
    if spread is None or spread.layer is None:
        i.refuse(op, "it does not stand behind SPACE_TO_BATCH_ND and a convolution")
    block = [*i.constant(op, 1).reshape(-1).tolist(), 1][:2]
    crops = [*i.constant(op, 2).reshape(-1, 2).tolist(), [0, 0]][:2]
    first, last = ([crop[k] for crop in crops] for k in (0, 1))
    pads = [b - c for b, c in zip((*spread.before, *spread.behind), (*first, *last), strict=True)]
    if tuple(block) != spread.block or min(pads) < 0 or op.output.quant() != spread.layer.output.quant():
        i.refuse(op, f"blocks of {block} with crops of {crops} behind pads of {spread.before} and {spread.behind}")
    i.dilated = (spread.block, (pads[0], pads[1], pads[2], pads[3]))
    inputs = (spread.source, *spread.layer.inputs[1:])
    layer = replace(spread.layer, inputs=inputs, output=op.output, outputs=op.outputs)
    (_conv if layer.kind == "CONV_2D" else _depthwise)(i, layer)
    i.dilated = None


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
    """MAXIMUM and MINIMUM: with one constant a clamp on one side, else the larger or smaller of two values."""

    def handler(i: Importer, op: Operator) -> None:
        place = 0 if i.given(op, 0).constant is not None else 1
        source, other = i.given(op, 1 - place), i.given(op, place)
        if other.constant is None:
            if not source.quant() == other.quant() == op.output.quant():
                i.refuse(op, "its tensors have different scales")
            choose = i.builder.larger if kind == "MAXIMUM" else i.builder.smaller
            choose(op.name, i.given(op, 0).name, i.given(op, 1).name, op.output.name)
            return
        constant = other.constant
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
    """A function of one value; where TFLite makes a table of it, that table."""

    def handler(i: Importer, op: Operator) -> None:
        x, y = i.given(op, 0).quant(), op.output.quant()
        table = None
        if x is not None and y is not None:
            table = magnitudes(x, y) if kind == "abs" else looked_up(kind, x, y)
        i.builder.function(op.name, kind, i.given(op, 0).name, op.output.name, table=table)

    return handler


def _gelu(i: Importer, op: Operator) -> None:
    kind = "gelu_tanh" if i.options(op, tflite.GeluOptions).Approximate() else "gelu"
    _function(kind)(i, op)


def _real_only(kind: str) -> Callable[[Importer, Operator], None]:
    """A function that TFLite has of real numbers alone."""

    def handler(i: Importer, op: Operator) -> None:
        if i.given(op, 0).kind != "float32":
            i.refuse(op, f"of {i.given(op, 0).kind}, which TFLite itself does not compute")
        i.builder.function(op.name, kind, i.given(op, 0).name, op.output.name)

    return handler


def _ends(i: Importer, op: Operator) -> bool:
    """Whether the network ends here, but for what a prediction does not need."""
    readers = i.readers.get(op.output.index, [])
    ended = op.output.index == i.output.index and not readers
    return ended or (len(readers) == 1 and readers[0].kind in LAST and _ends(i, readers[0]))


def _last(name: str) -> Callable[[Importer, Operator], None]:
    """An operator that is left out at the network's end."""

    def handler(i: Importer, op: Operator) -> None:
        if not _ends(i, op) or op.output.index != i.output.index:
            i.refuse(op, "it is supported at the network's end alone")
        if i.given(op, 0).kind != "float32" and name == "log_softmax":
            i.refuse(op, f"of {i.given(op, 0).kind}; of float32 it is left out")
        if math.prod(i.given(op, 0).shape[:-1]) != 1:
            i.refuse(op, "over a map; it is left out behind one answer for a sample")
        i.builder.leave_out(op.name, name, i.given(op, 0).name, op.output.name)

    return handler


LAST = ("LOG_SOFTMAX", "ARG_MAX")


def _quantize(i: Importer, op: Operator) -> None:
    """From real numbers at the input: another name. Between integers: another scale."""
    source, output = i.given(op, 0), op.output
    if source.kind == "float32":
        i.builder.alias(output.name, source.name)
        i.note_quant(output)
        return
    i.builder.function(op.name, "identity", source.name, output.name)


def _dequantize(i: Importer, op: Operator) -> None:
    if not _ends(i, op):
        i.refuse(op, "the operations behind it compute in real numbers")
    i.builder.alias(op.output.name, i.given(op, 0).name)


def _softmax(i: Importer, op: Operator) -> None:
    i.builder.softmax(op.name, i.given(op, 0).name, op.output.name, float(i.options(op, tflite.SoftmaxOptions).Beta()))


def _no_constant(i: Importer, op: Operator) -> None:
    i.refuse(op, "it reads values that are no constants")


ALONE = ("SHAPE", "PACK", "GATHER", "FILL", "BROADCAST_TO", "RANGE", "REDUCE_PROD", "SUM", "CAST", "FLOOR_DIV")
"""Operators that are worked out where they read constants alone, and refused elsewhere."""
HANDLERS: Mapping[str, Row[Importer, [Operator]]] = {
    "CONV_2D": row(_conv, "conv2d", "depthwise"),
    "DEPTHWISE_CONV_2D": row(_depthwise, "depthwise", "conv2d"),
    "FULLY_CONNECTED": row(_linear, "conv2d"),
    "TRANSPOSE_CONV": row(_transposed, "conv2d", "concat", "move"),
    "SPACE_TO_BATCH_ND": row(_to_batch, gone="reading"),
    "BATCH_TO_SPACE_ND": row(_to_space, "conv2d", "depthwise"),
    "ADD": row(_two, "add", "offset", "batch_norm", "clip"),
    "SUB": row(_two, "add", "neg", "offset", "batch_norm", "clip"),
    "MUL": row(_two, "mul", "depthwise", "conv2d", "batch_norm", "clip"),
    "AVERAGE_POOL_2D": row(_pool, "average_pool"),
    "MAX_POOL_2D": row(_pool, "max_pool"),
    "MEAN": row(_mean, "average_pool", "identity"),
    "REDUCE_MAX": row(_largest, "max_pool"),
    "CONCATENATION": row(_concat, "concat"),
    "RESHAPE": row(_same, "reshape", gone="reading"),
    "SQUEEZE": row(_same, "reshape", gone="reading"),
    "EXPAND_DIMS": row(_same, "reshape", gone="reading"),
    "PAD": row(_pad, "move"),
    "PADV2": row(_pad, "move"),
    "SLICE": row(_slice, "move"),
    "STRIDED_SLICE": row(_strided_slice, "move"),
    "SPLIT": row(_split, "move"),
    "SPLIT_V": row(_split, "move"),
    "UNPACK": row(_unpack, "move"),
    "TRANSPOSE": row(_transpose, "move"),
    "SPACE_TO_DEPTH": row(_space_to_depth, "move", "concat"),
    "DEPTH_TO_SPACE": row(_depth_to_space, "move", "concat"),
    "RESIZE_NEAREST_NEIGHBOR": row(_resize, "move"),
    "MAXIMUM": row(_limit("MAXIMUM"), "clip", "concat", "max_pool"),
    "MINIMUM": row(_limit("MINIMUM"), "clip", "concat", "max_pool", "neg"),
    "RELU": row(_clamp(0.0, math.inf), "clip"),
    "RELU6": row(_clamp(0.0, 6.0), "clip"),
    "RELU_N1_TO_1": row(_clamp(-1.0, 1.0), "clip"),
    "LEAKY_RELU": row(_leaky, "leaky_relu"),
    "PRELU": row(_prelu, "prelu"),
    "HARD_SWISH": row(_function("hard_swish"), "hard_swish"),
    "LOGISTIC": row(_function("sigmoid"), "sigmoid"),
    "TANH": row(_function("tanh"), "tanh"),
    "ELU": row(_function("elu"), "elu"),
    "GELU": row(_gelu, "gelu", "gelu_tanh"),
    "EXP": row(_function("exp"), "exp"),
    "ABS": row(_function("abs"), "abs"),
    "NEG": row(_real_only("neg"), "neg"),
    "SQUARE": row(_real_only("square"), "square"),
    "QUANTIZE": row(_quantize, "identity", gone="scale"),
    "DEQUANTIZE": row(_dequantize, gone="scale"),
    "SOFTMAX": row(_softmax, "softmax"),
    "LOG_SOFTMAX": row(_last("log_softmax"), gone="end"),
    "ARG_MAX": row(_last("argmax"), gone="end"),
    **{kind: row(_no_constant, gone="constant") for kind in ALONE},
}
SUPPORTED = tuple(HANDLERS)


def load(path: Path, output: str = "") -> Imported:
    """Reads a TFLite file. Raises ModelError, or UnsupportedOpError naming the operator that blocks."""
    data = files.read_bytes(path, ModelError)
    if data[4:8] != b"TFL3":
        raise ModelError(f"'{path}' is no TFLite file.", "Convert the model again.")
    with files.boundary(ModelError, f"'{path}' is not a sound TFLite file", "Convert the model again."):
        return Importer(path, data, HANDLERS, output).run()
