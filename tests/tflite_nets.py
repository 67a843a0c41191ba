# SPDX-License-Identifier: Apache-2.0
"""Small int8 TFLite networks, one operator behind another: what converters leave around the layers of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.export.flatfile import FlatFile, Options, Steps

STEP = Steps((0.05,), (3,))
SHARES = Steps((1 / 256,), (-128,))
WEIGHT = 0.01
Shape = tuple[int, ...]
VERSIONS = {"RESHAPE": 1, "LOG_SOFTMAX": 1, "DEQUANTIZE": 2}
"""Of operators whose newest one is not the second."""


class Net:
    """A file with one input; `last` is the number of the newest tensor."""

    def __init__(self, shape: Shape = (1, 8, 8, 3), seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.file = FlatFile()
        self.input = self.last = self.file.tensor("x", shape, "int8", STEP)
        self.count = 0

    def shape(self) -> Shape:
        return tuple(self.file.shape(self.last))

    def number(self, values: Any, steps: Steps | None = None) -> int:
        """A constant."""
        self.count += 1
        return self.file.constant(f"c{self.count}", np.asarray(values), steps)

    def whole(self, *values: int) -> int:
        """A constant of int32."""
        return self.number(np.array(values, np.int32))

    def op(
        self,
        kind: str,
        shape: Shape,
        *more: int,
        options: Options | None = None,
        steps: Steps | None = STEP,
        dtype: str = "int8",
        inputs: tuple[int, ...] | None = None,
    ) -> Net:
        """An operator that reads the newest tensor and `more`, or `inputs`."""
        self.count += 1
        output = self.file.tensor(f"{kind.lower()}{self.count}", shape, dtype, steps)
        self.file.operator(
            kind, VERSIONS.get(kind, 2), (self.last, *more) if inputs is None else inputs, output, options
        )
        self.last = output
        return self

    def weights(self, outputs: int, *shape: int) -> tuple[int, int]:
        """(weight, bias) of a layer."""
        values = self.random.integers(-90, 91, shape).astype(np.int8)
        source = Steps((STEP.scales[0] * WEIGHT,), (0,))
        bias = self.random.integers(-200, 200, outputs).astype(np.int32)
        return self.number(values, Steps((WEIGHT,), (0,))), self.number(bias, source)

    def conv(self, channels: int, kernel: int = 3, activation: int = 0) -> Net:
        """A convolution that keeps the extent."""
        _, height, width, inputs = self.shape()
        options = Options("Conv2DOptions", {"StrideW": 1, "StrideH": 1, "FusedActivationFunction": activation})
        made = self.weights(channels, channels, kernel, kernel, inputs)
        return self.op("CONV_2D", (1, height, width, channels), *made, options=options)

    def mean(self) -> Net:
        return self.op("MEAN", (1, self.shape()[-1]), self.whole(1, 2), options=Options("ReducerOptions", {}))

    def linear(self, classes: int, activation: int = 0) -> Net:
        options = Options("FullyConnectedOptions", {"FusedActivationFunction": activation})
        return self.op(
            "FULLY_CONNECTED", (1, classes), *self.weights(classes, classes, self.shape()[-1]), options=options
        )

    def softmax(self) -> Net:
        return self.op("SOFTMAX", self.shape(), options=Options("SoftmaxOptions", {"Beta": 1.0}), steps=SHARES)

    def scaled(self, kind: str, values: NDArray[np.int8], zero: int = 0, scale: float = 0.02) -> Net:
        """MUL, ADD or SUB with a constant."""
        constant = self.number(values, Steps((scale,), (zero,)))
        return self.op(kind, self.shape(), constant, options=Options(f"{kind.title()}Options", {}))

    def save(self, path: Path, *others: int) -> Path:
        """The file; its first output is the newest tensor."""
        path.write_bytes(self.file.finish(path.stem, self.input, (self.last, *others)))
        return path


def tail(classes: int = 3) -> Net:
    """Features and logits of a small network."""
    return Net().conv(6, activation=1).mean().linear(classes)
