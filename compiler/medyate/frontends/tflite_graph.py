# SPDX-License-Identifier: Apache-2.0
"""What a TFLite file holds: its tensors, its operators, and one pass over them.

A uint8 file becomes int8 by taking 128 off every value and zero point, which changes no real number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate import files
from medyate.arithmetic.scheme import UINT8_SHIFT
from medyate.errors import ModelError, UnsupportedOpError
from medyate.frontends import tflite_constants
from medyate.frontends.builder import GraphBuilder, chosen
from medyate.frontends.table import Row
from medyate.ir import Activation, Imported, Quant, Shape
from medyate.ops._spatial import Pads

FOLD_MAX = 1 << 25
"""Values of all constants that are worked out here; a small file can ask for huge ones."""
RANK_MAX = 8
"""Axes of a tensor in a sound file."""
VECTOR_MAX = 1 << 16
"""Bytes of a name, and entries of any other vector of a table; a small file may name one long vector many times."""
TYPES: Mapping[int, tuple[str, type[np.generic]]] = {
    tflite.TensorType.FLOAT32: ("float32", np.float32),
    tflite.TensorType.FLOAT16: ("float16", np.float16),
    tflite.TensorType.INT8: ("int8", np.int8),
    tflite.TensorType.UINT8: ("uint8", np.uint8),
    tflite.TensorType.INT32: ("int32", np.int32),
    tflite.TensorType.INT64: ("int64", np.int64),
}
KINDS = tuple(kind for kind, _ in TYPES.values())
TYPE_NAMES = {value: name.lower() for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
TAKEN = ("float32", "int8", "uint8")
"""Types of activations."""
TAKEN_NAMES = ", ".join(TAKEN)
WEIGHTS = {"float32": TAKEN, "int8": ("int8",), "uint8": ("uint8",)}
"""Types of weights beside activations of a type."""
REAL_WEIGHTS = (
    "int8 weights beside float activations are read as real numbers, here and in the comparison with TFLite's runtime; "
    "on its own, that runtime would round the activations to int8"
)


CODES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
ACTIVATIONS: Mapping[int, Activation] = {
    tflite.ActivationFunctionType.NONE: None,
    tflite.ActivationFunctionType.RELU: (0.0, math.inf),
    tflite.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    tflite.ActivationFunctionType.RELU6: (0.0, 6.0),
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file."""

    index: int
    name: str
    shape: tuple[int, ...]
    kind: str
    scales: NDArray[np.float64]
    zeros: NDArray[np.int64]
    constant: NDArray[Any] | None

    def quant(self) -> Quant | None:
        """Scale and zero point as the IR has them; None: real numbers."""
        if self.kind not in ("int8", "uint8") or len(self.scales) != 1:
            return None
        shift = UINT8_SHIFT if self.kind == "uint8" else 0
        return Quant(float(self.scales[0]), int(self.zeros[0]) - shift)


@dataclass(frozen=True)
class Operator:
    """An operator of the file; a tensor that is left out is None."""

    name: str
    kind: str
    options: Any
    inputs: tuple[Tensor | None, ...]
    output: Tensor
    """The first of `outputs`."""
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Spread:
    """What SPACE_TO_BATCH_ND made: the pixels of a map, every n-th of which lie together."""

    source: Tensor
    block: tuple[int, int]
    before: tuple[int, int]
    behind: tuple[int, int]
    """Zeros around the map, in front of it and behind it."""
    layer: Operator | None = None
    """The convolution over them."""


class Importer:
    """One pass over the operators of a file with one subgraph."""

    def __init__(
        self, path: Path, data: bytes, handlers: Mapping[str, Row[Importer, [Operator]]], output: str = ""
    ) -> None:
        self.data = data
        self.handlers = handlers
        self.model = tflite.Model.GetRootAs(data, 0)
        if self.model.SubgraphsLength() != 1:
            raise ModelError(f"'{path}' has {self.model.SubgraphsLength()} subgraphs.", "Export inference alone.")
        self.graph = self.model.Subgraphs(0)
        given, made = self.graph.InputsLength(), self.graph.OutputsLength()
        if given != 1 or not 1 <= made <= VECTOR_MAX:
            raise ModelError(f"'{path}' has {given} inputs and {made} outputs.", "Export it with one input.")
        self.tensors: dict[int, Tensor] = {}
        self.names: set[str] = set()
        self.readers: dict[int, list[Operator]] = {}
        """Operators by the number of the tensor that they read."""
        self.folded = 0
        self.dilated: tuple[tuple[int, int], Pads] | None = None
        """(dilation, pads) of the convolution that is read, where operators around it say them."""
        self.spread: dict[int, Spread] = {}
        """Maps whose pixels lie in the batch, by number."""
        self.edges: dict[int, Pads] = {}
        """Pads of the maps, by number, around which lies what no maximum sees; the builder has them without."""
        source = self.tensor(self.graph.Inputs(0))
        ends = {self.tensor(i).name: self.tensor(i) for i in self.graph.OutputsAsNumpy().tolist()}
        self.output = ends[chosen(path.stem, list(ends), output)]
        self.builder = GraphBuilder(path.stem, source.name, _extent(path, source.shape), tuple(handlers))
        self.builder.taken = {_name(self.graph.Tensors(index)) for index in range(self.graph.TensorsLength())}
        self.builder.outputs = tuple(ends)
        self.note_quant(source)

    def tensor(self, index: int) -> Tensor:
        """A tensor by number."""
        if index not in self.tensors:
            self.tensors[index] = self.read(index)
        return self.tensors[index]

    def read(self, index: int) -> Tensor:
        """The same from the file. Raises ModelError where that is damaged."""
        raw = self.graph.Tensors(index)
        if raw is None or not 0 <= index < self.graph.TensorsLength():
            raise ModelError(f"tensor {index} does not exist.", "Convert the model again.")
        self.check_sizes(index, raw)
        name = _name(raw) or f"tensor_{index}"
        while name in self.names:
            name = f"{name}:{index}"
        self.names.add(name)
        shape = tuple(int(raw.Shape(i)) for i in range(raw.ShapeLength()))
        kind, dtype = TYPES.get(raw.Type(), (TYPE_NAMES.get(raw.Type(), f"type {raw.Type()}"), np.uint8))
        scales, zeros = _quantisation(name, raw.Quantization())
        buffer = self.model.Buffers(raw.Buffer())
        constant = None
        if buffer is not None and buffer.DataLength() > 0:
            if raw.Type() not in TYPES:
                raise ModelError(f"tensor '{name}' holds values of {kind}.", f"Known: {', '.join(KINDS)}.")
            content = buffer.DataAsNumpy().view(dtype) if buffer.DataLength() % np.dtype(dtype).itemsize == 0 else None
            if content is None or content.size != math.prod(shape):
                raise ModelError(f"tensor '{name}' of {shape} holds {buffer.DataLength()} B.", "Convert it again.")
            constant = content.reshape(shape)
        return Tensor(index, name, shape, kind, scales, zeros, constant)

    def check_sizes(self, index: int, raw: Any) -> None:
        """Raises ModelError for a tensor whose record is longer than that of any network."""
        quantisation = raw.Quantization()
        lengths = [len(raw.Name() or b"")]
        lengths += [] if quantisation is None else [quantisation.ScaleLength(), quantisation.ZeroPointLength()]
        if raw.ShapeLength() > RANK_MAX or max(lengths) > VECTOR_MAX:
            raise ModelError(f"tensor {index} has too many axes or scales, or too long a name.", "Convert it again.")

    def note_quant(self, tensor: Tensor) -> None:
        """Tells the builder a tensor's scale."""
        quant = tensor.quant()
        if quant is not None:
            self.builder.quantise(tensor.name, quant)

    def operators(self) -> list[Operator]:
        """All of the file, in their order."""
        found = []
        for position in range(self.graph.OperatorsLength()):
            raw = self.graph.Operators(position)
            code = self.model.OperatorCodes(raw.OpcodeIndex())
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = CODES.get(builtin, f"operator {builtin}")
            if max(raw.InputsLength(), raw.OutputsLength()) > VECTOR_MAX:
                raise self.builder.refuse(f"{kind} {position}", kind, "it has too many inputs or outputs")
            inputs = [raw.Inputs(i) for i in range(raw.InputsLength())]
            outputs = [raw.Outputs(i) for i in range(raw.OutputsLength())]
            if not outputs:
                raise self.builder.refuse(f"{kind} {position}", kind, "it has no output")
            tensors = tuple(self.tensor(i) if i >= 0 else None for i in inputs)
            made = tuple(self.tensor(i) for i in outputs)
            found.append(Operator(made[0].name, kind, raw.BuiltinOptions(), tensors, made[0], made))
        return found

    def run(self) -> Imported:
        """The network, operator by operator."""
        operators = self.live()
        for operator in operators:
            for index in {tensor.index for tensor in operator.inputs if tensor is not None}:
                self.readers.setdefault(index, []).append(operator)
        for operator in operators:
            try:
                self.step(operator)
            except UnsupportedOpError as error:
                self.builder.obstacles.add(error)
                self.stand_in(operator)
        self.builder.obstacles.check()
        return self.builder.finish(self.output.name)

    def live(self) -> list[Operator]:
        """The operators that the output depends on."""
        wanted, found = {self.output.index}, []
        for operator in reversed(self.operators()):
            if any(output.index in wanted for output in operator.outputs):
                wanted.update(tensor.index for tensor in operator.inputs if tensor is not None)
                found.append(operator)
        return found[::-1]

    def stand_in(self, operator: Operator) -> None:
        """Tensors in the place of those that an operator does not make."""
        for output in operator.outputs:
            sizes = tuple(max(size, 1) for size in output.shape[1:4])
            self.builder.stand_in(output.name, sizes_of(sizes or (1,)), output.quant())

    def step(self, operator: Operator) -> None:
        """One operator."""
        known = tuple(None if tensor is None else self.tensors[tensor.index] for tensor in operator.inputs)
        operator = replace(operator, inputs=known)
        handler = self.handlers.get(operator.kind)
        if handler is None:
            raise self.builder.refuse(operator.name, operator.kind, "the operation is not supported")
        try:
            if self.fold(operator):
                return
            if not known:
                self.refuse(operator, "it has no input")
            if all(tensor is None or tensor.constant is not None for tensor in known):
                self.refuse(operator, "its input is a constant")
            self.check_types(operator)
            handler(self, operator)
        except struct.error:  # its table is damaged
            raise
        except files.DAMAGE as error:  # an input, constant or option of a form that nobody thought of
            self.refuse(operator, f"its inputs or options are not supported ({files.reason(error)})")
        for output in operator.outputs:
            if output.name in self.builder:
                self.note_quant(output)

    def fold(self, operator: Operator) -> bool:
        """Works out an operator that reads constants and sizes only; False for any other."""
        values = tflite_constants.folded(
            operator.kind, operator.inputs, len(operator.outputs), lambda kind: self.options(operator, kind)
        )
        if values is None:
            return False
        self.folded += sum(value.size for value in values)
        if self.folded > FOLD_MAX:
            self.refuse(operator, "it makes a constant that no microcontroller can hold")
        for output, value in zip(operator.outputs, values, strict=True):
            self.tensors[output.index] = replace(output, constant=value, kind=str(value.dtype), shape=value.shape)
        return True

    def check_types(self, operator: Operator) -> None:
        """Raises the error for an operator on types that are not known, or on several at once."""
        outputs = () if operator.kind == "ARG_MAX" else operator.outputs  # places are no activations
        tensors = [t for t in (*operator.inputs, *outputs) if t is not None and t.constant is None]
        for tensor in tensors:
            if tensor.kind not in TAKEN:
                self.refuse(operator, f"'{tensor.name}' holds {tensor.kind}; {TAKEN_NAMES} are supported")
            if tensor.kind != "float32" and len(tensor.scales) != 1:
                self.refuse(operator, f"'{tensor.name}' holds {tensor.kind} with {len(tensor.scales)} scales, not one")
        kinds = list(dict.fromkeys(tensor.kind for tensor in tensors))
        if len(kinds) > 1 and operator.kind not in ("QUANTIZE", "DEQUANTIZE"):
            self.refuse(operator, f"it mixes activations of {' and '.join(kinds)}")

    def refuse(self, operator: Operator, why: str) -> NoReturn:
        """Raises the error for an operator that cannot be imported."""
        raise self.builder.refuse(operator.name, operator.kind, why)

    def constant(self, operator: Operator, position: int) -> NDArray[Any]:
        """The values of a constant input."""
        tensor = operator.inputs[position] if position < len(operator.inputs) else None
        if tensor is None or tensor.constant is None:
            self.refuse(operator, f"its input {position} is not a constant")
        return tensor.constant

    def known(self, tensor: Tensor) -> NDArray[Any]:
        """The values of a constant."""
        assert tensor.constant is not None
        return tensor.constant

    def between(self, operator: Operator) -> str:
        """A name for what an operator makes before it has the sizes of its output."""
        return self.builder.fresh(f"{operator.output.name}/values")

    def given(self, operator: Operator, position: int) -> Tensor:
        """An input that must be there."""
        tensor = operator.inputs[position] if position < len(operator.inputs) else None
        if tensor is None:
            self.refuse(operator, f"its input {position} is missing")
        return tensor

    def keeps_scale(self, operator: Operator) -> None:
        """Raises the error for an operator that moves values to another scale."""
        if self.given(operator, 0).quant() != operator.output.quant():
            self.refuse(operator, "its output has another scale than its input")

    def options(self, operator: Operator, kind: type[Any]) -> Any:
        """The operator's option table."""
        if operator.options is None:
            self.refuse(operator, "its options are missing")
        options = kind()
        options.Init(operator.options.Bytes, operator.options.Pos)
        return options

    def activation(self, operator: Operator, code: int) -> Activation:
        """A fused activation."""
        if code not in ACTIVATIONS:
            self.refuse(operator, f"the fused activation {code}")
        return ACTIVATIONS[code]


def _name(raw: Any) -> str:
    return str((raw.Name() or b"").decode("utf-8", "replace"))


def _quantisation(name: str, raw: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(scales, zero points), both empty without quantisation.

    The field that says along which axis they run is not read: it follows from the operator, and files
    exist in which it is wrong.
    """
    if raw is None or raw.ScaleLength() == 0:
        return np.zeros(0), np.zeros(0, np.int64)
    scales = raw.ScaleAsNumpy().astype(np.float64)
    zeros = raw.ZeroPointAsNumpy().astype(np.int64) if raw.ZeroPointLength() else np.zeros(len(scales), np.int64)
    if not np.isfinite(scales).all() or (scales <= 0).any() or len(zeros) not in (1, len(scales)):
        raise ModelError(f"tensor '{name}' has scales that are no scales.", "Convert the model again.")
    return scales, zeros


def _extent(path: Path, shape: tuple[int, ...]) -> Shape:
    """(1, H, W, C), (1, L, C) or (1, n) as the IR has it."""
    sizes = shape[1:]
    if not 1 <= len(sizes) <= 3 or shape[0] not in (1, -1) or min(sizes) < 1:
        raise ModelError(
            f"'{path}' takes an input of {shape}; one sample of one to three fixed sizes is expected.",
            "Convert it with a batch of 1 and fixed sizes.",
        )
    return sizes_of(sizes)


def sizes_of(sizes: tuple[int, ...]) -> Shape:
    """One to three sizes as the IR has them."""
    if len(sizes) == 3:
        return sizes[0], sizes[1], sizes[2]
    return (sizes[0], 1, sizes[1]) if len(sizes) == 2 else (1, 1, sizes[0])
