# SPDX-License-Identifier: Apache-2.0
"""What a network is to every stage: frozen records in topological order; weights live beside them.

Tensors have one sample and the layout (height, width, channels). A vector is (1, 1, n).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]
Activation = tuple[float, float] | None
"""Range of a fused activation in real units, or None."""

Weights = Mapping[str, NDArray[np.generic]]
"""Arrays by name: '<node>.weight', '<node>.bias'; read-only by convention."""


@dataclass(frozen=True)
class Attrs:
    """Base of the attribute records; each operation has its own."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `attrs` is the frozen record of its OpDef."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Attrs

    def weight_name(self, role: str) -> str:
        """Name of the node's array in Weights."""
        return f"{self.name}.{role}"


@dataclass(frozen=True)
class Graph:
    """A network with one input and one output; nodes in an order in which they can run."""

    name: str
    input: str
    output: str
    nodes: tuple[Node, ...]
    tensors: tuple[tuple[str, Shape], ...]

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of every tensor."""
        return dict(self.tensors)

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that makes each tensor; the graph's input has none."""
        return {node.output: node for node in self.nodes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each tensor, in running order."""
        found: dict[str, list[Node]] = {name: [] for name, _ in self.tensors}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """Shapes of a node's inputs."""
        return tuple(self.shapes[name] for name in node.inputs)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


@dataclass(frozen=True, slots=True)
class Quant:
    """real = scale * (q - zero), q int8."""

    scale: float
    zero: int


@dataclass(frozen=True)
class QGraph:
    """A quantised network: the graph, a Quant per tensor; int8 weights and int32 biases beside it.

    Weights hold '<node>.weight' int8, '<node>.bias' int32 and '<node>.scale' float64 (out_ch,).
    """

    graph: Graph
    quants: tuple[tuple[str, Quant], ...]
    rounds_once: bool = False
    """Requantisation rounds the exact product once, as onnxruntime does; else twice, as TFLite does."""

    @cached_property
    def quant(self) -> Mapping[str, Quant]:
        """Scale and zero point of every tensor but the logits."""
        return dict(self.quants)


@dataclass(frozen=True)
class Imported:
    """What a model file holds."""

    graph: Graph
    weights: Weights
    """Real numbers; in a quantised network the integers and their scales."""
    qgraph: QGraph | None
    """The same graph with every tensor's scale and zero point; None: a network of real numbers."""
    notes: tuple[str, ...]
    """What had to be changed to import it."""
    left_out: str = ""
    """What the file does to the graph's output at last: 'log_softmax', 'argmax' or nothing."""
    input_range: tuple[int, int] | None = None
    """Numbers that the file takes, where these are whole and stand for themselves: pixels."""

    outputs: tuple[str, ...] = ()
    """All that the file gives, by its own names; the graph ends in one of them."""

    @property
    def input_quant(self) -> Quant | None:
        """What the stored numbers of an input stand for; None: a file that takes real numbers."""
        if self.qgraph is not None:
            return self.qgraph.quant[self.graph.input]
        return None if self.input_range is None else Quant(1.0, -128 - self.input_range[0])


def elements(shape: Shape) -> int:
    """Number of elements of a tensor."""
    height, width, channels = shape
    return height * width * channels
