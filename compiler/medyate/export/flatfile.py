# SPDX-License-Identifier: Apache-2.0
"""How a TFLite file is laid out: tensors and operators in, the bytes of a flatbuffer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import tflite
from numpy.typing import NDArray

SCHEMA = 3
IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Interpreters map the file and read constants in place."""
LAST_BYTE_CODE = 127
"""Operators above it do not fit the field that older readers look at."""
TYPES: Mapping[str, int] = {
    "float32": tflite.TensorType.FLOAT32,
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int32": tflite.TensorType.INT32,
}
CODES: Mapping[str, int] = {
    name: value for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)
}


@dataclass(frozen=True, slots=True)
class Steps:
    """real = scale * (stored - zero): one pair, or one for each position of `axis`."""

    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """An option table: its name in the schema and its fields."""

    table: str
    fields: Mapping[str, int | float | bool]


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    kind: str
    steps: Steps | None
    data: bytes


@dataclass(frozen=True, slots=True)
class _Operator:
    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options | None


def _several(output: int | Sequence[int]) -> tuple[int, ...]:
    return (output,) if isinstance(output, int) else tuple(output)


class FlatFile:
    """Collects tensors and operators in running order; `finish` gives the file."""

    def __init__(self) -> None:
        self._tensors: list[_Tensor] = []
        self._operators: list[_Operator] = []
        self._names: set[str] = set()

    def tensor(self, name: str, shape: Sequence[int], kind: str, steps: Steps | None, data: bytes = b"") -> int:
        """Number of a new tensor; one with data is a constant."""
        unique = name
        while unique in self._names:
            unique += "_"
        self._names.add(unique)
        self._tensors.append(_Tensor(unique, tuple(shape), kind, steps, data))
        return len(self._tensors) - 1

    def constant(self, name: str, values: NDArray[Any], steps: Steps | None = None) -> int:
        """Number of a new constant; its type is that of the array."""
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        return self.tensor(name, values.shape, values.dtype.name, steps, little.tobytes())

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Sizes of a tensor."""
        return self._tensors[tensor].shape

    def operator(
        self,
        kind: str,
        version: int,
        inputs: Sequence[int],
        output: int | Sequence[int],
        options: Options | None = None,
    ) -> None:
        """One more operator; behaviour of older versions is kept by newer runtimes."""
        self._operators.append(_Operator(kind, version, tuple(inputs), _several(output), options))

    def finish(self, name: str, source: int, output: int | Sequence[int]) -> bytes:
        """The file of a network with one input."""
        b = flatbuffers.Builder(1 << 16)
        codes = sorted({(operator.kind, operator.version) for operator in self._operators})
        buffers = [_buffer(b, b"")]
        tensors = []
        for tensor in self._tensors:
            place = 0
            if tensor.data:
                place = len(buffers)
                buffers.append(_buffer(b, tensor.data))
            tensors.append(_tensor(b, tensor, place))
        operators = [
            _operator(b, operator, codes.index((operator.kind, operator.version))) for operator in self._operators
        ]
        parts = {
            "Tensors": _offsets(b, tensors),
            "Inputs": _ints(b, (source,)),
            "Outputs": _ints(b, _several(output)),
            "Operators": _offsets(b, operators),
            "Name": b.CreateString(name),
        }
        graph = _table(b, "SubGraph", parts)
        parts = {
            "Version": SCHEMA,
            "OperatorCodes": _offsets(b, [_code(b, *code) for code in codes]),
            "Subgraphs": _offsets(b, [graph]),
            "Description": b.CreateString("medyate"),
            "Buffers": _offsets(b, buffers),
        }
        b.Finish(_table(b, "Model", parts), file_identifier=IDENTIFIER)
        return bytes(b.Output())


def _table(b: Any, name: str, fields: Mapping[str, int | float | bool]) -> int:
    """Place of a new table; what its fields refer to was written before."""
    getattr(tflite, f"{name}Start")(b)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(b, value)
    place: int = getattr(tflite, f"{name}End")(b)
    return place


def _vector(b: Any, content: bytes, size: int, alignment: int) -> int:
    """A vector of elements of `size` bytes, copied at once: the generated functions take one at a time."""
    b.StartVector(size, len(content) // size, alignment)
    b.head -= len(content)
    b.Bytes[b.head : b.head + len(content)] = content
    place: int = b.EndVector()
    return place


def _numbers(b: Any, values: Sequence[float], dtype: str) -> int:
    array = np.array(values, dtype)
    return _vector(b, array.tobytes(), array.itemsize, array.itemsize)


def _ints(b: Any, values: Sequence[int]) -> int:
    return _numbers(b, values, "<i4")


def _offsets(b: Any, places: Sequence[int]) -> int:
    b.StartVector(4, len(places), 4)
    for place in reversed(places):
        b.PrependUOffsetTRelative(place)
    found: int = b.EndVector()
    return found


def _buffer(b: Any, content: bytes) -> int:
    return _table(b, "Buffer", {"Data": _vector(b, content, 1, ALIGNMENT)} if content else {})


def _tensor(b: Any, tensor: _Tensor, place: int) -> int:
    parts: dict[str, int] = {
        "Shape": _ints(b, tensor.shape),
        "Type": TYPES[tensor.kind],
        "Buffer": place,
        "Name": b.CreateString(tensor.name),
    }
    if tensor.steps is not None:
        steps = {
            "Scale": _numbers(b, tensor.steps.scales, "<f4"),
            "ZeroPoint": _numbers(b, tensor.steps.zeros, "<i8"),
            "QuantizedDimension": tensor.steps.axis,
        }
        parts["Quantization"] = _table(b, "QuantizationParameters", steps)
    return _table(b, "Tensor", parts)


def _operator(b: Any, operator: _Operator, code: int) -> int:
    parts: dict[str, int] = {
        "OpcodeIndex": code,
        "Inputs": _ints(b, operator.inputs),
        "Outputs": _ints(b, operator.outputs),
    }
    if operator.options is not None:
        parts["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, operator.options.table)
        parts["BuiltinOptions"] = _table(b, operator.options.table, operator.options.fields)
    return _table(b, "Operator", parts)


def _code(b: Any, kind: str, version: int) -> int:
    code = CODES[kind]
    fields = {"DeprecatedBuiltinCode": min(code, LAST_BYTE_CODE), "Version": version, "BuiltinCode": code}
    return _table(b, "OperatorCode", fields)
