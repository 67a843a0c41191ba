# SPDX-License-Identifier: Apache-2.0
"""A TFLite graph as it is written: tensors in two ranks, operators with their versions, clamps that are fused or not.

What each operation of the IR becomes is in tflite.py; how the file is laid out, in flatfile.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate.arithmetic.scheme import QMAX, QMIN, UINT8_SHIFT, Integers
from medyate.arithmetic.tflite_kernels import CLAMPS, bounds_in_binary32
from medyate.export import ExportError
from medyate.export.flatfile import FlatFile, Options, Steps
from medyate.ir import Activation, Graph, Node, QGraph, Quant, Shape, Weights

ONNX_INSTEAD = "Export it as ONNX, which computes the same to the step."
VERSIONS: Mapping[str, tuple[int, int]] = {
    "CONV_2D": (1, 3),
    "DEPTHWISE_CONV_2D": (2, 3),
    "FULLY_CONNECTED": (1, 4),
    "ADD": (1, 2),
    "MUL": (1, 2),
    "SUB": (1, 2),
    "AVERAGE_POOL_2D": (1, 2),
    "MEAN": (1, 2),
    "MAX_POOL_2D": (1, 2),
    "CONCATENATION": (1, 2),
    "RESHAPE": (1, 1),
    "PAD": (1, 2),
    "PADV2": (1, 2),
    "STRIDED_SLICE": (1, 2),
    "TRANSPOSE": (1, 2),
    "RESIZE_NEAREST_NEIGHBOR": (3, 3),
    "SOFTMAX": (1, 2),
    "QUANTIZE": (2, 2),
    "RELU": (1, 2),
    "RELU6": (1, 2),
    "RELU_N1_TO_1": (1, 1),
    "LEAKY_RELU": (1, 2),
    "PRELU": (1, 1),
    "HARD_SWISH": (1, 1),
    "LOGISTIC": (1, 2),
    "TANH": (1, 2),
    "NEG": (1, 1),
    "SQUARE": (1, 1),
    "GELU": (1, 2),
    "EXP": (1, 2),
    "ABS": (1, 2),
    "MINIMUM": (1, 2),
    "MAXIMUM": (1, 2),
}
"""The lowest version that computes float32, and the one for 8 bits."""
FUSED: Mapping[tuple[float, float], int] = {
    limits: getattr(tflite.ActivationFunctionType, kind) for limits, kind in CLAMPS.items()
}


class Writer:
    """One pass over a graph's nodes."""

    def __init__(self, graph: Graph, weights: Weights, qgraph: QGraph | None) -> None:
        self.file = FlatFile()
        self.graph = graph
        self.weights = weights
        self.qgraph = qgraph
        self.kind = "float32" if qgraph is None else _stored_as(weights)
        self.places: dict[tuple[str, int], int] = {}
        """Numbers by name and rank."""

    def refuse(self, node: Node, why: str, remedy: str = ONNX_INSTEAD) -> ExportError:
        """The error for a node that TFLite does not compute alike."""
        return ExportError(f"node '{node.name}' ({node.op}) cannot be written to TFLite: {why}.", remedy)

    def begin(self) -> int:
        """The network's input."""
        shape = self.graph.shapes[self.graph.input]
        return self.tensor(self.graph.input, self.graph.input, rank=2 if shape[:2] == (1, 1) else 4)

    def finish(self, source: int) -> bytes:
        """The file, once all nodes are written."""
        vector = self.graph.shapes[self.graph.output][:2] == (1, 1)
        output = self.given(self.graph.output, 2 if vector else 4)
        return self.file.finish(self.graph.name, source, output)

    def steps(self, quant: Quant | None) -> Steps | None:
        """Scale and zero point as the file has them."""
        shift = UINT8_SHIFT if self.kind == "uint8" else 0
        return None if quant is None else Steps((quant.scale,), (quant.zero + shift,))

    def quant(self, name: str) -> Quant | None:
        """A tensor's scale and zero point; None: real numbers."""
        return None if self.qgraph is None else self.qgraph.quant[name]

    def stored(self, values: NDArray[np.int8]) -> NDArray[Any]:
        """Int8 numbers as the file has them."""
        return (values.astype(np.int16) + UINT8_SHIFT).astype(np.uint8) if self.kind == "uint8" else values

    def tensor(self, title: str, name: str, shape: Shape | None = None, rank: int = 4) -> int:
        """A new tensor with the scale of tensor `name`; `title` equal to `name`: that tensor itself."""
        height, width, channels = shape or self.graph.shapes[name]
        sizes = (1, channels) if rank == 2 else (1, height, width, channels)
        free = f"{title}s" if title.endswith("/flat") else title  # the importer's own name for what it flattens
        place = self.file.tensor(free, sizes, self.kind, self.steps(self.quant(name)))
        if title == name:
            self.places[name, rank] = place
        return place

    def given(self, name: str, rank: int | None = 4) -> int:
        """The number of a tensor that was made; a vector of the other rank is reshaped, once. None: as it is."""
        own = 4 if (name, 4) in self.places else 2
        if rank is None or (name, rank) in self.places:
            return self.places[name, rank or own]
        title = f"{name}/{'vector' if rank == 2 else 'map'}"
        place = self.tensor(title, name, rank=rank)
        self.reshape(self.places[name, own], place)
        self.places[name, rank] = place
        return place

    def rank(self, name: str) -> int:
        """2 for a tensor that was made as a vector, else 4."""
        return 4 if (name, 4) in self.places else 2

    def numbers(self, title: str, values: Sequence[int] | Sequence[Sequence[int]] | NDArray[Any]) -> int:
        """A constant of whole numbers."""
        return self.file.constant(title, np.array(values, np.int32))

    def reshape(self, source: int, output: int) -> None:
        """Tensor `source` in the shape of tensor `output`."""
        title = f"sizes {output}"
        sizes = self.numbers(title, self.file.shape(output))
        self.emit("RESHAPE", (source, sizes), output, Options("ReshapeOptions", {}))

    def emit(
        self, kind: str, inputs: Sequence[int], output: int, options: Options | None = None, version: int = 0
    ) -> None:
        """One operator of the file."""
        plain, quantised = VERSIONS[kind]
        self.file.operator(kind, version or (plain if self.qgraph is None else quantised), inputs, output, options)

    def clamp(self, node: Node, source: int, limits: tuple[float | None, float | None]) -> None:
        """MAXIMUM and MINIMUM up to the node's output; limits are real numbers, or integers as the IR has them."""
        wanted = [(kind, x) for kind, x in zip(("MAXIMUM", "MINIMUM"), limits, strict=True) if x is not None]
        steps = self.steps(self.quant(node.output))
        rank = len(self.file.shape(source))
        for number, (kind, limit) in enumerate(wanted):
            last = number == len(wanted) - 1
            output = self.tensor(node.output if last else f"{node.output}/{kind.lower()}", node.output, rank=rank)
            value = np.array([limit], np.float32) if steps is None else self.stored(np.array([limit], np.int8))
            place = self.file.constant(f"{node.output}/{kind.lower()} limit", value, steps)
            self.emit(kind, (source, place), output, Options("MaximumMinimumOptions", {}))
            source = output

    def fused(
        self,
        node: Node,
        facts: Integers | None,
        kind: str,
        inputs: Sequence[int],
        options: Options,
        rank: int = 4,
        version: int = 0,
    ) -> None:
        """An operator with the node's fused activation, behind it where TFLite has no code for the range."""
        activation: Activation = getattr(node.attrs, "activation", None)
        code, limits = _fusing(activation, facts)
        options = Options(options.table, {**options.fields, "FusedActivationFunction": code})
        if limits == (None, None):
            self.emit(kind, inputs, self.tensor(node.output, node.output, rank=rank), options, version)
            return
        target = self.tensor(f"{node.output}/all", node.output, rank=rank)
        self.emit(kind, inputs, target, options, version)
        self.clamp(node, target, limits)


def _stored_as(weights: Weights) -> str:
    """uint8 where the integers are those of a uint8 file, moved by 128."""
    shifted = any(n.endswith(".zero") and f"{n.removesuffix('.zero')}.product" not in weights for n in weights)
    pools = any(name.endswith(".origin") and int(array) == -UINT8_SHIFT for name, array in weights.items())
    return "uint8" if shifted or pools else "int8"


def _fusing(activation: Activation, facts: Integers | None) -> tuple[int, tuple[float | None, float | None]]:
    """(code of a fused activation, limits that it leaves to other operators)."""
    none = tflite.ActivationFunctionType.NONE
    if facts is None:
        if activation is None or activation in FUSED:
            return (none if activation is None else FUSED[activation]), (None, None)
        low, high = activation
        return none, (None if math.isinf(low) else low, None if math.isinf(high) else high)
    exact = none if activation is None else FUSED.get(activation)
    known: list[tuple[Activation, int]] = [(activation, exact)] if exact is not None else []
    for limits, code in (*known, (None, none), *FUSED.items()):
        if bounds_in_binary32(limits, facts.output) == facts.bounds:
            return code, (None, None)
    least, most = facts.bounds
    return none, (None if least == QMIN else least, None if most == QMAX else most)
