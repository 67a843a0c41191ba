# SPDX-License-Identifier: Apache-2.0
"""Collects a network, one operation at a time, into the IR.

The builder speaks the IR's layout, (H, W, C); frontends of channel-first formats turn their weights
around. What they flatten stays what it was, and the linear layer behind it becomes a convolution whose
window covers it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.functions import Function
from medyate.errors import GraphError, ModelError, UnsupportedOpError
from medyate.ir import Activation, Attrs, Graph, Imported, Node, QGraph, Quant, Shape, Weights, elements
from medyate.ops import OPS
from medyate.ops._spatial import KERNEL_MAX, Pads, Pair
from medyate.ops.add import Add
from medyate.ops.average_pool import AveragePool
from medyate.ops.before_quantisation import BatchNorm
from medyate.ops.concat import Concat
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.ops.max_pool import MaxPool
from medyate.ops.move import Move, Triple, compose, identity
from medyate.ops.mul import Mul
from medyate.ops.reshape import Reshape
from medyate.ops.softmax import Softmax
from medyate.quantize.apply import add_constants, bias_limit, large_biases, named_channels
from medyate.validate import validate

EXTENT_MAX = 65535
"""Heights, widths and channels are 16 bits wide on the device."""

NAME_MAX = 1000
"""Letters of a name, the last ones: archives refuse names of 64 KiB."""

LAYOUT = frozenset({"move", "reshape"})
"""What is put in front of any operation that needs its values elsewhere."""

Array = NDArray[np.float32]
REAL_ROLES: dict[str, type[np.generic]] = dict.fromkeys(("weight", "bias", "scale", "shift"), np.floating)
INTEGER_ROLES: dict[str, type[np.generic]] = {"weight": np.int8, "bias": np.int32}
"""Types of the arrays of a network of real numbers, and of a quantised one."""


def made(op: str, attrs: Attrs) -> str:
    """What the tables of the frontends call an operation of the IR: activations go by their function."""
    return attrs.kind if isinstance(attrs, Function) else op


def printable(names: Iterable[str]) -> dict[str, str]:
    """Names as terminals, archives and pictures can hold them; those that already are one stay as they are."""
    given = list(names)
    taken = set(given)
    found = {}
    for name in given:
        plain = name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)
        plain = plain[-NAME_MAX:]
        while plain != name and plain in taken:
            plain += "'"
        taken.add(plain)
        found[name] = plain
    return found


def triple(values: Iterable[int]) -> Triple:
    """Three whole numbers."""
    height, width, channels = (int(value) for value in values)
    return height, width, channels


class GraphBuilder:
    """Collects nodes; `finish` checks them and gives the network."""

    def __init__(self, name: str, input_name: str, shape: Shape, supported: tuple[str, ...]) -> None:
        self.name = name
        self.input = input_name
        self.supported = supported
        self._nodes: list[Node] = []
        self._shapes: dict[str, Shape] = {input_name: shape}
        self._weights: dict[str, NDArray[Any]] = {}
        self._quants: dict[str, Quant] = {}
        self.notes: list[str] = []
        self.rounds_once = False  # see QGraph
        self._alias: dict[str, str] = {}
        self._declared: frozenset[str] | None = None
        self.taken: set[str] = set()
        """Names of the file's own tensors, which may still be made."""

    @contextmanager
    def reading(self, makes: frozenset[str]) -> Iterator[None]:
        """While it lasts, only these are taken: what the format's table says that an operation becomes."""
        before = self._declared
        self._declared = makes if before is None or makes is LAYOUT else makes & before
        try:
            yield
        finally:
            self._declared = before

    def refuse(self, node: str, op: str, why: str) -> UnsupportedOpError:
        """The error for a node that cannot be imported."""
        return UnsupportedOpError(node, op, why, self.supported)

    def tensor(self, name: str) -> str:
        """The tensor behind a name, aliases resolved. Raises ModelError for an unknown one."""
        name = self._alias.get(name, name)
        if name not in self._shapes:
            raise ModelError(f"tensor '{name}' is used before anything makes it.", "Export the model again.")
        return name

    def shape(self, name: str) -> Shape:
        """(H, W, C) of a tensor."""
        return self._shapes[self.tensor(name)]

    def fresh(self, title: str) -> str:
        """A name for a tensor that the importer adds: none of the file's has it."""
        while title in self.taken:
            title += "_"
        self.taken.add(title)
        return title

    def alias(self, output: str, source: str) -> None:
        """`output` is `source` under another name."""
        self._alias[output] = self.tensor(source)

    def quantise(self, name: str, quant: Quant) -> None:
        """Notes a tensor's scale and zero point; values move between two names of a tensor unchanged."""
        self._quants[self.tensor(name)] = quant

    def quant(self, name: str) -> Quant | None:
        """A tensor's scale and zero point, if it has any."""
        return self._quants.get(self.tensor(name))

    def bias(self, node: str, steps: NDArray[Any], taps: int, weight_zero: int = 0) -> NDArray[np.int32]:
        """A bias that came as integers, kept where no accumulator can overflow; what that changed is noted."""
        large = large_biases(steps, taps, weight_zero, f"'{node}'")
        if large:
            self.notes.append(
                f"'{node}': {len(large)} biases were clamped, so that 32 bits cannot overflow ({named_channels(large)})"
            )
        room = bias_limit(taps, weight_zero)
        clamped: NDArray[np.int32] = np.clip(steps, -room, room).astype(np.int32)
        return clamped

    def emit(
        self,
        node: str,
        op: str,
        attrs: Attrs,
        inputs: tuple[str, ...],
        output: str,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """One node of the IR; arrays are float32, or in a quantised network what they are there."""
        names = tuple(self.tensor(name) for name in inputs)
        base = node or output
        unique = base
        taken = {existing.name for existing in self._nodes}
        while unique in taken:
            unique += "_"
        if self._declared is not None and made(op, attrs) not in self._declared:
            raise self.refuse(unique, made(op, attrs), "the table of its format does not say that it becomes one")
        try:
            shape = OPS[op].shape(attrs, tuple(self._shapes[name] for name in names))
        except GraphError as error:
            raise self.refuse(unique, op, error.what.rstrip(".")) from error
        if output in self._shapes or output in self._alias:
            raise ModelError(f"tensor '{output}' is made twice.", "Export the model again.")
        if max(shape) > EXTENT_MAX:
            raise self.refuse(unique, op, f"a tensor of {shape} is wider than {EXTENT_MAX}")
        self._shapes[output] = shape
        self._nodes.append(Node(unique, op, names, output, attrs))
        for role, array in (arrays or {}).items():
            kept = np.asarray(array)
            kept = kept.astype(np.float32) if kept.dtype.kind == "f" and role in ("weight", "bias") else kept
            self._weights[f"{unique}.{role}"] = np.require(kept, requirements="C")

    def convolution(
        self,
        node: str,
        source: str,
        output: str,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        stride: Pair = (1, 1),
        pads: Pads = (0, 0, 0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        activation: Activation = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """A convolution with weight (out, kh, kw, in / groups): dense, grouped or depthwise.

        `arrays` are what a quantised network brings along: 'scale', 'zero', 'multiplier'.
        """
        out_channels, kh, kw, per_group = weight.shape
        source, pads = self._behind_pads(source, pads)
        channels = self.shape(source)[2]
        if kh > KERNEL_MAX or kw > KERNEL_MAX:
            raise self.refuse(node, "convolution", f"a window of {kh} x {kw} is above {KERNEL_MAX}")
        if bias is not None and np.shape(bias) != (out_channels,):
            raise self.refuse(node, "convolution", f"a bias of {np.shape(bias)} for {out_channels} outputs")
        if min(*stride, *dilation) < 1 or min(pads) < 0 or max(*stride, *dilation, *pads) > 255:
            raise self.refuse(node, "convolution", f"stride {stride}, dilation {dilation}, pads {pads}")
        if groups < 1 or per_group * groups != channels or out_channels % groups:
            why = f"{groups} groups of {per_group} input channels, from {channels} to {out_channels}"
            raise self.refuse(node, "convolution", why)
        full_bias = np.zeros(out_channels, np.float32) if bias is None else bias
        own = {"weight": weight, "bias": full_bias, **(arrays or {})}
        if groups == channels == out_channels and channels > 1:
            attrs: Attrs = Depthwise((kh, kw), stride, dilation, pads, activation)
            own["weight"] = weight[..., 0].transpose(1, 2, 0)
            self.emit(node, "depthwise", attrs, (source,), output, own)
        else:
            attrs = Conv2d(out_channels, (kh, kw), stride, dilation, pads, activation, groups)
            self.emit(node, "conv2d", attrs, (source,), output, own)

    def _behind_pads(self, source: str, pads: Pads) -> tuple[str, Pads]:
        """What lies behind zeros around a map, and the pads that stand for them."""
        inner = next((n for n in self._nodes if n.output == self.tensor(source)), None)
        if inner is None or not isinstance(inner.attrs, Move):
            return source, pads
        move, (height, width, channels) = inner.attrs, self.shape(inner.inputs[0])
        top, left, front = (-start for start in move.start)
        around = (top, left, move.size[0] - height - top, move.size[1] - width - left)
        plain = replace(move, size=(height, width, channels), start=(0, 0, 0)) == Move((height, width, channels))
        if not plain or front or move.size[2] != channels or min(around) < 0:
            return source, pads
        top, left, bottom, right = (own + more for own, more in zip(pads, around, strict=True))
        return inner.inputs[0], (top, left, bottom, right)

    def linear(
        self,
        node: str,
        source: str,
        output: str,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        *,
        channels_first: bool = True,
        activation: Activation = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """A linear layer with weight (out, in): a convolution whose window covers the input.

        `in` runs in channel-first or channel-last order over it.
        """
        inner = next((n for n in self._nodes if n.output == self.tensor(source)), None)
        through = inner is not None and inner.op == "reshape" and not channels_first
        if inner is not None and through and max(self.shape(inner.inputs[0])[:2]) <= KERNEL_MAX:
            source = inner.inputs[0]  # the window sees through it
        height, width, channels = self.shape(source)
        if weight.ndim != 2 or weight.shape[1] != height * width * channels:
            raise self.refuse(node, "linear", f"a weight of {weight.shape} does not fit its input")
        if channels_first:
            spatial = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        else:
            spatial = weight.reshape(-1, height, width, channels)
        if max(height, width) > KERNEL_MAX:  # no window is as large: a vector has one pixel
            if channels_first:
                raise self.refuse(node, "linear", f"an input of {height} x {width} pixels")
            flat = self.fresh(f"{output}/flat")
            with self.reading(LAYOUT):
                self.reshape(f"{node}/flat", source, flat, (1, 1, weight.shape[1]))
            source, spatial = flat, weight[:, None, None]
        self.convolution(node, source, output, spatial, bias, activation=activation, arrays=arrays)

    def reshape(self, node: str, source: str, output: str, shape: Shape) -> None:
        """The same values in channel-last order; the input itself is given the shape of its only reader."""
        name = self.tensor(source)
        if self._shapes[name] == shape:
            self.alias(output, source)
        elif name == self.input and not self._nodes and elements(shape) == elements(self._shapes[name]):
            self._shapes[name] = shape
            self.alias(output, source)
        else:
            self.emit(node, "reshape", Reshape(shape), (source,), output)
            if name in self._quants:
                self._quants[output] = self._quants[name]

    def batch_norm(
        self,
        node: str,
        source: str,
        output: str,
        statistics: tuple[Array, Array, Array, Array],
        epsilon: float,
    ) -> None:
        """Inference batch norm from (gamma, beta, running mean, running variance)."""
        gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in statistics)
        channels = self.shape(source)[2]
        if any(a.shape != (channels,) for a in (gamma, beta, mean, variance)):
            raise self.refuse(node, "batch_norm", f"its statistics are not one per channel of {channels}")
        with np.errstate(invalid="ignore", divide="ignore"):  # validate() names the node that holds NaN
            scale = gamma / np.sqrt(variance + epsilon)
        arrays = {"scale": scale.astype(np.float32), "shift": (beta - mean * scale).astype(np.float32)}
        self.emit(node, "batch_norm", BatchNorm(), (source,), output, arrays)

    def clip(
        self, node: str, source: str, output: str, low: float, high: float, table: NDArray[np.int8] | None = None
    ) -> None:
        """relu, relu6 and other clamps."""
        if math.isinf(low) and math.isinf(high) and low < high and table is None:
            self.alias(output, source)
        else:
            self.function(node, "clip", source, output, low, high, table)

    def function(
        self,
        node: str,
        kind: str,
        source: str,
        output: str,
        low: float = 0.0,
        high: float = 0.0,
        table: NDArray[np.int8] | None = None,
    ) -> None:
        """A function of one value; a quantised network may bring its table of 256 entries."""
        arrays = None if table is None else {"table": table}
        self.emit(node, "activation", Function(kind, low, high), (source,), output, arrays)

    def add(self, node: str, a: str, b: str, output: str, activation: Activation = None) -> None:
        """An element-wise sum."""
        self.emit(node, "add", Add(activation), (a, b), output)

    def mul(self, node: str, a: str, b: str, output: str, activation: Activation = None) -> None:
        """A product, element by element or with one factor per channel on either side."""
        first, second = (b, a) if self.shape(a)[:2] == (1, 1) and self.shape(b)[:2] != (1, 1) else (a, b)
        self.emit(node, "mul", Mul(activation), (first, second), output)

    def average_pool(
        self,
        node: str,
        source: str,
        output: str,
        kernel: Pair,
        stride: Pair,
        pads: Pads = (0, 0, 0, 0),
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Average pooling; padding does not count; a window of (0, 0) is the whole map.

        A lone window's stride is its size: files give it any, and one below would seem to overlap.
        """
        height, width, _ = self.shape(source)
        if kernel == (0, 0):
            kernel = stride = (height, width)
        if not any(pads):
            tall, wide = (
                max(s, k) if n < k + s else s for n, k, s in zip((height, width), kernel, stride, strict=True)
            )
            stride = tall, wide
        if kernel == (1, 1) and stride == (1, 1):
            self.alias(output, source)
            return
        self.emit(node, "average_pool", AveragePool(kernel, stride, pads), (source,), output, arrays)

    def max_pool(self, node: str, source: str, output: str, kernel: Pair, stride: Pair, pads: Pads) -> None:
        """Max pooling; padding does not count."""
        self.emit(node, "max_pool", MaxPool(kernel, stride, pads), (source,), output)

    def concat(self, node: str, sources: tuple[str, ...], output: str, axis: int) -> None:
        """Tensors side by side; axis is 0, 1, 2 for height, width, channels."""
        self.emit(node, "concat", Concat(axis), sources, output)

    def move(self, node: str, source: str, output: str, move: Move) -> None:
        """Values put elsewhere; a move that reads another takes over its work where it can."""
        inner = next((n for n in self._nodes if n.output == self.tensor(source)), None)
        if inner is not None and isinstance(inner.attrs, Move):
            joined = compose(inner.attrs, move, self.shape(inner.inputs[0]))
            if joined is not None:
                self.move(node, inner.inputs[0], output, joined)
                return
        if identity(move, self.shape(source)):
            self.alias(output, source)
            return
        self.emit(node, "move", move, (source,), output)
        if self.quant(source) is not None:
            self._quants[output] = self._quants[self.tensor(source)]

    def pad(self, node: str, source: str, output: str, before: Triple, behind: Triple) -> None:
        """Zeros around (height, width, channels); negative numbers cut off."""
        shape = self.shape(source)
        height, width, channels = (b + s + e for b, s, e in zip(before, shape, behind, strict=True))
        start = (-before[0], -before[1], -before[2])
        self.move(node, source, output, Move((height, width, channels), start=start))

    def slice(self, node: str, source: str, output: str, start: Triple, end: Triple, step: Triple) -> None:
        """Elements start, start + step ... below end of (height, width, channels)."""
        height, width, channels = (max(0, -(-(e - b) // s)) for b, e, s in zip(start, end, step, strict=True))
        self.move(node, source, output, Move((height, width, channels), start=start, step=step))

    def transpose(self, node: str, source: str, output: str, axes: Triple) -> None:
        """Axis i of the output is axis axes[i] of the input, of (height, width, channels)."""
        shape = self.shape(source)
        self.move(node, source, output, Move(triple(shape[axis] for axis in axes), axes))

    def enlarge(self, node: str, source: str, output: str, times: Pair) -> None:
        """Every pixel as many times as `times` says, down and to the right."""
        height, width, channels = self.shape(source)
        size = (height * times[0], width * times[1], channels)
        self.move(node, source, output, Move(size, repeat=(*times, 1)))

    def softmax(self, node: str, source: str, output: str, beta: float = 1.0) -> None:
        """Over the classes of a vector."""
        self.emit(node, "softmax", Softmax(beta), (source,), output)

    def _check_types(self, weights: Weights) -> None:
        """Real weights in a network of real numbers, int8 weights and int32 biases in a quantised one."""
        wanted = INTEGER_ROLES if self._quants else REAL_ROLES
        for name, array in weights.items():
            node, _, role = name.rpartition(".")
            if role in wanted and not np.issubdtype(array.dtype, wanted[role]):
                kind = "a quantised network" if self._quants else "a network of real numbers"
                raise ModelError(f"the {role} of '{node}' is {array.dtype} in {kind}.", "Export the model again.")

    def _live(self, output: str) -> list[Node]:
        """The nodes that the output depends on."""
        wanted = {output}
        found = []
        for node in reversed(self._nodes):
            if node.output in wanted:
                wanted.update(node.inputs)
                found.append(node)
        return found[::-1]

    def finish(self, output: str) -> Imported:
        """The verified network, without what its output does not need. Raises ModelError without layers."""
        nodes = self._live(self.tensor(output))
        if not nodes:
            raise ModelError("the model holds no layers.", "Export the model in inference mode.")
        tensors = [self.input, *(node.output for node in nodes)]
        names = {node.name for node in nodes}
        own = [(key, array) for key, array in self._weights.items() if key.rpartition(".")[0] in names]
        called, said = printable(node.name for node in nodes), printable(tensors)
        plain = (
            Node(called[n.name], n.op, tuple(said[name] for name in n.inputs), said[n.output], n.attrs) for n in nodes
        )
        graph = Graph(
            printable([self.name])[self.name],
            said[self.input],
            said[self.tensor(output)],
            tuple(plain),
            tuple((said[name], self._shapes[name]) for name in tensors),
        )
        weights = {f"{called[node]}.{role}": a for (node, _, role), a in ((k.rpartition("."), a) for k, a in own)}
        validate(graph, weights)
        self._check_types(weights)
        if not self._quants:
            return Imported(graph, weights, None, tuple(self.notes))
        missing = [name for name in tensors if name not in self._quants]
        if missing:
            raise ModelError(
                f"tensor '{said[missing[0]]}' of a quantised model has no scale.",
                "Quantise the whole network, or export it in float.",
            )
        qgraph = QGraph(graph, tuple((said[name], self._quants[name]) for name in tensors), self.rounds_once)
        return Imported(graph, add_constants(qgraph, weights), qgraph, tuple(self.notes))
