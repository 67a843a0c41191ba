# SPDX-License-Identifier: Apache-2.0
"""Turns a channel-first network into the IR, one operation at a time.

Frontends speak (N, C, H, W) and (out, in, kh, kw), as PyTorch and ONNX do; the builder alone knows
how that becomes (H, W, C). A flattened tensor stays what it was, and the linear layer behind it
becomes a convolution whose kernel covers it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from medyate.errors import GraphError, ModelError, UnsupportedOpError
from medyate.ir import Graph, Node, Shape, elements
from medyate.ops import OPS
from medyate.ops._spatial import KERNEL_MAX, Pads, Pair
from medyate.ops.activation import Function
from medyate.ops.add import Add
from medyate.ops.average_pool import AveragePool
from medyate.ops.before_quantisation import BatchNorm
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.ops.move import Move, Triple, compose, identity
from medyate.ops.opdef import Attrs
from medyate.ops.softmax import Softmax
from medyate.verify import verify

Array = NDArray[np.float32]


def triple(values: Iterable[int]) -> Triple:
    """Three whole numbers."""
    height, width, channels = (int(value) for value in values)
    return height, width, channels


class GraphBuilder:
    """Collects nodes; `finish` checks them and gives the graph with its weights."""

    def __init__(self, name: str, input_name: str, shape: Shape, supported: tuple[str, ...]) -> None:
        self.name = name
        self.input = input_name
        self.supported = supported
        self._nodes: list[Node] = []
        self._shapes: dict[str, Shape] = {input_name: shape}
        self._weights: dict[str, Array] = {}
        self._alias: dict[str, str] = {}
        self._flat: set[str] = set()

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

    def alias(self, output: str, source: str, *, flat: bool = False) -> None:
        """`output` is `source` under another name; `flat`: in channel-first order, as a vector."""
        source_is_flat = source in self._flat
        self._alias[output] = self.tensor(source)
        if flat or source_is_flat:
            self._flat.add(output)

    def is_flat(self, name: str) -> bool:
        """Whether a tensor was flattened to a vector."""
        return name in self._flat

    def _emit(
        self,
        node: str,
        attrs: Attrs,
        op: str,
        inputs: tuple[str, ...],
        output: str,
        arrays: Mapping[str, Array],
    ) -> None:
        names = tuple(self.tensor(name) for name in inputs)
        base = node or output
        unique = base
        taken = {existing.name for existing in self._nodes}
        while unique in taken:
            unique += "_"
        try:
            shape = OPS[op].shape(attrs, tuple(self._shapes[name] for name in names))
        except GraphError as error:
            raise self.refuse(unique, op, error.what.rstrip(".")) from error
        self._shapes[output] = shape
        self._nodes.append(Node(unique, op, names, output, attrs))
        for role, array in arrays.items():
            self._weights[f"{unique}.{role}"] = np.ascontiguousarray(array, dtype=np.float32)

    def convolution(
        self,
        node: str,
        source: str,
        output: str,
        weight: Array,
        bias: Array | None,
        stride: Pair,
        pads: Pads,
        dilation: Pair,
        groups: int,
    ) -> None:
        """A convolution with weight (out, in / groups, kh, kw): dense or depthwise."""
        out_channels, per_group, kh, kw = weight.shape
        channels = self.shape(source)[2]
        if kh > KERNEL_MAX or kw > KERNEL_MAX:
            raise self.refuse(node, "convolution", f"a window of {kh} x {kw} is above {KERNEL_MAX}")
        if bias is not None and np.shape(bias) != (out_channels,):
            raise self.refuse(node, "convolution", f"a bias of {np.shape(bias)} for {out_channels} outputs")
        if min(*stride, *dilation) < 1 or min(pads) < 0:
            raise self.refuse(node, "convolution", f"stride {stride}, dilation {dilation}, pads {pads}")
        full_bias = np.zeros(out_channels, np.float32) if bias is None else bias
        if groups == 1 and per_group == channels:
            arrays = {"weight": weight.transpose(0, 2, 3, 1), "bias": full_bias}
            attrs: Attrs = Conv2d(out_channels, (kh, kw), stride, dilation, pads)
            self._emit(node, attrs, "conv2d", (source,), output, arrays)
        elif groups == channels == out_channels and per_group == 1:
            arrays = {"weight": weight[:, 0].transpose(1, 2, 0), "bias": full_bias}
            attrs = Depthwise((kh, kw), stride, dilation, pads)
            self._emit(node, attrs, "depthwise", (source,), output, arrays)
        else:
            raise self.refuse(
                node,
                "convolution",
                f"{groups} groups from {channels} to {out_channels} channels is neither dense nor depthwise",
            )

    def linear(self, node: str, source: str, output: str, weight: Array, bias: Array | None) -> None:
        """A linear layer with weight (out, in); `in` runs in channel-first order over a flat input."""
        height, width, channels = self.shape(source)
        if weight.ndim != 2 or weight.shape[1] != height * width * channels:
            raise self.refuse(node, "linear", f"a weight of {weight.shape} does not fit its input")
        spatial = weight.reshape(weight.shape[0], channels, height, width)
        self.convolution(node, source, output, spatial, bias, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        self._flat.add(output)

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
        with np.errstate(invalid="ignore", divide="ignore"):  # verify() names the node that holds NaN
            scale = gamma / np.sqrt(variance + epsilon)
        arrays = {"scale": scale.astype(np.float32), "shift": (beta - mean * scale).astype(np.float32)}
        self._emit(node, BatchNorm(), "batch_norm", (source,), output, arrays)

    def clip(self, node: str, source: str, output: str, low: float, high: float) -> None:
        """relu, relu6 and other clamps that hold zero."""
        if not low <= 0.0 <= high:
            raise self.refuse(node, "clip", f"the range {low} .. {high} does not hold zero")
        if math.isinf(low) and math.isinf(high):
            self.alias(output, source)
            return
        self._emit(node, Function("clip", low, high), "activation", (source,), output, {})

    def add(self, node: str, a: str, b: str, output: str) -> None:
        """An element-wise sum."""
        self._emit(node, Add(), "add", (a, b), output, {})

    def average_pool(self, node: str, source: str, output: str, kernel: Pair, stride: Pair) -> None:
        """Average pooling without padding; a window of (0, 0) is the whole map."""
        height, width, _ = self.shape(source)
        if kernel == (0, 0):
            kernel = stride = (height, width)
        if kernel == (1, 1) and stride == (1, 1):
            self.alias(output, source)
            return
        self._emit(node, AveragePool(kernel, stride), "average_pool", (source,), output, {})

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
        self._emit(node, move, "move", (source,), output, {})

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

    def softmax(self, node: str, source: str, output: str) -> None:
        """Over the classes of a vector."""
        if elements(self.shape(source)) != self.shape(source)[2]:
            raise self.refuse(node, "softmax", "it runs over a map, not a vector")
        self._emit(node, Softmax(), "softmax", (source,), output, {})

    def _live(self, output: str) -> list[Node]:
        """The nodes that the output depends on."""
        wanted = {output}
        found = []
        for node in reversed(self._nodes):
            if node.output in wanted:
                wanted.update(node.inputs)
                found.append(node)
        return found[::-1]

    def finish(self, output: str) -> tuple[Graph, dict[str, Array]]:
        """The verified graph, without what its output does not need.

        Raises ModelError when nothing was imported.
        """
        nodes = self._live(self.tensor(output))
        if not nodes:
            raise ModelError("the model holds no layers.", "Export the model in inference mode.")
        tensors = [self.input, *(node.output for node in nodes)]
        names = {node.name for node in nodes}
        weights = {k: array for k, array in self._weights.items() if k.rpartition(".")[0] in names}
        graph = Graph(
            self.name,
            self.input,
            self.tensor(output),
            tuple(nodes),
            tuple((name, self._shapes[name]) for name in tensors),
        )
        verify(graph, weights)
        return graph, weights
