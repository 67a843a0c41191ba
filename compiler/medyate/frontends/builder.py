# SPDX-License-Identifier: Apache-2.0
"""Collects a network, one operation at a time, into the IR.

The builder speaks the IR's layout, (H, W, C); frontends of channel-first formats turn their weights
around. What they flatten stays what it was, and the linear layer behind it becomes a convolution whose
window covers it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.functions import Function
from medyate.arithmetic.scheme import QMAX, QMIN, WEIGHT_MAX
from medyate.errors import GraphError, ModelError, UnsupportedOpError
from medyate.frontends.obstacles import Obstacles, wanted
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

LEFT_OUT: Mapping[str, str] = {
    "log_softmax": "a log-softmax at the end is left out: the network gives logits, which differ from it by one number",
    "argmax": "an argmax at the end is left out: the network gives what it compares",
}

LAYOUT = frozenset({"move", "reshape"})
"""What is put in front of any operation that needs its values elsewhere."""

Crop = tuple[Pair, Pair]
Array = NDArray[np.float32]
REAL_ROLES: dict[str, type[np.generic]] = dict.fromkeys(("weight", "bias", "scale", "shift"), np.floating)
INTEGER_ROLES: dict[str, type[np.generic]] = {"weight": np.int8, "bias": np.int32}
"""Types of the arrays of a network of real numbers, and of a quantised one."""


def made(op: str, attrs: Attrs) -> str:
    """What the tables of the frontends call an operation of the IR: activations go by their function."""
    return attrs.kind if isinstance(attrs, Function) else op


def chosen(network: str, names: Sequence[str], output: str) -> str:
    """The output of a name, or the first one. Raises ModelError."""
    if not names:
        raise ModelError(f"'{network}' has no output.", "Export it again.")
    if output and output not in names:
        listed = ", ".join(f"'{name}'" for name in names)
        raise ModelError(f"'{network}' has no output '{output}'.", f"It has {listed}.")
    return output or names[0]


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
        self.obstacles = Obstacles(name)
        self.outputs: tuple[str, ...] = ()
        """All that the file gives."""
        self.notes: list[str] = []
        self.input_range: tuple[int, int] | None = None
        """See Imported."""
        self.left_out = ""
        """What the file does last and the network does not, see Imported."""
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
        needs = wanted(op) if op not in self.supported else ""
        return UnsupportedOpError(node, op, f"{why}; {needs}" if needs else why, self.supported)

    def stand_in(self, name: str, shape: Shape, quant: Quant | None = None) -> None:
        """A tensor in the place of one that cannot be made, so that what reads it can be looked at too."""
        if name not in self:
            self._shapes[name] = shape
            if quant is not None:
                self._quants[name] = quant

    def tensor(self, name: str) -> str:
        """The tensor behind a name, aliases resolved. Raises ModelError for an unknown one."""
        name = self._alias.get(name, name)
        if name not in self._shapes:
            raise ModelError(f"tensor '{name}' is used before anything makes it.", "Export the model again.")
        return name

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All so far, in running order."""
        return tuple(self._nodes)

    def __contains__(self, name: str) -> bool:
        return self._alias.get(name, name) in self._shapes

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

    def scaled(
        self,
        node: str,
        source: str,
        output: str,
        scale: NDArray[Any],
        shift: NDArray[Any],
        activation: Activation = None,
    ) -> None:
        """Every channel of real numbers times a factor and plus a summand."""
        made = output if activation is None else self.fresh(f"{output}/all")
        zeros, ones = np.zeros(len(scale)), np.ones(len(scale))
        self.batch_norm(node, source, made, (scale, shift, zeros, ones), 0.0)  # type: ignore[arg-type]
        if activation is not None:
            self.clip(f"{node}/clamp", made, output, *activation)

    def factors(
        self,
        node: str,
        source: str,
        output: str,
        steps: NDArray[np.int64],
        scale: float,
        multiplier: float,
        activation: Activation = None,
    ) -> None:
        """Every channel of integers times so many steps of `scale`, requantised by `multiplier`."""
        middle = 0 if np.abs(steps).max() <= WEIGHT_MAX else int(steps.max() + steps.min() + 1) // 2
        channels = len(steps)
        arrays: dict[str, NDArray[Any]] = {
            "scale": np.full(channels, scale),
            "multiplier": np.full(channels, multiplier),
            "product": np.array(1),
        }
        if middle:
            arrays["zero"] = np.array(-middle)
        weight = (steps - middle).astype(np.int8).reshape(channels, 1, 1, 1)
        bias = np.zeros(channels, np.int32)
        self.convolution(node, source, output, weight, bias, groups=channels, activation=activation, arrays=arrays)

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

    def negative(self, node: str, source: str, output: str = "") -> str:
        """The negative values, which of integers are exact: their zero point is that of the other end."""
        output = output or self.fresh(f"{source}/negative")
        quant = self.quant(source)
        table = None if quant is None else -1 - np.arange(QMIN, QMAX + 1)
        self.function(f"{node}/negative", "neg", source, output, table=None if table is None else table.astype(np.int8))
        if quant is not None:
            self.quantise(output, Quant(quant.scale, -1 - quant.zero))
        return output

    def difference(self, node: str, a: str, b: str, output: str, activation: Activation = None) -> None:
        """An element-wise difference: the sum with the negative second one."""
        self.add(node, a, self.negative(node, b), output, activation)

    def larger(self, node: str, a: str, b: str, output: str) -> None:
        """The larger of two values of one scale, element by element: the largest of two rows."""
        shape = self.shape(a)
        if shape != self.shape(b):
            raise self.refuse(node, "maximum", f"tensors of {shape} and {self.shape(b)}")
        rows = []
        for side, source in enumerate((a, b)):
            row = self.fresh(f"{output}/row{side}")
            with self.reading(LAYOUT):
                self.emit(row, "reshape", Reshape((1, 1, elements(shape))), (source,), row)
            self._as_scaled(row, source)
            rows.append(row)
        both, largest = self.fresh(f"{output}/both"), self.fresh(f"{output}/largest")
        self.concat(f"{node}/both", (rows[0], rows[1]), both, 0)
        self._as_scaled(both, a)
        self.max_pool(node, both, largest, (2, 1), (2, 1), (0, 0, 0, 0))
        self._as_scaled(largest, a)
        with self.reading(LAYOUT):
            self.emit(f"{node}/back", "reshape", Reshape(shape), (largest,), output)
        self._as_scaled(output, a)

    def smaller(self, node: str, a: str, b: str, output: str) -> None:
        """The smaller of two values of one scale: the negative of the larger of the negative ones."""
        largest = self.fresh(f"{output}/negative")
        self.larger(node, self.negative(node, a), self.negative(node, b), largest)
        self.negative(node, largest, output)

    def _as_scaled(self, output: str, source: str) -> None:
        quant = self.quant(source)
        if quant is not None:
            self.quantise(output, quant)

    def space_to_depth(self, node: str, source: str, output: str, block: int, *, channels_first: bool = False) -> None:
        """Every block x block pixels side by side as channels: (row, column, channel), or (channel, row, column)."""
        height, width, channels = self.shape(source)
        if block < 1 or height % block or width % block:
            raise self.refuse(node, "space_to_depth", f"blocks of {block} pixels of {height}x{width}")
        parts = []
        for row, column in itertools.product(range(block), repeat=2):
            part = self.fresh(f"{output}/{row}.{column}")
            self.slice(part, source, part, (row, column, 0), (height, width, channels), (block, block, 1))
            parts.append(self.tensor(part))
        if not channels_first:
            self.concat(node, tuple(parts), output, 2)
            self._as_scaled(output, source)
            return
        joined = self._joined(f"{output}/rows", parts, 2, source)
        pixels, size = height * width // block**2, (height // block, width // block, channels * block**2)
        table = self._read_as(f"{output}/table", joined, (pixels, block**2, channels))
        turned = self.fresh(f"{output}/turned")
        with self.reading(LAYOUT):
            self.transpose(node, table, turned, (0, 2, 1))
            self.emit(f"{node}/back", "reshape", Reshape(size), (turned,), output)
        self._as_scaled(output, source)

    def depth_to_space(
        self, node: str, source: str, output: str, block: int, *, channels_first: bool = False, crop: Crop | None = None
    ) -> None:
        """Channels as block x block pixels: they run by (row, column, channel), or by (channel, row, column).

        `crop`: (first row, first column), (rows, columns) of what is left.
        """
        height, width, deep = self.shape(source)
        channels = deep // max(1, block * block)
        if block < 1 or channels * block * block != deep:
            raise self.refuse(node, "depth_to_space", f"{deep} channels as blocks of {block}")
        lines = []
        for row in range(block):
            columns = []
            for column in range(block):
                place = row * block + column
                start, step = (place, block * block) if channels_first else (place * channels, 1)
                part = self.fresh(f"{output}/{row}.{column}")
                end = start + (channels - 1) * step + 1
                self.slice(part, source, part, (0, 0, start), (height, width, end), (1, 1, step))
                columns.append(self.tensor(part))
            lines.append(self._joined(f"{output}/columns{row}", columns, 2, source))
        flat = [self._read_as(f"{line}/line", line, (height, 1, width * block * channels)) for line in lines]
        joined = self._joined(f"{output}/lines", flat, 1, source)
        whole = (height * block, width * block, channels)
        if crop is None:
            with self.reading(LAYOUT):
                self.emit(node, "reshape", Reshape(whole), (joined,), output)
        else:
            (top, left), (rows, columns_) = crop
            full = self._read_as(f"{output}/whole", joined, whole)
            with self.reading(LAYOUT):
                self.slice(node, full, output, (top, left, 0), (top + rows, left + columns_, channels), (1, 1, 1))
        self._as_scaled(output, source)

    def _joined(self, title: str, parts: list[str], axis: int, like: str) -> str:
        if len(parts) == 1:
            return parts[0]
        output = self.fresh(title)
        self.concat(output, tuple(parts), output, axis)
        self._as_scaled(output, like)
        return output

    def _read_as(self, title: str, source: str, shape: Shape) -> str:
        if self.shape(source) == shape:
            return source
        output = self.fresh(title)
        with self.reading(LAYOUT):
            self.emit(output, "reshape", Reshape(shape), (source,), output)
        self._as_scaled(output, source)
        return output

    def transposed_convolution(
        self,
        node: str,
        source: str,
        output: str,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        stride: Pair,
        first: Pair,
        size: Pair,
        quant: Quant | None = None,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """A transposed convolution with weight (out, kh, kw, in), as a convolution that makes blocks of pixels.

        With stride s, output pixel q s + r sums the taps t s + r over the input pixels q - t: every r is a channel of
        its own, and depth_to_space puts them side by side. `first`, `size`: what of all pixels is kept.
        """
        outputs, *kernel, inputs = weight.shape
        block = max(stride)
        if stride[0] != stride[1] and stride[0] > 1 and (self.shape(source)[1], stride[1], kernel[1]) != (1, 1, 1):
            raise self.refuse(node, "transposed convolution", f"strides of {stride}")
        if not all(1 <= k <= KERNEL_MAX and 1 <= s <= 16 for k, s in zip(kernel, stride, strict=True)):
            raise self.refuse(node, "transposed convolution", f"a window of {kernel} with strides of {stride}")
        taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
        padded = np.zeros((outputs, taps[0] * stride[0], taps[1] * stride[1], inputs), weight.dtype)
        padded[:, : kernel[0], : kernel[1]] = weight
        split = padded.reshape(outputs, taps[0], stride[0], taps[1], stride[1], inputs)[:, ::-1, :, ::-1]
        phases = split.transpose(2, 4, 0, 1, 3, 5).reshape(-1, taps[0], taps[1], inputs)
        times = stride[0] * stride[1]
        repeated = None if bias is None else np.tile(bias, times)
        own = {k: np.tile(a, times) if np.size(a) == outputs and np.ndim(a) else a for k, a in (arrays or {}).items()}
        before = self.shape(source)[:2]
        reach = [-(-(f + n) // s) for f, n, s in zip(first, size, stride, strict=True)]
        behind = [max(t - 1, r - n) for t, r, n in zip(taps, reach, before, strict=True)]
        blocks = self.fresh(f"{output}/blocks")
        pads = (taps[0] - 1, taps[1] - 1, behind[0], behind[1])
        self.convolution(node, source, blocks, np.ascontiguousarray(phases), repeated, pads=pads, arrays=own)
        if quant is not None:
            self.quantise(blocks, quant)
        if stride[0] == stride[1]:
            crop = (first[0], first[1]), (size[0], size[1])
            self.depth_to_space(f"{node}/pixels", blocks, output, block, crop=crop)
            return
        height, width, _ = self.shape(blocks)
        line = self._read_as(f"{output}/whole", blocks, (height * stride[0], width * stride[1], outputs))
        with self.reading(LAYOUT):
            ends = (first[0] + size[0], first[1] + size[1], outputs)
            self.slice(f"{node}/pixels", line, output, (first[0], first[1], 0), ends, (1, 1, 1))

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

    def leave_out(self, node: str, op: str, source: str, output: str) -> None:
        """The last operation of a file, which neither training nor a prediction needs."""
        self.alias(output, source)
        self.left_out = op
        self.notes.append(f"'{node}': {LEFT_OUT[op]}")

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
        self.obstacles.check()
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
        said_of_ends = tuple(self.notes), self.left_out, self.input_range, self.outputs
        if not self._quants:
            return Imported(graph, weights, None, *said_of_ends)
        missing = [name for name in tensors if name not in self._quants]
        if missing:
            raise ModelError(
                f"tensor '{said[missing[0]]}' of a quantised model has no scale.",
                "Quantise the whole network, or export it in float.",
            )
        qgraph = QGraph(graph, tuple((said[name], self._quants[name]) for name in tensors), self.rounds_once)
        return Imported(graph, add_constants(qgraph, weights), qgraph, *said_of_ends)
