# SPDX-License-Identifier: Apache-2.0
"""Model files to the IR, chosen by suffix."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from medyate.errors import ModelError
from medyate.extras import require
from medyate.ir import Imported

FORMATS = {
    ".onnx": "onnx",
    ".pt2": "torch",
    ".tflite": "tflite",
    ".pkl": "checkpoint",
    ".th": "checkpoint",
    ".pth": "checkpoint",
}
"""Module of this package by suffix."""
NEEDS = {"onnx": ("onnx",), "torch": ("torch",), "tflite": ("tflite", "flatbuffers"), "checkpoint": ("torch",)}
"""What such a module imports and not everyone has."""


def check(path: Path) -> None:
    """Raises ModelError for an unknown format, ToolchainError when a package is missing that reads it."""
    if path.suffix not in FORMATS:
        raise ModelError(
            f"'{path}' is none of {', '.join(FORMATS)}.",
            "Give an ONNX or TFLite file, or a PyTorch program saved with torch.export.save.",
        )
    require(f"reading {path.suffix} files", *NEEDS[FORMATS[path.suffix]])


def load(path: Path, output: str = "") -> Imported:
    """Reads a model up to one of its outputs, the first one unless it is named.

    Raises ModelError, and what `check` raises.
    """
    check(path)
    frontend = import_module(f"medyate.frontends.{FORMATS[path.suffix]}")
    imported: Imported = frontend.load(path, output)
    return imported
