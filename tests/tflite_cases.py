# SPDX-License-Identifier: Apache-2.0
"""One int8 TFLite file for every operator that is read: the operator behind a TANH, so that its input is no input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate.export.flatfile import FlatFile, Options, Steps

EXTENT = (1, 6, 4, 3)
SCALE = Steps((1 / 128,), (0,))
OTHER = Steps((0.02,), (7,))
WEIGHTS = Steps((0.01,), (0,))


@dataclass(frozen=True)
class Case:
    """An operator, what it reads beside its input, and what it makes."""

    kind: str
    output: tuple[int, ...]
    constants: Sequence[NDArray[Any]] = ()
    options: Options | None = None
    input: tuple[int, ...] = EXTENT
    steps: Steps | None = SCALE
    """Of the output; None: real numbers."""
    twice: bool = False
    """The input is read as both sides."""
    place: int = 0
    """Of the input among the constants."""
    real: bool = False
    """All numbers are real."""
    parts: int = 1
    """How many outputs there are, all alike; the last one is the file's."""
    version: int = 2

    def file(self) -> bytes:
        """The file."""
        file = FlatFile()
        kind, steps = ("float32", None) if self.real else ("int8", SCALE)
        x, y = file.tensor("x", self.input, kind, steps), file.tensor("tanh", self.input, kind, steps)
        file.operator("TANH", 2, (x,), y)
        constants = [
            file.constant(f"c{k}", array, WEIGHTS if array.dtype == np.int8 else None)
            for k, array in enumerate(self.constants)
        ]
        stored = kind if self.steps else "float32"
        outputs = [
            file.tensor(f"y{k}", self.output, stored, None if self.real else self.steps) for k in range(self.parts)
        ]
        inputs = [*constants[: self.place], *([y] * (1 + self.twice)), *constants[self.place :]]
        file.operator(self.kind, self.version, inputs, outputs if self.parts > 1 else outputs[0], self.options)
        return file.finish("one", x, outputs[-1])


@dataclass(frozen=True)
class Dilated(Case):
    """A convolution between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND; the constants are its own."""

    layer: str = "CONV_2D"

    def file(self) -> bytes:
        """The file."""
        file = FlatFile()
        x = file.tensor("x", (1, 7, 6, 3), "int8", SCALE)
        spread = file.tensor("spread", (4, 6, 5, 3), "int8", SCALE)
        block, pads = file.constant("block", whole(2, 2)), file.constant("pads", whole([2, 3], [2, 2]))
        file.operator("SPACE_TO_BATCH_ND", 2, (x, block, pads), spread)
        constants = [
            file.constant(f"c{k}", array, WEIGHTS if array.dtype == np.int8 else None)
            for k, array in enumerate(self.constants)
        ]
        made = file.tensor("made", (4, 4, 3, 3), "int8", OTHER)
        file.operator(self.layer, 2, (spread, *constants), made, self.options)
        output = file.tensor("y", (1, 7, 6, 3), "int8", OTHER)
        crops = file.constant("crops", whole([0, 1], [0, 0]))
        file.operator(self.kind, 2, (made, block, crops), output)
        return file.finish("one", x, output)


@dataclass(frozen=True)
class Sized(Case):
    """A reshape to sizes that are worked out: SHAPE, STRIDED_SLICE, PACK."""

    def file(self) -> bytes:
        """The file."""
        file = FlatFile()
        x, y = file.tensor("x", EXTENT, "int8", SCALE), file.tensor("tanh", EXTENT, "int8", SCALE)
        file.operator("TANH", 2, (x,), y)
        sizes, first = file.tensor("sizes", (4,), "int32", None), file.tensor("first", (), "int32", None)
        file.operator("SHAPE", 1, (y,), sizes, Options("ShapeOptions", {"OutType": tflite.TensorType.INT32}))
        ends = [file.constant(title, whole(value)) for title, value in (("begin", 0), ("end", 1), ("step", 1))]
        file.operator("STRIDED_SLICE", 1, (sizes, *ends), first, Options("StridedSliceOptions", {"ShrinkAxisMask": 1}))
        numbers = [file.constant(f"n{n}", np.array(n, np.int32)) for n in (4, 18)]
        packed = file.tensor("packed", (3,), "int32", None)
        file.operator("PACK", 1, (first, *numbers), packed, Options("PackOptions", {"ValuesCount": 3}))
        output = file.tensor("y", (1, 4, 18), "int8", SCALE)
        file.operator("RESHAPE", 1, (y, packed), output)
        return file.finish("one", x, output)


def ones(*shape: int) -> NDArray[np.int8]:
    return np.ones(shape, np.int8)


def whole(*values: Any) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def stepping(table: str, **fields: float) -> Options:
    """Options of a window that moves by one."""
    return Options(table, {"StrideH": 1, "StrideW": 1, **fields})


WINDOW = stepping("Pool2DOptions", FilterHeight=2, FilterWidth=2)
PADS = whole([0, 0], [1, 2], [0, 1], [0, 0])
PADDED = (1, 9, 5, 3)
CHANNELS = np.array([-90, 0, 127], np.int8)
REALS = np.array([-1.5, 0.25, 3.0], np.float32)
TRANSPOSED = Options("TransposeConvOptions", {"StrideH": 2, "StrideW": 2, "Padding": 0})
REDUCED = Options("ReducerOptions", {})
NEW = (
    Case("MUL", EXTENT, (CHANNELS,), Options("MulOptions", {}), steps=OTHER),
    Case("MUL", (1, 6, 4, 1), (CHANNELS[:1],), Options("MulOptions", {}), input=(1, 6, 4, 1), steps=OTHER),
    Case("ADD", EXTENT, (CHANNELS,), Options("AddOptions", {"FusedActivationFunction": 1}), steps=OTHER),
    Case("ADD", EXTENT, (CHANNELS[2:],), Options("AddOptions", {}), steps=OTHER),
    Case("SUB", EXTENT, (CHANNELS,), Options("SubOptions", {}), steps=OTHER),
    Case("SUB", EXTENT, (CHANNELS,), Options("SubOptions", {}), steps=OTHER, place=1),
    Case("SUB", EXTENT, (), Options("SubOptions", {}), steps=OTHER, twice=True),
    Case("MEAN", (1, 6, 3), (whole(2),), REDUCED, steps=OTHER),
    Case("MEAN", (1, 4, 3), (whole(1),), REDUCED),
    Case("MEAN", (1, 6, 1, 3), (whole(2),), Options("ReducerOptions", {"KeepDims": True}), steps=OTHER),
    Case("REDUCE_MAX", (1, 3), (whole(1, 2),), REDUCED),
    Case("REDUCE_MAX", (1, 6, 3), (whole(2),), REDUCED),
    Case("MAXIMUM", EXTENT, twice=True),
    Case("MINIMUM", EXTENT, twice=True),
    Case("GELU", EXTENT, (), Options("GeluOptions", {"Approximate": False}), steps=OTHER),
    Case("GELU", EXTENT, (), Options("GeluOptions", {"Approximate": True}), steps=OTHER),
    Case("EXP", EXTENT, steps=OTHER),
    Case("ABS", EXTENT, steps=OTHER),
    Case("ABS", EXTENT),
    Case("SPLIT", (1, 3, 4, 3), (whole(1),), Options("SplitOptions", {"NumSplits": 2}), place=1, parts=2),
    Case("SPLIT_V", (1, 6, 2, 3), (whole(2, 2), whole(2)), Options("SplitVOptions", {"NumSplits": 2}), parts=2),
    Case("UNPACK", (1, 6, 3), (), Options("UnpackOptions", {"Num": 4, "Axis": 2}), parts=4),
    Case("SPACE_TO_DEPTH", (1, 3, 2, 12), (), Options("SpaceToDepthOptions", {"BlockSize": 2})),
    Case("DEPTH_TO_SPACE", (1, 4, 6, 2), (), Options("DepthToSpaceOptions", {"BlockSize": 2}), (1, 2, 3, 8), version=1),
    Case(
        "TRANSPOSE_CONV",
        (1, 12, 8, 2),
        (whole(1, 12, 8, 2), (np.arange(54) * 3 - 80).astype(np.int8).reshape(2, 3, 3, 3)),
        TRANSPOSED,
        steps=OTHER,
        place=2,
    ),
    Case("PAD", (1, 7, 3), (whole([0, 0], [1, 0], [0, 0]),), input=(1, 6, 3)),
    Case("SLICE", (1, 2, 3), (whole(0, 1, 0), whole(1, 2, 3)), input=(1, 6, 3)),
    Case("TRANSPOSE", (1, 3, 6), (whole(0, 2, 1),), input=(1, 6, 3)),
    Case(
        "STRIDED_SLICE",
        (1, 4, 3),
        (whole(0, 5, 0, 0), whole(1, 6, 4, 3), whole(1, 1, 1, 1)),
        Options("StridedSliceOptions", {"ShrinkAxisMask": 2}),
    ),
    Case(
        "STRIDED_SLICE",
        (1, 2),
        (whole(0, 1), whole(0, 6), whole(1, 3)),
        Options("StridedSliceOptions", {"BeginMask": 1, "EndMask": 1}),
        input=(1, 6),
    ),
    Dilated("BATCH_TO_SPACE_ND", EXTENT, (ones(3, 3, 3, 3), whole(1, 2, 3)), stepping("Conv2DOptions", Padding=1)),
    Dilated(
        "BATCH_TO_SPACE_ND",
        EXTENT,
        (ones(1, 3, 3, 3), whole(1, 2, 3)),
        stepping("DepthwiseConv2DOptions", Padding=1, DepthMultiplier=1),
        layer="DEPTHWISE_CONV_2D",
    ),
    Sized("RESHAPE", (1, 4, 18)),
)
"""Every one runs in TFLite's own runtime."""
UNCOMPARED = (Case("ELU", EXTENT, steps=OTHER, version=1),)
"""The runtime's reference kernels lack it."""
REAL = (
    Case("ADD", EXTENT, (REALS,), Options("AddOptions", {"FusedActivationFunction": 1}), real=True),
    Case("SUB", EXTENT, (REALS,), Options("SubOptions", {}), real=True, place=1),
    Case("SUB", EXTENT, (REALS,), Options("SubOptions", {"FusedActivationFunction": 3}), real=True),
    Case("MUL", EXTENT, (REALS,), Options("MulOptions", {"FusedActivationFunction": 1}), real=True),
    Case("NEG", EXTENT, real=True, version=1),
    Case("SQUARE", EXTENT, real=True, version=1),
    Case("LOG_SOFTMAX", (1, 3), (), Options("LogSoftmaxOptions", {}), (1, 3), real=True, version=1),
)
"""Of real numbers."""
CASES = (
    *NEW,
    *REAL,
    *UNCOMPARED,
    Case("CONV_2D", (1, 6, 4, 2), (ones(2, 3, 3, 3), whole(1, 2)), stepping("Conv2DOptions")),
    Case("CONV_2D", EXTENT, (ones(3, 3, 3, 1),), stepping("Conv2DOptions")),
    Case("DEPTHWISE_CONV_2D", EXTENT, (ones(1, 3, 3, 3),), stepping("DepthwiseConv2DOptions")),
    Case("DEPTHWISE_CONV_2D", (1, 6, 4, 6), (ones(1, 3, 3, 6),), stepping("DepthwiseConv2DOptions")),
    Case("FULLY_CONNECTED", (1, 2), (ones(2, 72), whole(1, 2)), Options("FullyConnectedOptions", {})),
    Case("ADD", EXTENT, (), Options("AddOptions", {}), twice=True),
    Case("MUL", EXTENT, (), Options("MulOptions", {}), twice=True),
    Case("AVERAGE_POOL_2D", EXTENT, (), WINDOW),
    Case("MAX_POOL_2D", EXTENT, (), WINDOW),
    Case("MEAN", (1, 3), (whole(1, 2),), Options("ReducerOptions", {})),
    Case("MEAN", (1, 3), (whole(1, 2),), Options("ReducerOptions", {}), input=(1, 1, 1, 3), steps=OTHER),
    Case("CONCATENATION", (1, 6, 4, 6), (), Options("ConcatenationOptions", {"Axis": 3}), twice=True),
    Case("RESHAPE", (1, 3, 8, 3), (whole(1, 3, 8, 3),)),
    Case("SQUEEZE", (1, 4, 3), (), input=(1, 1, 4, 3)),
    Case("EXPAND_DIMS", (1, 1, 4, 3), (whole(1),), input=(1, 4, 3)),
    Case("PAD", PADDED, (PADS,)),
    Case("PADV2", PADDED, (PADS, np.zeros(1, np.int8))),
    Case("SLICE", (1, 2, 4, 3), (whole(0, 1, 0, 0), whole(1, 2, 4, 3))),
    Case(
        "STRIDED_SLICE",
        (1, 3, 4, 3),
        (whole(0, 0, 0, 0), whole(1, 6, 4, 3), whole(1, 2, 1, 1)),
        Options("StridedSliceOptions", {}),
    ),
    Case("TRANSPOSE", (1, 4, 6, 3), (whole(0, 2, 1, 3),)),
    Case("RESIZE_NEAREST_NEIGHBOR", (1, 12, 4, 3), (whole(12, 4),), Options("ResizeNearestNeighborOptions", {})),
    Case("MAXIMUM", EXTENT, (ones(1),)),
    Case("MINIMUM", EXTENT, (ones(1),)),
    Case("RELU", EXTENT),
    Case("RELU6", EXTENT),
    Case("RELU_N1_TO_1", EXTENT),
    Case("LEAKY_RELU", EXTENT, (), Options("LeakyReluOptions", {"Alpha": 0.25})),
    Case("PRELU", EXTENT, (np.array([-3, 5, 90], np.int8).reshape(1, 1, 3),)),
    Case("HARD_SWISH", EXTENT),
    Case("LOGISTIC", EXTENT, steps=Steps((1 / 256,), (-128,))),
    Case("TANH", EXTENT),
    Case("QUANTIZE", EXTENT, steps=OTHER),
    Case("DEQUANTIZE", EXTENT, steps=None),
    Case("SOFTMAX", (1, 3), (), Options("SoftmaxOptions", {"Beta": 1.0}), (1, 3), Steps((1 / 256,), (-128,))),
)
