# SPDX-License-Identifier: Apache-2.0
"""TFLite's reference kernels, in a Python of their own: tflite-runtime 2.14 needs NumPy 1.

The reference resolver of its successor, ai-edge-litert 2.3, rounds FULLY_CONNECTED once where TFLite,
TFLite Micro and CMSIS-NN round twice; it is asked only where tflite-runtime cannot be installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from medyate.errors import ToolchainError

CHILD = Path(__file__).with_name("tflite_child.py")
VARIABLE = "MEDYATE_TFLITE_PYTHON"
DIMENSION_FIELD = 16
"""Offset of QuantizationParameters.quantized_dimension in its vtable (TFLite schema, version 3)."""


def interpreter() -> str:
    """A Python that has TFLite's runtime. Raises ToolchainError when there is none."""
    beside = Path(sys.prefix) / "tflite" / "bin" / "python"
    for candidate in (os.environ.get(VARIABLE), str(beside) if beside.exists() else None):
        if candidate:
            return candidate
    if find_spec("tflite_runtime") or find_spec("ai_edge_litert"):
        return sys.executable
    raise ToolchainError(
        "comparing with TFLite needs its runtime.",
        f"Run `make setup`, or install tflite-runtime into a Python of its own and set {VARIABLE} to it.",
    )


def runtime() -> str:
    """Name and version of the runtime that answers."""
    done = subprocess.run([interpreter(), str(CHILD)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(path: Path, samples: NDArray[Any]) -> NDArray[Any]:
    """Outputs (n, k) of the reference kernels; int8 for int8 and uint8 networks."""
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        model, inputs, outputs = (Path(folder) / name for name in ("model.tflite", "x.npy", "y.npy"))
        model.write_bytes(patched(path.read_bytes()))
        np.save(inputs, samples)
        command = [interpreter(), str(CHILD), str(model), str(inputs), str(outputs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ToolchainError(f"TFLite's runtime refuses '{path}' ({reason}).", "Convert the model again.")
        result: NDArray[Any] = np.load(outputs)
    return result


def patched(data: bytes) -> bytes:
    """The file with a quantised dimension of 0 for tensors of one axis, where runtimes reject another one.

    Files of an old converter say 3 for the biases of depthwise convolutions; no number depends on it.
    """
    content = bytearray(data)
    graph = tflite.Model.GetRootAs(data, 0).Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        quantization = tensor.Quantization()
        if quantization is None or tensor.ShapeLength() != 1 or quantization.QuantizedDimension() == 0:
            continue
        table = quantization._tab  # the generated reader has no way to the field's place
        place = table.Pos + table.Offset(DIMENSION_FIELD)
        content[place : place + 4] = bytes(4)
    return bytes(content)
