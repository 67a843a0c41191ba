# SPDX-License-Identifier: Apache-2.0
"""Model files to the IR, chosen by suffix."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from medyate.errors import ModelError
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


def load(path: Path) -> Imported:
    """Reads a model. Raises ModelError for an unknown format."""
    if path.suffix not in FORMATS:
        raise ModelError(
            f"'{path}' is none of {', '.join(FORMATS)}.",
            "Give an ONNX or TFLite file, or a PyTorch program saved with torch.export.save.",
        )
    frontend = import_module(f"medyate.frontends.{FORMATS[path.suffix]}")
    imported: Imported = frontend.load(path)
    return imported
