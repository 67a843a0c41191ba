# SPDX-License-Identifier: Apache-2.0
"""The format's own runtime for a model file: what the device's numbers are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
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


@dataclass(frozen=True)
class Given:
    """Samples (n, H, W, C) in both forms: an oracle takes the one that its file declares for the input."""

    stored: NDArray[np.int8]
    """The input's integers as the IR has them; uint8 lies 128 higher."""
    real: NDArray[np.float32]
    """What they stand for; the samples themselves for a network of real numbers."""
    output: str = ""
    """Which output is wanted, by name; '' is the first one."""


Oracle = Callable[[Path, Given], NDArray[Any]]
"""(model, samples) to outputs (n, k), in the type that the file declares for its output.

Integers are given as the IR has them: int8, uint8 128 lower. Real numbers keep their width: float16 tells that
the file computes in it.
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
