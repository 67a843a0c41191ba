# SPDX-License-Identifier: Apache-2.0
"""ONNX models to the IR, in real numbers or quantised. One row of HANDLERS per ONNX operation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from medyate import files
from medyate.errors import ModelError
from medyate.frontends import onnx_moves as moves
from medyate.frontends import onnx_quantised as integers
from medyate.frontends.onnx_file import AGAIN, read
from medyate.frontends.onnx_graph import CHANNELS_FIRST, ROWS, Handler, Importer, View, canonical, name_of, running
from medyate.frontends.table import Row, row
from medyate.ir import Imported
from medyate.ops._spatial import KERNEL_MAX, Pads, Pair
from medyate.ops.prelu import PRelu

HARD_SIGMOID = (1 / 6, 0.5)
SELU = (1.6732632423543772, 1.0507009873554805)
"""Alpha and gamma."""
# --- windows ---


def _pair(values: Sequence[int], width: int = 1) -> Pair:
    """Along height and width; a series has no width of its own."""
    height, width = (*values, width)[:2]
    return int(height), int(width)


def _window(i: Importer, node: Any, source: str, kernel: Pair, spatial: int) -> tuple[Pair, Pair, Pads]:
    """(stride, dilation, pads) of a windowed operation."""
    a = i.attributes(node)
    stride, dilation = _pair(a.get("strides", (1, 1))), _pair(a.get("dilations", (1, 1)))
    if min(*stride, *dilation, *kernel) < 1:
        i.refuse(node, f"window {kernel}, stride {stride}, dilation {dilation}")
    auto = a.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        given = [int(p) for p in a.get("pads", ())] if auto == "NOTSET" else []
        first, last = (given or [0] * 2 * spatial)[:spatial], (given or [0] * 2 * spatial)[spatial:]
        return stride, dilation, (*_pair(first, 0), *_pair(last, 0))
    both = []
    for axis, size in enumerate(i.builder.shape(source)[:2]):
        total = (math.ceil(size / stride[axis]) - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 - size
        small, large = max(0, total) // 2, max(0, total) - max(0, total) // 2
        both.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return stride, dilation, (both[0][0], both[1][0], both[0][1], both[1][1])


def _conv(i: Importer, node: Any) -> None:
    source, rank = i.plane(node), len(i.view(node).dims)
    weight, bias, arrays = integers.layer(i, node, source, 0)
    if weight.ndim not in (3, 4) or weight.ndim != rank + 1:
        i.refuse(node, f"a kernel of {weight.ndim - 2} dimensions over an input of {rank + 1} axes")
    weight = weight.reshape(*weight.shape, 1) if weight.ndim == 3 else weight
    stride, dilation, pads = _window(i, node, source, (weight.shape[2], weight.shape[3]), rank - 1)
    activation, output = integers.fused(i, node)
    i.builder.convolution(
        name_of(node),
        source,
        output,
        weight.transpose(0, 2, 3, 1),
        bias,
        stride,
        pads,
        dilation,
        i.attributes(node).get("group", 1),
        activation,
        arrays,
    )
    i.made_plane(node, rank, output)


def _pool(i: Importer, node: Any) -> None:
    a = i.attributes(node)
    source, rank = i.plane(node), len(i.view(node).dims)
    kernel = _pair(a["kernel_shape"])
    stride, dilation, pads = _window(i, node, source, kernel, rank - 1)
    if dilation != (1, 1) or rank not in (2, 3) or (len(node.output) > 1 and node.output[1]):
        i.refuse(node, f"a dilation of {dilation}, {rank + 1} axes or a second output")
    counted = node.op_type == "AveragePool" and a.get("count_include_pad", 0) and any(pads)
    if a.get("ceil_mode", 0):
        own, pads = pads, _rounded_up(i.builder.shape(source)[:2], kernel, stride, pads)
    else:
        own = pads
    if counted:  # the padding counts, what the last window reaches beyond it does not
        padded = i.builder.fresh(f"{node.output[0]}/padded")
        i.builder.pad(padded, source, padded, (own[0], own[1], 0), (own[2], own[3], 0))
        i.same_scale(i.builder.tensor(padded), source)
        source, pads = i.builder.tensor(padded), (0, 0, pads[2] - own[2], pads[3] - own[3])
    if node.op_type == "MaxPool":
        i.builder.max_pool(name_of(node), source, node.output[0], kernel, stride, pads)
        i.same_scale(i.made_plane(node, rank), source)
    else:
        i.builder.average_pool(name_of(node), source, node.output[0], kernel, stride, pads)
        _averaged(i, i.made_plane(node, rank), source, any(pads))


def _averaged(i: Importer, output: str, source: str, keeps_scale: bool) -> None:
    if keeps_scale:
        i.same_scale(output, source)
    elif output != source:
        i.pools.append((output, source))


def _rounded_up(extent: Pair, kernel: Pair, stride: Pair, pads: Pads) -> Pads:
    """Pads with which the last window counts that would reach beyond the map, if it begins inside."""
    end = [pads[2], pads[3]]
    for axis in range(2):
        span = extent[axis] + pads[axis] + pads[axis + 2] - kernel[axis]
        steps = -(-span // stride[axis])
        if steps * stride[axis] >= extent[axis] + pads[axis]:
            steps -= 1
        end[axis] += max(0, steps * stride[axis] - span)
    return pads[0], pads[1], end[0], end[1]


def _global_pool(i: Importer, node: Any) -> None:
    source, rank = i.plane(node), len(i.view(node).dims)
    if node.op_type == "GlobalMaxPool":
        kernel = i.builder.shape(source)[:2]
        i.builder.max_pool(name_of(node), source, node.output[0], kernel, kernel, (0, 0, 0, 0))
        i.same_scale(i.made_plane(node, rank), source)
    else:
        i.builder.average_pool(name_of(node), source, node.output[0], (0, 0), (0, 0))
        _averaged(i, i.made_plane(node, rank), source, False)


def _reduce(i: Importer, node: Any) -> None:
    """The mean, the sum or the largest value over height, width or both."""
    view, places = i.placed(node)
    rank = len(view.dims) + 1
    axes = i.numbers(node, 1, "axes")
    axes = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    shape = i.builder.shape(view.tensor)
    within = {places[axis - 1] for axis in axes if axis > 0}
    if 0 in axes or (2 in within and shape[2] > 1):
        i.refuse(node, f"it runs over the axes {axes}; only height and width are supported")
    kernel = (shape[0] if 0 in within else 1, shape[1] if 1 in within else 1)
    name, output = name_of(node), node.output[0]
    if node.op_type == "ReduceMax":
        i.builder.max_pool(name, view.tensor, output, kernel, kernel, (0, 0, 0, 0))
    elif node.op_type == "ReduceSum":
        if i.quantised:
            i.refuse(node, "a sum of integers; a mean is supported")
        mean = i.builder.fresh(f"{output}/mean")
        i.builder.average_pool(f"{name}/mean", view.tensor, mean, kernel, kernel)
        count = np.full(shape[2], float(kernel[0] * kernel[1]))
        i.builder.scaled(name, mean, output, count, np.zeros(shape[2]))
    else:
        i.builder.average_pool(name, view.tensor, output, kernel, kernel)
    keep = i.attributes(node).get("keepdims", 1)
    dims = [1 if k + 1 in axes else d for k, d in enumerate(view.dims) if keep or k + 1 not in axes]
    made = i.made(node, dims, view.order)
    if node.op_type == "ReduceMax":
        i.same_scale(made, view.tensor)
    else:
        _averaged(i, made, view.tensor, False)


def _transposed(i: Importer, node: Any) -> None:
    """A transposed convolution with weight (in, out, h, w)."""
    a, rank = i.attributes(node), len(i.view(node).dims)
    source = i.plane(node)
    weight, bias, arrays = integers.layer(i, node, source, 1)
    if weight.ndim != rank + 1 or rank not in (2, 3) or a.get("group", 1) != 1 or "zero" in (arrays or {}):
        i.refuse(node, f"a kernel of {weight.ndim - 2} dimensions, groups, or weights with a zero point")
    weight = weight.reshape(*weight.shape, 1) if weight.ndim == 3 else weight
    kernel, stride = (weight.shape[2], weight.shape[3]), _pair(a.get("strides", (1, 1)))
    if set(a.get("dilations", (1,))) != {1} or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        i.refuse(node, "a dilation, or padding by name")
    given = [int(p) for p in a.get("pads", [0] * 2 * (rank - 1))]
    first, last = _pair(given[: rank - 1], 0), _pair(given[rank - 1 :], 0)
    more, before = _pair(a.get("output_padding", (0, 0)), 0), i.builder.shape(source)
    whole = [(before[k] - 1) * stride[k] + kernel[k] - first[k] - last[k] + more[k] for k in range(2)]
    wanted = [int(n) for n in a.get("output_shape", whole[: rank - 1])][-(rank - 1) :]
    if wanted != whole[: rank - 1]:
        i.refuse(node, f"an output of {wanted} where its pads give {whole}")
    i.builder.transposed_convolution(
        name_of(node),
        source,
        node.output[0],
        weight.transpose(1, 2, 3, 0),
        bias,
        stride,
        first,
        (whole[0], whole[1]),
        integers.ahead(i, node.output[0]),
        arrays,
    )
    i.made_plane(node, rank)


# --- linear layers ---


def _gemm(i: Importer, node: Any) -> None:
    a, view = i.attributes(node), i.view(node)
    alpha, beta = float(a.get("alpha", 1.0)), float(a.get("beta", 1.0))
    if a.get("transA", 0) or len(view.dims) != 1 or (i.quantised and (alpha, beta) != (1.0, 1.0)):
        i.refuse(node, f"transA, {len(view.dims) + 1} axes, or factors between integers")
    transposed = bool(a.get("transB", 0))
    _linear(i, node, 0 if transposed else 1, alpha, beta)


def _matmul(i: Importer, node: Any) -> None:
    if i.given(node, 1) not in i.constants:
        i.refuse(node, "neither factor is a constant, or only the first is")
    _linear(i, node, 1)


def _linear(i: Importer, node: Any, outputs: int, alpha: float = 1.0, beta: float = 1.0) -> None:
    """A weight of two axes over a vector, or over every pixel of channel-last values."""
    view = i.view(node)
    shape = i.builder.shape(view.tensor)
    run = running(view.order, shape)
    rows = run == running(ROWS, shape)
    vector = len(view.dims) == 1
    source = view.tensor
    if vector and (max(shape[:2]) > KERNEL_MAX or not (rows or run == running(CHANNELS_FIRST, shape))):
        source, rows = i.laid(view, (1, 1, math.prod(view.dims)), ROWS), True
    elif not vector:
        source, view = _channels_last(i, node, view)
    weight, bias, arrays = integers.layer(i, node, source, outputs)
    if weight.ndim != 2:
        i.refuse(node, f"a weight of {weight.shape}")
    weight = weight if outputs == 0 else weight.T
    if arrays is None:
        weight, bias = weight * np.float32(alpha), None if bias is None else bias * np.float32(beta)
    activation, output = integers.fused(i, node)
    if vector:
        i.builder.linear(
            name_of(node),
            source,
            output,
            weight,
            bias,
            channels_first=not rows,
            activation=activation,
            arrays=arrays,
        )
    else:
        i.builder.convolution(
            name_of(node), source, output, weight[:, None, None], bias, activation=activation, arrays=arrays
        )
    i.made(node, (*view.dims[:-1], len(weight)), ROWS if vector else view.order, output)


def _channels_last(i: Importer, node: Any, view: View) -> tuple[str, View]:
    """A tensor whose channels are the last of the ONNX axes."""
    axes = i.axes(view)
    if axes is not None and axes[-1:] == (2,):
        return view.tensor, view
    if not 2 <= len(view.dims) <= 3:
        i.refuse(node, f"an input of {len(view.dims) + 1} axes")
    tensor = i.laid(view, (view.dims[0], view.dims[1] if len(view.dims) == 3 else 1, view.dims[-1]), ROWS)
    return tensor, replace(view, tensor=tensor, order=ROWS)


# --- element by element ---


def _batch_norm(i: Importer, node: Any) -> None:
    view = i.view(node)
    view = replace(view, tensor=i.plane(node), order=CHANNELS_FIRST)
    gamma, beta, mean, variance = (i.constant(node, name).astype(np.float64) for name in node.input[1:5])
    a = i.attributes(node)
    if a.get("training_mode", 0):
        i.refuse(node, "it is in training mode")
    epsilon = a.get("epsilon", 1e-5)
    if i.quantised:
        scale = gamma / np.sqrt(variance + epsilon)
        integers.affine(i, node, view, scale, beta - mean * scale)
        return
    statistics = (gamma, beta, mean, variance)
    i.builder.batch_norm(name_of(node), view.tensor, node.output[0], statistics, epsilon)  # type: ignore[arg-type]
    i.made(node, view.dims, view.order)


def _two(i: Importer, node: Any) -> None:
    """A sum, difference, product or quotient; one side may be a constant."""
    constant = [name in i.constants for name in node.input[:2]]
    if any(constant):
        _affine(i, node, constant.index(True))
        return
    if node.op_type == "Div":
        i.refuse(node, "neither side is a constant")
    a, b = i.view(node, 0), i.view(node, 1)
    if a.dims == b.dims:
        first, second = a.tensor, i.laid(b, i.builder.shape(a.tensor), a.order)
        dims, order = a.dims, a.order
    else:
        dims = np.broadcast_shapes(a.dims, b.dims)
        if len(a.dims) != len(b.dims) or dims not in (a.dims, b.dims):
            i.refuse(node, f"tensors of {a.dims} and {b.dims}")
        first, second, order = i.plane(node, 0), i.plane(node, 1), CHANNELS_FIRST
    activation, output = integers.fused(i, node)
    combine = {"Add": i.builder.add, "Sub": i.builder.difference, "Mul": i.builder.mul}[node.op_type]
    combine(name_of(node), first, second, output, activation)
    i.made(node, dims, order, output)


def _affine(i: Importer, node: Any, position: int) -> None:
    """The other side is a factor or summand of every channel."""
    view, constant = i.view(node, 1 - position), i.constant(node, node.input[position]).astype(np.float64)
    factors = _per_channel(i, view, constant)
    if factors is None and canonical(view.dims) is not None:
        view = replace(view, tensor=i.plane(node, 1 - position), order=CHANNELS_FIRST)
        factors = _per_channel(i, view, constant)
    if factors is None:
        i.refuse(node, f"a constant of {constant.shape} for {view.dims} is not one number per channel")
    if node.op_type == "Div" and position == 0:
        i.refuse(node, "a constant is divided")
    ones, zeros = np.ones_like(factors), np.zeros_like(factors)
    if node.op_type in ("Add", "Sub"):
        sign = -1.0 if node.op_type == "Sub" else 1.0
        scale, shift = (-ones, factors) if sign < 0 and position == 0 else (ones, sign * factors)
    else:
        with np.errstate(divide="ignore"):  # verify() names the node that holds an infinite factor
            scale, shift = (factors if node.op_type == "Mul" else ones / factors), zeros
    if i.quantised:
        integers.affine(i, node, view, scale, shift)
        return
    statistics = (scale, shift, zeros, ones)
    i.builder.batch_norm(name_of(node), view.tensor, node.output[0], statistics, 0.0)  # type: ignore[arg-type]
    i.made(node, view.dims, view.order)


def _per_channel(i: Importer, view: View, constant: NDArray[Any]) -> NDArray[Any] | None:
    """A constant as one number per channel of the IR's tensor; None: it differs from pixel to pixel."""
    try:
        full = np.broadcast_to(constant, (1, *view.dims))
    except ValueError:
        return None
    shape = i.builder.shape(view.tensor)
    pixels = full.reshape([shape[axis] for axis in view.order]).transpose(np.argsort(view.order))
    same = (pixels == pixels[:1, :1]) | (np.isnan(pixels) & np.isnan(pixels[:1, :1]))
    return np.array(pixels[0, 0]) if same.all() else None


def _limit(i: Importer, node: Any) -> None:
    """The larger or smaller of tensors of one shape, or of a tensor and one number."""
    upper = node.op_type == "Min"
    numbers = [i.constants[name] for name in node.input if name in i.constants]
    views = [i.view(node, k) for k, name in enumerate(node.input) if name not in i.constants]
    if any(number.size != 1 for number in numbers) or any(view.dims != views[0].dims for view in views):
        i.refuse(node, "only tensors of one shape and single numbers are compared")
    laid = [replace(v, tensor=i.laid(v, i.builder.shape(views[0].tensor), views[0].order)) for v in views]
    tensors = integers.one_scale(i, node, laid) if len(laid) > 1 else (laid[0].tensor,)
    tensor, output = tensors[0], node.output[0]
    for k, other in enumerate(tensors[1:]):
        last = k == len(tensors) - 2 and not numbers
        made = output if last else i.builder.fresh(f"{output}/{k}")
        (i.builder.smaller if upper else i.builder.larger)(f"{name_of(node)}/{k}", tensor, other, made)
        tensor = made
    if numbers:
        limit = (min if upper else max)(float(number.item()) for number in numbers)
        low, high = (-math.inf, limit) if upper else (limit, math.inf)
        between = i.builder.fresh(f"{output}/all")
        i.views[between] = replace(views[0], tensor=tensor)
        part = onnx.helper.make_node(node.op_type, [between], [output], name_of(node))
        integers.function(i, part, "clip", low, high, lambda x: np.clip(x, low, high))
        return
    i.same_scale(i.made(node, views[0].dims, views[0].order), *tensors)


def _clip(i: Importer, node: Any) -> None:
    low, high = integers.bounds(i, node)
    integers.function(i, node, "clip", low, high, lambda x: np.clip(x, low, high))


def _leaky(i: Importer, node: Any) -> None:
    alpha = float(i.attributes(node).get("alpha", 0.01))
    if not 0.0 <= alpha <= 1.0:
        i.refuse(node, f"a slope of {alpha}")
    slope = np.float32(alpha)
    integers.function(i, node, "leaky_relu", alpha, exact=lambda x: np.where(x < 0, slope * x, x))


def _prelu(i: Importer, node: Any) -> None:
    """Slopes for the channels, or one for all."""
    view, slope = i.view(node), i.constant(node, node.input[1]).astype(np.float64)
    if slope.size == 1:
        alpha = slope.item()
        integers.function(i, node, "leaky_relu", alpha, exact=lambda x: np.where(x < 0, np.float32(alpha) * x, x))
        return
    view = replace(view, tensor=i.plane(node), order=CHANNELS_FIRST)
    slopes = _per_channel(i, view, slope)
    if slopes is None:
        i.refuse(node, f"slopes of {slope.shape} for {view.dims}")
    known, wanted = i.builder.quant(view.tensor), integers.ahead(i, node.output[0])
    i.builder.emit(name_of(node), "prelu", PRelu(tuple(slopes.tolist())), (view.tensor,), node.output[0])
    tensor = i.made(node, view.dims, view.order)
    if known is not None and wanted is not None:
        i.settle(tensor, wanted)


def _function(kind: str, **required: float | bytes) -> Handler:
    """A function whose attributes, if any, must be these."""

    def handler(i: Importer, node: Any) -> None:
        a = i.attributes(node)
        for name, value in required.items():
            given = a.get(name, DEFAULTS.get((node.op_type, name), value))
            if given != value and (isinstance(value, bytes) or abs(given - value) > 1e-4):
                i.refuse(node, f"{name} is {given!r}; only {value!r} is supported")
        integers.function(i, node, kind)

    return handler


def _softmax(i: Importer, node: Any) -> None:
    view = i.view(node)
    rank, a = len(view.dims) + 1, i.attributes(node)
    axis = int(a.get("axis", 1 if i.opset < 13 else -1)) % rank
    size = math.prod(view.dims)
    over = math.prod(view.dims[axis - 1 :]) if i.opset < 13 else (1, *view.dims)[axis]
    if axis == 0 or over != size:
        i.refuse(node, f"a softmax over axis {axis} of {view.dims}")
    i.builder.softmax(name_of(node), i.laid(view, (1, 1, size), ROWS), node.output[0])
    tensor = i.made(node, view.dims, ROWS)
    if i.quantised:
        integers.softmax_scale(i, tensor)


def _gelu(i: Importer, node: Any) -> None:
    kinds = {b"none": "gelu", b"tanh": "gelu_tanh"}
    kind = i.attributes(node).get("approximate", b"none")
    if kind not in kinds:
        i.refuse(node, f"approximate is {kind!r}")
    integers.function(i, node, kinds[kind])


def _last(name: str) -> Handler:
    """An operation that is left out at the network's end."""

    def handler(i: Importer, node: Any) -> None:
        view = i.view(node)
        default = 0 if name == "argmax" else (1 if i.opset < 13 else -1)
        axis = int(i.attributes(node).get("axis", default)) % (len(view.dims) + 1)
        if node.output[0] != i.output or axis == 0 or (1, *view.dims)[axis] != math.prod(view.dims):
            i.refuse(node, "it is supported at the network's end alone, over the classes of a vector")
        i.builder.leave_out(name_of(node), name, view.tensor, node.output[0])
        i.views[node.output[0]] = view

    return handler


DEFAULTS: Mapping[tuple[str, str], float | bytes] = {("HardSigmoid", "alpha"): 0.2, ("Elu", "alpha"): 1.0}
AFFINE = ("batch_norm", "depthwise", "conv2d")
"""A factor and summand for each channel: of real numbers, of integers, of integers with one channel."""
HANDLERS: Mapping[str, Row[Importer, [Any]]] = {
    "Conv": row(_conv, "conv2d", "depthwise"),
    "Gemm": row(_gemm, "conv2d"),
    "MatMul": row(_matmul, "conv2d"),
    "BatchNormalization": row(_batch_norm, *AFFINE),
    "Add": row(_two, "add", *AFFINE),
    "Sub": row(_two, "add", "neg", *AFFINE),
    "Mul": row(_two, "mul", *AFFINE),
    "Div": row(_two, *AFFINE),
    "AveragePool": row(_pool, "average_pool", "move"),
    "MaxPool": row(_pool, "max_pool"),
    "GlobalAveragePool": row(_global_pool, "average_pool"),
    "GlobalMaxPool": row(_global_pool, "max_pool"),
    "ReduceMean": row(_reduce, "average_pool"),
    "ReduceMax": row(_reduce, "max_pool"),
    "ReduceSum": row(_reduce, "average_pool", "batch_norm"),
    "ConvTranspose": row(_transposed, "conv2d", "concat", "move"),
    "Max": row(_limit, "clip", "concat", "max_pool", "identity"),
    "Min": row(_limit, "clip", "concat", "max_pool", "neg", "identity"),
    "Relu": row(_clip, "clip"),
    "Clip": row(_clip, "clip"),
    "LeakyRelu": row(_leaky, "leaky_relu"),
    "PRelu": row(_prelu, "prelu", "leaky_relu"),
    "HardSwish": row(_function("hard_swish"), "hard_swish"),
    "HardSigmoid": row(_function("hard_sigmoid", alpha=HARD_SIGMOID[0], beta=HARD_SIGMOID[1]), "hard_sigmoid"),
    "Sigmoid": row(_function("sigmoid"), "sigmoid"),
    "Tanh": row(_function("tanh"), "tanh"),
    "Elu": row(_function("elu", alpha=1.0), "elu"),
    "Gelu": row(_gelu, "gelu", "gelu_tanh"),
    "Selu": row(_function("selu", alpha=SELU[0], gamma=SELU[1]), "selu"),
    "Softplus": row(_function("softplus"), "softplus"),
    "Mish": row(_function("mish"), "mish"),
    "Abs": row(_function("abs"), "abs"),
    "Neg": row(_function("neg"), "neg"),
    "Exp": row(_function("exp"), "exp"),
    "Softmax": row(_softmax, "softmax"),
    "LogSoftmax": row(_last("log_softmax"), gone="end"),
    "ArgMax": row(_last("argmax"), gone="end"),
    "SpaceToDepth": row(moves.space_to_depth, "move", "concat"),
    "DepthToSpace": row(moves.depth_to_space, "move", "concat"),
    "Identity": row(moves.identity, gone="name"),
    "Dropout": row(moves.dropout, gone="name"),
    "Cast": row(moves.cast, gone="name"),
    "Reshape": row(moves.reshape, gone="reading"),
    "Flatten": row(moves.flatten, gone="reading"),
    "Squeeze": row(moves.squeeze, gone="reading"),
    "Unsqueeze": row(moves.unsqueeze, gone="reading"),
    "Transpose": row(moves.transpose, gone="reading"),
    "Concat": row(moves.concat, "concat", "identity"),
    "Slice": row(moves.part_of, "move"),
    "Split": row(moves.split, "move"),
    "Pad": row(moves.pad, "move"),
    "Resize": row(moves.resize, "move"),
    "Upsample": row(moves.resize, "move"),
    "Shape": row(moves.shape_of, gone="size"),
    "QuantizeLinear": row(integers.quantize, "identity", gone="scale"),
    "DequantizeLinear": row(integers.dequantize, gone="scale"),
    "QLinearConv": row(integers.on_integers, "conv2d", "depthwise"),
    "QGemm": row(integers.on_integers, "conv2d"),
    "QLinearMatMul": row(integers.on_integers, "conv2d"),
    "QLinearAdd": row(integers.on_integers, "add", "depthwise", "conv2d"),
    "QLinearMul": row(integers.on_integers, "mul", "depthwise", "conv2d"),
    "QLinearAveragePool": row(integers.on_integers, "average_pool", "move", "identity"),
    "QLinearGlobalAveragePool": row(integers.on_integers, "average_pool", "identity"),
    "QLinearReduceMean": row(integers.on_integers, "average_pool", "identity"),
    "QLinearLeakyRelu": row(integers.on_integers, "leaky_relu"),
    "QLinearSigmoid": row(integers.on_integers, "sigmoid"),
    "QLinearSoftmax": row(integers.on_integers, "softmax"),
    "QLinearConcat": row(integers.on_integers, "concat", "identity"),
}
assert integers.PARTS.keys() <= HANDLERS.keys()
SUPPORTED = tuple(HANDLERS)


def load(path: Path, output: str = "") -> Imported:
    """Reads an ONNX file. Raises ModelError, or UnsupportedOpError naming the node that blocks."""
    return load_with_ends(path, output)[0]


def load_with_ends(path: Path, output: str = "") -> tuple[Imported, Importer]:
    """An ONNX file, and the importer, which knows how the file's ends lie in the IR. Raises ModelError."""
    model = read(path)
    with files.boundary(ModelError, f"'{path}' is not a sound ONNX file", AGAIN):
        importer = Importer(path, model, HANDLERS, output)
        return importer.run(), importer
