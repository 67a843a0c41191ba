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
from medyate.oracle import Given

CHILD = Path(__file__).with_name("tflite_child.py")
VARIABLE = "MEDYATE_TFLITE_PYTHON"
TYPE_FIELD, DATA_FIELD, DIMENSION_FIELD = 6, 4, 16
"""Offsets of Tensor.type, Buffer.data and QuantizationParameters.quantized_dimension in the vtables of their
tables (TFLite schema, version 3)."""
ALIGNMENT = 16
OUTPUT_AXIS = {
    tflite.BuiltinOperator.CONV_2D: 0,
    tflite.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
    tflite.BuiltinOperator.FULLY_CONNECTED: 0,
}
"""Operators with weights, and the axis of these along which scales run."""
INTEGERS = {tflite.TensorType.INT8: np.int8, tflite.TensorType.UINT8: np.uint8}


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


def run(path: Path, given: Given) -> NDArray[Any]:
    """Outputs (n, k) of the reference kernels, in the file's own type; uint8 comes back 128 lower, as int8."""
    with tempfile.TemporaryDirectory(prefix="medyate-") as folder:
        model, inputs, outputs = (Path(folder) / name for name in ("model.tflite", "x.npy", "y.npy"))
        content = path.read_bytes()
        model.write_bytes(patched(content))
        np.save(inputs, given.real if takes_real_numbers(content) else given.stored)
        number = str(_number(content, given.output))
        command = [interpreter(), str(CHILD), str(model), str(inputs), str(outputs), number]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ToolchainError(f"TFLite's runtime refuses '{path}' ({reason}).", "Convert the model again.")
        result: NDArray[Any] = np.load(outputs)
    return result


def _number(data: bytes, output: str) -> int:
    """Which of the file's outputs has a name."""
    graph = tflite.Model.GetRootAs(data, 0).Subgraphs(0)
    names = [(graph.Tensors(index).Name() or b"").decode("utf-8", "replace") for index in graph.OutputsAsNumpy()]
    return names.index(output) if output in names else 0


def takes_real_numbers(data: bytes) -> bool:
    """Whether the file's input is float32, as converters leave it unless they are told otherwise."""
    graph = tflite.Model.GetRootAs(data, 0).Subgraphs(0)
    return bool(graph.Tensors(graph.Inputs(0)).Type() == tflite.TensorType.FLOAT32)


def patched(data: bytes) -> bytes:
    """The file as the runtime is given it: with no other numbers, and nothing that it rejects or rounds as it runs."""
    content = bytearray(data)
    model = tflite.Model.GetRootAs(data, 0)
    _clear_dimensions(content, model.Subgraphs(0))
    _expand_weights(content, model)
    return bytes(content)


def _clear_dimensions(content: bytearray, graph: Any) -> None:
    """A quantised dimension of 0 for tensors of one axis, where runtimes reject another one.

    Files of an old converter say 3 for the biases of depthwise convolutions; no number depends on it.
    """
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        quantization = tensor.Quantization()
        if quantization is None or tensor.ShapeLength() != 1 or quantization.QuantizedDimension() == 0:
            continue
        table = quantization._tab  # the generated reader has no way to the field's place
        place = table.Pos + table.Offset(DIMENSION_FIELD)
        content[place : place + 4] = bytes(4)


def _expand_weights(content: bytearray, model: Any) -> None:
    """Integer weights beside real activations as float32, at the file's end.

    With the integers the runtime would round the activations of such a layer to int8, each sample by its own scale.
    """
    graph = model.Subgraphs(0)
    for position in range(graph.OperatorsLength()):
        operator = graph.Operators(position)
        code = model.OperatorCodes(operator.OpcodeIndex())
        axis = OUTPUT_AXIS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        if axis is None or graph.Tensors(operator.Inputs(0)).Type() != tflite.TensorType.FLOAT32:
            continue
        tensor = graph.Tensors(operator.Inputs(1))
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() not in INTEGERS or not buffer.DataLength():
            continue
        values = _real(tensor, buffer.DataAsNumpy(), axis).tobytes()
        content += bytes(-(len(content) + 4) % ALIGNMENT)
        place = buffer._tab.Pos + buffer._tab.Offset(DATA_FIELD)
        content[place : place + 4] = (len(content) - place).to_bytes(4, "little")
        content += len(values).to_bytes(4, "little") + values
        content[tensor._tab.Pos + tensor._tab.Offset(TYPE_FIELD)] = tflite.TensorType.FLOAT32


def _real(tensor: Any, stored: NDArray[Any], axis: int) -> NDArray[np.float32]:
    """What integer weights stand for."""
    sizes = tensor.ShapeAsNumpy()
    along = [-1 if k == axis else 1 for k in range(len(sizes))]
    quantization = tensor.Quantization()
    scales = quantization.ScaleAsNumpy().astype(np.float64).reshape(along)
    zeros = quantization.ZeroPointAsNumpy().reshape(along) if quantization.ZeroPointLength() else 0
    real: NDArray[np.float32] = (scales * (stored.view(INTEGERS[tensor.Type()]).reshape(sizes) - zeros)).astype("<f4")
    return real
