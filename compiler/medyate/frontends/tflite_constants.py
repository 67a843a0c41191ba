# SPDX-License-Identifier: Apache-2.0
"""TFLite operators on constants, worked out as the runtime would: sizes of static tensors, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tflite
from numpy.typing import NDArray

Array = NDArray[Any]


class Held(Protocol):
    """A tensor of the file."""

    @property
    def kind(self) -> str:
        """Its type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""

    @property
    def scales(self) -> NDArray[np.float64]:
        """Empty for real numbers."""

    @property
    def zeros(self) -> NDArray[np.int64]:
        """Zero points."""

    @property
    def constant(self) -> Array | None:
        """Its values, if they are known."""


Inputs = Sequence[Held | None]
OptionsOf = Callable[[type[Any]], Any]
VALUES_MAX = 1 << 25
"""Of one result; a small file can ask for huge ones."""
PLAIN = ("float32", "float16", "int32", "int64")
"""Types whose numbers stand for themselves."""
WIDE: Mapping[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
}


FUSING: Mapping[str, type[Any]] = {"ADD": tflite.AddOptions, "SUB": tflite.SubOptions, "MUL": tflite.MulOptions}


def folded(op: str, inputs: Inputs, outputs: int, options: OptionsOf) -> tuple[Array, ...] | None:
    """What an operator makes of constants; None where it reads anything else, or is none that is worked out."""
    if op == "SHAPE" and inputs[0] is not None:
        return (np.array([max(size, 1) for size in inputs[0].shape], np.int32),)
    if op == "DEQUANTIZE":
        return _dequantized(inputs)
    if op not in MADE:
        return None
    given = [tensor.constant if tensor is not None else None for tensor in inputs]
    arrays = [array for array in given if array is not None]
    kinds = {tensor.kind for tensor in inputs if tensor is not None}
    if not arrays or len(arrays) != len(given) or not (op in MOVED or kinds <= set(PLAIN)):
        return None
    if op in FUSING and options(FUSING[op]).FusedActivationFunction():
        return None
    if sum(array.size for array in arrays) > VALUES_MAX:
        raise ValueError("constants of too many numbers")
    made = MADE[op](arrays, options)
    results = made if isinstance(made, list) else [made]
    whole = tuple(np.ascontiguousarray(array) if array.ndim else array for array in results)
    return whole if len(whole) == outputs else None


def _dequantized(inputs: Inputs) -> tuple[Array, ...] | None:
    tensor = inputs[0]
    if tensor is None or tensor.constant is None or len(tensor.scales) > 1:
        return None
    if not len(tensor.scales):
        return (tensor.constant.astype(np.float32),)
    real = (tensor.constant.astype(np.float64) - tensor.zeros[0]) * tensor.scales[0]
    return (real.astype(np.float32),)


def _strided_slice(x: list[Array], options: OptionsOf) -> Array:
    o = options(tflite.StridedSliceOptions)
    if o.EllipsisMask() or o.NewAxisMask():
        raise ValueError("masks that add axes")
    parts: list[slice | int] = []
    for axis, (first, last, step) in enumerate(zip(*(array.reshape(-1).tolist() for array in x[1:4]), strict=True)):
        if o.ShrinkAxisMask() >> axis & 1:
            parts.append(int(first))
        else:
            begin, end = (None if mask >> axis & 1 else n for mask, n in ((o.BeginMask(), first), (o.EndMask(), last)))
            parts.append(slice(begin, end, step))
    return np.asarray(x[0][tuple(parts)])


def _slice(x: list[Array], _: OptionsOf) -> Array:
    bounds = zip(x[1].reshape(-1).tolist(), x[2].reshape(-1).tolist(), strict=True)
    return x[0][tuple(slice(first, None if size < 0 else first + size) for first, size in bounds)]


def _pack(x: list[Array], options: OptionsOf) -> Array:
    return np.stack(x, options(tflite.PackOptions).Axis())


def _unpack(x: list[Array], options: OptionsOf) -> list[Array]:
    return list(np.moveaxis(x[0], options(tflite.UnpackOptions).Axis(), 0))


def _squeeze(x: list[Array], options: OptionsOf) -> Array:
    o = options(tflite.SqueezeOptions)
    axes = tuple(int(o.SqueezeDims(k)) for k in range(o.SqueezeDimsLength()))
    return x[0].squeeze(axes) if axes else x[0].squeeze()


def _gather(x: list[Array], options: OptionsOf) -> Array:
    return np.asarray(x[0].take(x[1], options(tflite.GatherOptions).Axis()))


def _reduce(function: Callable[..., Any]) -> Callable[[list[Array], OptionsOf], Array]:
    def run(x: list[Array], options: OptionsOf) -> Array:
        keep = bool(options(tflite.ReducerOptions).KeepDims())
        return np.asarray(function(x[0], axis=tuple(x[1].reshape(-1).tolist()), keepdims=keep), x[0].dtype)

    return run


def _repeated(x: list[Array], shape: list[int], function: Callable[..., Any]) -> Array:
    if np.prod([float(size) for size in shape]) > VALUES_MAX or min(shape, default=1) < 0:
        raise ValueError("a constant of too many numbers")
    return np.asarray(function(x[0], shape))


def _range(x: list[Array], _: OptionsOf) -> Array:
    start, limit, step = (array.item() for array in x)
    if not step or abs((limit - start) / step) > VALUES_MAX:
        raise ValueError("a range of too many numbers")
    return np.asarray(np.arange(start, limit, step), x[0].dtype)


def _two(function: Callable[[Array, Array], Any]) -> Callable[[list[Array], OptionsOf], Array]:
    def run(x: list[Array], _: OptionsOf) -> Array:
        return np.asarray(function(*x), x[0].dtype)

    return run


def _cast(x: list[Array], options: OptionsOf) -> Array:
    return x[0].astype(WIDE[options(tflite.CastOptions).OutDataType()])


MADE: Mapping[str, Callable[[list[Array], OptionsOf], Array | list[Array]]] = {
    "RESHAPE": lambda x, _: x[0].reshape(x[1].reshape(-1).tolist()),
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "PACK": _pack,
    "UNPACK": _unpack,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": lambda x, _: np.expand_dims(x[0], x[1].item()),
    "TRANSPOSE": lambda x, _: x[0].transpose(x[1].reshape(-1).tolist()),
    "CONCATENATION": lambda x, options: np.concatenate(x, options(tflite.ConcatenationOptions).Axis()),
    "GATHER": _gather,
    "FILL": lambda x, _: _repeated([x[1]], x[0].reshape(-1).tolist(), lambda v, shape: np.full(shape, v, v.dtype)),
    "BROADCAST_TO": lambda x, _: _repeated(x, x[1].reshape(-1).tolist(), np.broadcast_to),
    "RANGE": _range,
    "REDUCE_PROD": _reduce(np.prod),
    "SUM": _reduce(np.sum),
    "CAST": _cast,
    "ADD": _two(np.add),
    "SUB": _two(np.subtract),
    "MUL": _two(np.multiply),
    "MAXIMUM": _two(np.maximum),
    "MINIMUM": _two(np.minimum),
    "FLOOR_DIV": _two(np.floor_divide),
}
MOVED = frozenset(
    {"RESHAPE", "STRIDED_SLICE", "SLICE", "PACK", "UNPACK", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CONCATENATION"}
)
"""Operators that compute nothing: their numbers may be stored integers."""
