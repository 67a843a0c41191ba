# SPDX-License-Identifier: Apache-2.0
"""The IR to TFLite files: float32, int8, or uint8 where the network came from a uint8 file.

A quantised file makes TFLite's reference kernels compute the device's integers bit for bit; what they
would compute otherwise is refused. TFLite stores scales in binary32, so a network must have such scales.
A layer whose window covers its input becomes FULLY_CONNECTED where its multipliers are those of that
operator. Vectors are of rank 2 where an operator makes them so, and at the network's ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate.arithmetic.functions import Function
from medyate.arithmetic.scheme import QMAX, QMIN, UINT8_SHIFT, Integers
from medyate.arithmetic.tflite_kernels import (
    CLAMPS,
    RESULTS,
    affine_multipliers,
    bounds_in_binary32,
    product_differences,
    same_pairs,
    table_differences,
)
from medyate.artefact import write_bytes
from medyate.export import ExportError
from medyate.export.flatfile import Options, Steps
from medyate.export.tflite_graph import Writer
from medyate.ir import Graph, Node, QGraph, Quant, Shape, Weights
from medyate.ops import OPS
from medyate.ops._pool import PoolAttrs
from medyate.ops._spatial import Pads, Pair
from medyate.ops.concat import Concat
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.ops.move import Move
from medyate.ops.offset import Offset
from medyate.ops.prelu import PRelu, slope_steps
from medyate.ops.softmax import Softmax
from medyate.quantize.apply import integers

GROUPED = 6
"""Version of a CONV_2D whose filter has fewer input channels than its input."""
FUNCTIONS: Mapping[str, str] = {
    "gelu": "GELU",
    "gelu_tanh": "GELU",
    "exp": "EXP",
    "abs": "ABS",
    "identity": "QUANTIZE",
    "leaky_relu": "LEAKY_RELU",
    "hard_swish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
    "tanh": "TANH",
}
REAL_FUNCTIONS: Mapping[str, str] = {"neg": "NEG", "square": "SQUARE"}
"""Of real numbers alone."""


def _same_pads(extent: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    totals = [
        max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        for size, k, s, d in zip(extent, kernel, stride, dilation, strict=False)
    ]
    top, left = (total // 2 for total in totals)
    return top, left, totals[0] - top, totals[1] - left


def _padding(w: Writer, node: Node, pads: Pads, kernel: Pair, stride: Pair, dilation: Pair) -> int | None:
    """TFLite's name for the pads; None: it has none."""
    if not any(pads):
        return int(tflite.Padding.VALID)
    same = _same_pads(w.graph.shapes[node.inputs[0]][:2], kernel, stride, dilation)
    return int(tflite.Padding.SAME) if pads == same else None


def _padded(w: Writer, node: Node, pads: Pads, fill: NDArray[Any] | None = None) -> int:
    """The node's input with pixels around it: zeros, or `fill`."""
    name = node.inputs[0]
    height, width, channels = w.graph.shapes[name]
    top, left, bottom, right = pads
    shape = (height + top + bottom, width + left + right, channels)
    output = w.tensor(f"{node.output}/padded", name, shape)
    amounts = w.numbers(f"{node.output}/pads", [[0, 0], [top, bottom], [left, right], [0, 0]])
    if fill is None:
        w.emit("PAD", (w.given(name), amounts), output, Options("PadOptions", {}))
    else:
        value = w.file.constant(f"{node.output}/pad value", fill, w.steps(w.quant(name)))
        w.emit("PADV2", (w.given(name), amounts, value), output, Options("PadV2Options", {}))
    return output


def _constants(w: Writer, node: Node, facts: Integers | None, weight: NDArray[Any], axis: int) -> tuple[int, int]:
    """(weight, bias) of a layer as constants."""
    title = node.output
    if facts is None:
        bias = np.asarray(w.weights[node.weight_name("bias")], np.float32)
        return w.file.constant(f"{title}/weight", weight.astype(np.float32)), w.file.constant(f"{title}/bias", bias)
    scales = facts.arrays["scale"]
    _check_scales(f"the weight of '{node.name}'", scales)
    one = len(set(scales.tolist())) == 1
    kept = scales[:1] if one else scales
    zero = facts.weight_zero + (UINT8_SHIFT if w.kind == "uint8" else 0)
    if not one and zero != 0:
        raise w.refuse(node, "its weights have a zero point for every output channel")
    steps = Steps(tuple(kept.tolist()), (zero,) * len(kept), 0 if one else axis)
    units = kept * facts.inputs[0].scale
    bias = np.asarray(facts.arrays["bias"], np.int32)
    return (
        w.file.constant(f"{title}/weight", w.stored(weight.astype(np.int8)), steps),
        w.file.constant(f"{title}/bias", bias, Steps(tuple(units.tolist()), (0,) * len(kept))),
    )


def _covers(w: Writer, node: Node, a: Conv2d) -> bool:
    plain = Conv2d(a.channels, w.graph.shapes[node.inputs[0]][:2], activation=a.activation)
    return a == plain


def _conv2d(w: Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Conv2d)
    if facts is not None and "product" in facts.arrays:
        _product(w, node, facts)
        return
    channels = w.graph.shapes[node.inputs[0]][2]
    weight = np.asarray(w.weights[node.weight_name("weight")])
    if _covers(w, node, a) and (facts is None or _is_linear(w, facts)):
        _fully_connected(w, node, facts, weight)
        return
    if facts is not None and not same_pairs(facts, affine_multipliers(facts, in_binary32=w.kind == "uint8")):
        raise w.refuse(node, "TFLite would compute other multipliers from its scales")
    if a.groups == channels and a.groups > 1:
        more = {"DepthMultiplier": a.channels // a.groups}
        _windowed(w, node, facts, "DEPTHWISE_CONV_2D", weight.transpose(3, 1, 2, 0), 3, more)
    else:
        _windowed(w, node, facts, "CONV_2D", weight, 0, {}, GROUPED if a.groups > 1 else 0)


def _is_linear(w: Writer, facts: Integers) -> bool:
    """Whether the multipliers are rather FULLY_CONNECTED's, which multiplies scales in binary32, than CONV_2D's."""
    if len(set(facts.arrays["scale"].tolist())) != 1:
        return False
    linear, convolution = (affine_multipliers(facts, in_binary32=one) for one in (True, w.kind == "uint8"))
    if np.array_equal(facts.multipliers, linear):
        return True
    return same_pairs(facts, linear) and not same_pairs(facts, convolution)


def _fully_connected(w: Writer, node: Node, facts: Integers | None, weight: NDArray[Any]) -> None:
    constants = _constants(w, node, facts, weight.reshape(len(weight), -1), 0)
    options = Options("FullyConnectedOptions", {})
    w.fused(node, facts, "FULLY_CONNECTED", (w.given(node.inputs[0], None), *constants), options, rank=2)


def _windowed(
    w: Writer,
    node: Node,
    facts: Integers | None,
    kind: str,
    weight: NDArray[Any],
    axis: int,
    more: Mapping[str, int],
    version: int = 0,
) -> None:
    a = node.attrs
    assert isinstance(a, Conv2d | Depthwise)
    padding = _padding(w, node, a.pads, a.kernel, a.stride, a.dilation)
    source = w.given(node.inputs[0]) if padding is not None else _padded(w, node, a.pads)
    fields = {
        "Padding": tflite.Padding.VALID if padding is None else padding,
        "StrideH": a.stride[0],
        "StrideW": a.stride[1],
        "DilationHFactor": a.dilation[0],
        "DilationWFactor": a.dilation[1],
        **more,
    }
    table = "DepthwiseConv2DOptions" if kind == "DEPTHWISE_CONV_2D" else "Conv2DOptions"
    constants = _constants(w, node, facts, weight, axis)
    w.fused(node, facts, kind, (source, *constants), Options(table, fields), version=version)


def _product(w: Writer, node: Node, facts: Integers) -> None:
    """MUL with a constant, as it came."""
    steps = np.asarray(w.weights[node.weight_name("weight")]).reshape(-1).astype(np.int64) - facts.weight_zero
    scale = float(facts.arrays["scale"][0])
    x, y = (np.float32(quant.scale) for quant in (facts.inputs[0], facts.output))
    if facts.arrays["bias"].any() or not same_pairs(facts, np.full(len(steps), float(x * np.float32(scale) / y))):
        raise w.refuse(node, "its factors were trained")
    zero = min(max(0, QMIN - int(steps.min())), QMAX - int(steps.max()))
    constant = w.file.constant(
        f"{node.output}/factors", w.stored((steps + zero).astype(np.int8)), w.steps(Quant(scale, zero))
    )
    rank = w.rank(node.inputs[0])
    w.fused(node, facts, "MUL", (w.given(node.inputs[0], rank), constant), Options("MulOptions", {}), rank=rank)


def _depthwise(w: Writer, node: Node, facts: Integers | None) -> None:
    if facts is not None and "product" in facts.arrays:
        _product(w, node, facts)
        return
    if facts is not None and not same_pairs(facts, affine_multipliers(facts, in_binary32=w.kind == "uint8")):
        raise w.refuse(node, "TFLite would compute other multipliers from its scales")
    weight = np.asarray(w.weights[node.weight_name("weight")])
    _windowed(w, node, facts, "DEPTHWISE_CONV_2D", weight[None], 3, {"DepthMultiplier": 1})


def _two(w: Writer, node: Node, facts: Integers | None) -> None:
    kind, table = {"add": ("ADD", "AddOptions"), "mul": ("MUL", "MulOptions")}[node.op]
    if facts is not None and node.op == "mul":
        apart = product_differences(facts)
        if apart:
            raise w.refuse(node, f"TFLite would round {apart} products differently: its multiplier is binary32")
    rank = _common_rank(w, node)
    inputs = [w.given(name, rank) for name in node.inputs]
    w.fused(node, facts, kind, inputs, Options(table, {}), rank=rank)


def _offset(w: Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Offset)
    rank = w.rank(node.inputs[0])
    if facts is None:
        summands = w.file.constant(f"{node.output}/summands", np.array(a.real, np.float32))
        w.fused(node, facts, "ADD", (w.given(node.inputs[0], rank), summands), Options("AddOptions", {}), rank=rank)
        return
    _check_scales(f"the summands of '{node.name}'", a.scale)
    zero = min(max(0, QMIN - min(a.steps)), QMAX - max(a.steps))
    if min(a.steps) + zero < QMIN:
        raise w.refuse(node, "its summands do not fit 8 bits")
    numbers = w.stored((np.array(a.steps) + zero).astype(np.int8))
    constant = w.file.constant(f"{node.output}/summands", numbers, w.steps(Quant(a.scale, zero)))
    kind = "SUB" if a.minus else "ADD"
    inputs = (w.given(node.inputs[0], rank), constant)
    w.fused(node, facts, kind, inputs, Options(f"{kind.title()}Options", {}), rank=rank)


def _common_rank(w: Writer, node: Node) -> int:
    return max(w.rank(name) for name in node.inputs)


def _average_pool(w: Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, PoolAttrs)
    if facts is not None and "multiplier" in facts.arrays:
        _mean(w, node, facts, a)
        return
    origin = 0 if facts is None else int(facts.arrays.get("origin", 0))
    if facts is not None and origin != (-UINT8_SHIFT if w.kind == "uint8" else 0):
        raise w.refuse(node, "the files of its layers and of its pools round averages differently")
    padding = _padding(w, node, a.pads, a.kernel, a.stride, (1, 1))
    if padding is None:
        raise w.refuse(node, f"pads of {a.pads} that do not count in the average are neither SAME nor VALID")
    _pool(w, node, "AVERAGE_POOL_2D", w.given(node.inputs[0]), padding)


def _mean(w: Writer, node: Node, facts: Integers, a: PoolAttrs) -> None:
    extent = w.graph.shapes[node.inputs[0]][:2]
    over = [axis for axis in range(2) if a.kernel[axis] > 1]
    if any(a.kernel[axis] != extent[axis] for axis in over) or any(a.pads):
        raise w.refuse(node, "its average changes the scale, which only MEAN of whole axes does")
    if not same_pairs(facts, np.array([facts.inputs[0].scale / facts.output.scale])):
        raise w.refuse(node, "TFLite would compute another multiplier from its scales")
    axes = w.numbers(f"{node.output}/axes", [axis + 1 for axis in over] if a.kernel != extent else [1, 2])
    options = Options("ReducerOptions", {"KeepDims": True})
    w.emit("MEAN", (w.given(node.inputs[0]), axes), w.tensor(node.output, node.output), options)


def _max_pool(w: Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, PoolAttrs)
    padding = _padding(w, node, a.pads, a.kernel, a.stride, (1, 1))
    source = w.given(node.inputs[0]) if padding is not None else _padded(w, node, a.pads, _least(w, facts))
    _pool(w, node, "MAX_POOL_2D", source, tflite.Padding.VALID if padding is None else padding)


def _least(w: Writer, facts: Integers | None) -> NDArray[Any] | None:
    """A value that no maximum is smaller than; None: zero is one."""
    if facts is None:
        return np.array([np.finfo(np.float32).min], np.float32)
    return None if facts.inputs[0].zero == QMIN else w.stored(np.array([QMIN], np.int8))


def _pool(w: Writer, node: Node, kind: str, source: int, padding: int) -> None:
    a = node.attrs
    assert isinstance(a, PoolAttrs)
    fields = {
        "Padding": padding,
        "StrideH": a.stride[0],
        "StrideW": a.stride[1],
        "FilterHeight": a.kernel[0],
        "FilterWidth": a.kernel[1],
    }
    w.emit(kind, (source,), w.tensor(node.output, node.output), Options("Pool2DOptions", fields))


def _activation(w: Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Function)
    if a.kind == "neg" and facts is not None:
        _negative(w, node, facts)
        return
    if facts is not None:
        apart = None if w.kind == "uint8" and a.kind in RESULTS else table_differences(a, facts)
        if apart is None:
            raise w.refuse(node, f"TFLite has no {a.kind} of these scales")
        if apart:
            raise w.refuse(node, f"TFLite would compute {apart} of its 256 values differently")
    source = w.given(node.inputs[0], None)
    rank = w.rank(node.inputs[0])
    if a.kind == "clip":
        _clip(w, node, facts, source, rank)
        return
    known = FUNCTIONS if facts is not None else {**FUNCTIONS, **REAL_FUNCTIONS}
    if a.kind not in known or (a.kind == "identity" and facts is None):
        raise w.refuse(node, f"TFLite has no {a.kind}")
    options = {
        "identity": Options("QuantizeOptions", {}),
        "leaky_relu": Options("LeakyReluOptions", {"Alpha": a.low}),
        "hard_swish": Options("HardSwishOptions", {}),
        "gelu": Options("GeluOptions", {"Approximate": False}),
        "gelu_tanh": Options("GeluOptions", {"Approximate": True}),
    }
    w.emit(known[a.kind], (source,), w.tensor(node.output, node.output, rank=rank), options.get(a.kind))


def _negative(w: Writer, node: Node, facts: Integers) -> None:
    """MUL with -1, which turns int8 numbers around exactly where the zero point is that of the other end."""
    if not np.array_equal(facts.arrays["table"], -1 - np.arange(QMIN, QMAX + 1)):
        raise w.refuse(node, "TFLite would round its values")
    rank = w.rank(node.inputs[0])
    shift = UINT8_SHIFT if w.kind == "uint8" else 0
    number = w.file.constant(f"{node.output}/minus", w.stored(np.array([-1], np.int8)), Steps((1.0,), (shift,)))
    inputs = (w.given(node.inputs[0], None), number)
    w.emit("MUL", inputs, w.tensor(node.output, node.output, rank=rank), Options("MulOptions", {}))


def _prelu(w: Writer, node: Node, facts: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, PRelu)
    rank = w.rank(node.inputs[0])
    shape = (len(a.slopes),) if rank == 2 else (1, 1, len(a.slopes))
    title = f"{node.output}/slope"
    if facts is None:
        slopes = w.file.constant(title, np.reshape(np.array(a.slopes, np.float32), shape))
    else:
        if a.step and np.float32(a.step) != a.step:
            raise w.refuse(node, "the step of its slopes is no binary32 number")
        steps, step = slope_steps(a)
        zero = min(max(0, QMIN - min(steps)), QMAX - max(steps))
        if min(steps) + zero < QMIN:
            raise w.refuse(node, "its slopes do not fit 8 bits")
        numbers = w.stored(np.reshape(np.array(steps) + zero, shape).astype(np.int8))
        slopes = w.file.constant(title, numbers, Steps((step,), (zero + (UINT8_SHIFT if w.kind == "uint8" else 0),)))
    w.emit("PRELU", (w.given(node.inputs[0], None), slopes), w.tensor(node.output, node.output, rank=rank))


def _clip(w: Writer, node: Node, facts: Integers | None, source: int, rank: int) -> None:
    a = node.attrs
    assert isinstance(a, Function)
    if (a.low, a.high) in CLAMPS:
        w.emit(CLAMPS[a.low, a.high], (source,), w.tensor(node.output, node.output, rank=rank))
        return
    limits = (None if math.isinf(a.low) else a.low, None if math.isinf(a.high) else a.high)
    if facts is not None:
        least, most = bounds_in_binary32((a.low, a.high), facts.output)
        limits = (least, most)
        if facts.inputs[0] != facts.output:
            target = w.tensor(f"{node.output}/all", node.output, rank=rank)
            w.emit("QUANTIZE", (source,), target, Options("QuantizeOptions", {}))
            source = target
    w.clamp(node, source, limits)


def _concat(w: Writer, node: Node, _: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Concat)
    rank = 2 if a.axis == 2 and _common_rank(w, node) == 2 else 4
    fields = {"Axis": 1 if rank == 2 else a.axis + 1, "FusedActivationFunction": tflite.ActivationFunctionType.NONE}
    inputs = [w.given(name, rank) for name in node.inputs]
    options = Options("ConcatenationOptions", fields)
    w.emit("CONCATENATION", inputs, w.tensor(node.output, node.output, rank=rank), options)


def _move(w: Writer, node: Node, _: Integers | None) -> None:
    """TRANSPOSE, STRIDED_SLICE and PAD in this order, as far as they are needed; or an enlargement."""
    a = node.attrs
    assert isinstance(a, Move)
    name = node.inputs[0]
    shape = w.graph.shapes[name]
    if max(a.repeat) > 1:
        _enlarge(w, node, a)
        return
    chain: list[tuple[str, Shape, list[int], Options]] = []
    turned = (shape[a.axes[0]], shape[a.axes[1]], shape[a.axes[2]])
    if a.axes != (0, 1, 2):
        chain.append(("TRANSPOSE", turned, [0, *(axis + 1 for axis in a.axes)], Options("TransposeOptions", {})))
    inside = [[p for p in range(a.size[k]) if 0 <= a.source(k, p) < turned[k]] for k in range(3)]
    if not all(inside):
        raise w.refuse(node, "nothing of its input is left")
    taken = (len(inside[0]), len(inside[1]), len(inside[2]))
    first = [a.source(k, inside[k][0]) for k in range(3)]
    steps = [step if size > 1 else 1 for step, size in zip(a.step, taken, strict=True)]
    if 0 in steps:
        raise w.refuse(node, "it repeats one row or channel")
    if taken != turned or min(steps) < 0:
        chain.append(("STRIDED_SLICE", taken, [], _slice_options(first, steps, taken)))
    if a.size != taken:
        amounts = [0, 0]
        for k in range(3):
            amounts += [inside[k][0], a.size[k] - 1 - inside[k][-1]]
        chain.append(("PAD", a.size, amounts, Options("PadOptions", {})))
    source = w.given(name)
    for number, (kind, size, numbers, options) in enumerate(chain):
        last = number == len(chain) - 1
        output = w.tensor(node.output if last else f"{node.output}/{kind.lower()}", node.output, size)
        if kind == "STRIDED_SLICE":
            end = [f + s * n for f, s, n in zip(first, steps, taken, strict=True)]
            limits = {"begin": [0, *first], "end": [1, *end], "strides": [1, *steps]}
            extra = [w.numbers(f"{node.output}/{title}", values) for title, values in limits.items()]
        else:
            values = np.array(numbers).reshape(4, 2) if kind == "PAD" else numbers
            extra = [w.numbers(f"{node.output}/{kind.lower()} by", values)]
        w.emit(kind, (source, *extra), output, options)
        source = output


def _slice_options(first: Sequence[int], steps: Sequence[int], taken: Sequence[int]) -> Options:
    """An end below zero would count from the back: the mask says 'to the last one'."""
    ends = [f + s * n for f, s, n in zip(first, steps, taken, strict=True)]
    mask = sum(1 << (k + 1) for k, end in enumerate(ends) if end < 0)
    return Options("StridedSliceOptions", {"BeginMask": 0, "EndMask": mask})


def _enlarge(w: Writer, node: Node, a: Move) -> None:
    """Pixel centres at halves: no quotient of sizes then falls below the number that it should be."""
    if a.repeat[2] > 1:
        raise w.refuse(node, "it enlarges channels")
    size = w.numbers(f"{node.output}/size", a.size[:2])
    options = Options("ResizeNearestNeighborOptions", {"AlignCorners": False, "HalfPixelCenters": True})
    output = w.tensor(node.output, node.output)
    w.emit("RESIZE_NEAREST_NEIGHBOR", (w.given(node.inputs[0]), size), output, options)


def _reshape(w: Writer, node: Node, _: Integers | None) -> None:
    vector = w.graph.shapes[node.output][:2] == (1, 1)
    output = w.tensor(node.output, node.output, rank=2 if vector else 4)
    w.reshape(w.given(node.inputs[0], None), output)


def _softmax(w: Writer, node: Node, _: Integers | None) -> None:
    a = node.attrs
    assert isinstance(a, Softmax)
    rank = 2 if w.graph.shapes[node.output][:2] == (1, 1) else 4
    source = w.given(node.inputs[0], rank)
    w.emit(
        "SOFTMAX", (source,), w.tensor(node.output, node.output, rank=rank), Options("SoftmaxOptions", {"Beta": a.beta})
    )


def _batch_norm(w: Writer, node: Node, _: Integers | None) -> None:
    raise w.refuse(node, "batch norms are folded first", "Run passes.pipeline.simplify on the network.")


HANDLERS: Mapping[str, Callable[[Writer, Node, Integers | None], None]] = {
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "add": _two,
    "mul": _two,
    "offset": _offset,
    "average_pool": _average_pool,
    "max_pool": _max_pool,
    "activation": _activation,
    "prelu": _prelu,
    "concat": _concat,
    "move": _move,
    "reshape": _reshape,
    "softmax": _softmax,
    "batch_norm": _batch_norm,
}
assert HANDLERS.keys() == OPS.keys()


def _check_scales(what: str, scales: Any) -> None:
    """Raises ExportError for scales that TFLite's binary32 would change, and with them the multipliers."""
    values = np.asarray(scales, np.float64)
    if not np.array_equal(values.astype(np.float32).astype(np.float64), values):
        raise ExportError(
            f"the scale of {what} is not exact in binary32, in which TFLite stores scales.",
            "Round every scale to binary32 before the multipliers are made; quantising again does so.",
        )


def _file(graph: Graph, weights: Weights, qgraph: QGraph | None) -> bytes:
    w = Writer(graph, weights, qgraph)
    source = w.begin()
    for index, node in enumerate(graph):
        HANDLERS[node.op](w, node, None if qgraph is None else integers(qgraph, weights, index))
    return w.finish(source)


def write(qgraph: QGraph, weights: Weights, path: Path) -> None:
    """Writes a quantised network. Raises ExportError for what TFLite computes otherwise."""
    if qgraph.rounds_once:
        raise ExportError(
            "the network rounds a product once, TFLite's reference kernels twice.",
            "Compile it with --rounding twice, or write it to an .onnx file.",
        )
    for name, quant in qgraph.quants:
        _check_scales(f"tensor '{name}'", quant.scale)
    write_bytes(path, _file(qgraph.graph, weights, qgraph))


def write_real(graph: Graph, weights: Weights, path: Path) -> None:
    """Writes a network of real numbers, batch norms folded. Raises ExportError for what TFLite has not."""
    write_bytes(path, _file(graph, weights, None))
