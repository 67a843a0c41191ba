# SPDX-License-Identifier: Apache-2.0
"""One int8 TFLite file for every operator that is read: the operator behind a TANH, so that its input is no input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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

    def file(self) -> bytes:
        """The file."""
        file = FlatFile()
        x, y = file.tensor("x", self.input, "int8", SCALE), file.tensor("tanh", self.input, "int8", SCALE)
        file.operator("TANH", 2, (x,), y)
        constants = [
            file.constant(f"c{k}", array, WEIGHTS if array.dtype == np.int8 else None)
            for k, array in enumerate(self.constants)
        ]
        output = file.tensor("y", self.output, "int8" if self.steps else "float32", self.steps)
        file.operator(self.kind, 2, (y, *((y,) if self.twice else ()), *constants), output, self.options)
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
CASES = (
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
