# SPDX-License-Identifier: Apache-2.0
"""Model files to the IR, chosen by suffix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medyate.errors import ModelError
from medyate.ir import Graph


def load(path: Path) -> tuple[Graph, dict[str, NDArray[np.float32]]]:
    """Reads a model. Raises ModelError for an unknown format."""
    if path.suffix == ".onnx":
        from medyate.frontends import onnx

        return onnx.load(path)
    if path.suffix == ".pt2":
        from medyate.frontends import torch

        return torch.load(path)
    raise ModelError(
        f"'{path}' is neither .onnx nor .pt2.",
        "Give an ONNX file, or a PyTorch program saved with torch.export.save.",
    )
