# SPDX-License-Identifier: Apache-2.0
"""The format's own runtime for a model file: what the device's numbers are compared with."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medyate.errors import ModelError
from medyate.extras import require

ORACLES = {
    ".onnx": "onnx",
    ".pt2": "torch",
    ".tflite": "tflite",
    ".pkl": "checkpoint",
    ".th": "checkpoint",
    ".pth": "checkpoint",
}
"""Module of this package by suffix."""
NEEDS = {"onnx": ("onnxruntime",), "torch": ("torch",), "tflite": ("tflite", "flatbuffers"), "checkpoint": ("torch",)}
"""What such a module imports and not everyone has."""

Oracle = Callable[[Path, NDArray[Any]], NDArray[Any]]
"""(model, samples (n, H, W, C)) to outputs (n, k).

A network of real numbers takes and gives float32. One that came quantised takes int8, the input's
integers as the IR has them, and gives the integers of its output likewise; where the file's ends are
real numbers, the oracle takes int8 all the same and gives real numbers.
"""


def oracle_for(path: Path) -> Oracle:
    """The runtime of a model's format. Raises ModelError for an unknown one, ToolchainError where it is missing."""
    if path.suffix not in ORACLES:
        raise ModelError(f"there is no runtime to compare '{path}' with.", f"Known: {', '.join(ORACLES)}.")
    name = ORACLES[path.suffix]
    require(f"comparing {path.suffix} files", *NEEDS[name])
    module = import_module(f"medyate.oracle.{name}")
    if name == "tflite":
        module.interpreter()
    oracle: Oracle = module.run
    return oracle
