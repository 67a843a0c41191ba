# SPDX-License-Identifier: Apache-2.0
"""A type that is not known is refused by name: nothing passes for real numbers, and no integer for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tflite
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from medyate import frontends
from medyate.errors import ModelError
from medyate.export import flatfile
from medyate.export.flatfile import FlatFile, Options, Steps

STEPS = Steps((0.02,), (0,))
WEIGHTS = np.ones((5, 24), np.int8)
KINDS = {name.lower(): value for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}


@pytest.fixture(autouse=True)
def every_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the writer of files write every type that the schema has."""
    monkeypatch.setattr(flatfile, "TYPES", KINDS)


def linear(
    path: Path,
    *,
    x: tuple[str, Steps | None] = ("int8", STEPS),
    y: tuple[str, Steps | None] | None = None,
    weight: tuple[str, NDArray[Any], Steps | None] = ("int8", WEIGHTS, STEPS),
    bias: tuple[str, NDArray[Any]] = ("int32", np.zeros(5, np.int32)),
) -> Path:
    """One fully connected layer of a TFLite file."""
    file, kind = FlatFile(), y or x
    source, output = file.tensor("x", (1, 24), *x), file.tensor("y", (1, 5), *kind)
    w = file.tensor("w", weight[1].shape, weight[0], weight[2], weight[1].tobytes())
    b = file.tensor("b", (5,), bias[0], Steps((0.0004,), (0,)) if bias[0] != "float32" else None, bias[1].tobytes())
    file.operator("FULLY_CONNECTED", 1, (source, w, b), output, Options("FullyConnectedOptions", {}))
    path.write_bytes(file.finish("net", source, output))
    return path


REAL = ("float32", None)
REAL_WEIGHTS = ("float32", WEIGHTS.astype(np.float32), None)
REAL_BIAS = ("float32", np.zeros(5, np.float32))
TFLITE: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"activations of {kind}": ({"x": (kind, steps)}, kind)
        for kind in ("int16", "int32", "int64", "float16", "bool", "int4", "complex64", "float64", "uint32")
        for steps in (STEPS,)
    },
    "int16 and 64-bit biases": ({"x": ("int16", STEPS), "bias": ("int64", np.zeros(5, np.int64))}, "int16"),
    "activations without a scale": ({"x": ("int8", None)}, "0 scales"),
    "two scales": ({"x": ("int8", Steps((0.1, 0.2), (0, 0)))}, "2 scales"),
    "real output of integers": ({"y": REAL}, "mixes activations of int8 and float32"),
    "uint8 output of int8": ({"y": ("uint8", STEPS)}, "mixes activations of int8 and uint8"),
    "weights of float16": ({"weight": ("float16", WEIGHTS.astype(np.float16), None)}, "float16"),
    "weights of int4": ({"weight": ("int4", np.ones((5, 12), np.int8), STEPS)}, "int4"),
    "weights of int16": ({"weight": ("int16", WEIGHTS.astype(np.int16), STEPS)}, "int16"),
    "weights of int32": ({"weight": ("int32", WEIGHTS.astype(np.int32), STEPS)}, "weights of int32"),
    "real weights of integers": ({"weight": REAL_WEIGHTS, "bias": REAL_BIAS}, "weights of float32"),
    "uint8 weights of int8": ({"weight": ("uint8", WEIGHTS.astype(np.uint8), STEPS)}, "weights of uint8"),
    "64-bit biases": ({"bias": ("int64", np.zeros(5, np.int64))}, "a bias of int64"),
    "real biases of integers": ({"bias": REAL_BIAS}, "a bias of float32"),
    "whole biases of real numbers": ({"x": REAL, "weight": REAL_WEIGHTS}, "a bias of int32"),
    "int32 weights of real numbers": (
        {"x": REAL, "weight": ("int32", WEIGHTS.astype(np.int32), STEPS), "bias": REAL_BIAS},
        "weights of int32",
    ),
}


@pytest.mark.parametrize("name", TFLITE)
def test_a_tflite_file_of_other_types_is_refused_by_name(name: str, tmp_path: Path) -> None:
    changes, told = TFLITE[name]
    with pytest.raises(ModelError) as error:
        frontends.load(linear(tmp_path / "net.tflite", **changes))
    assert told in str(error.value)


@pytest.mark.parametrize(
    "changes", [{}, {"x": REAL, "weight": REAL_WEIGHTS, "bias": REAL_BIAS}, {"x": REAL, "bias": REAL_BIAS}], ids=str
)
def test_a_tflite_file_of_known_types_is_read(changes: dict[str, Any], tmp_path: Path) -> None:
    assert frontends.load(linear(tmp_path / "net.tflite", **changes)).graph.nodes


def onnx_file(path: Path, nodes: list[Any], arrays: dict[str, NDArray[Any]], kind: int = TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, (1, 24))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("kind", ["INT32", "INT64", "INT16", "BOOL", "BFLOAT16", "STRING"])
def test_an_onnx_input_of_another_type_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = onnx_file(tmp_path / "net.onnx", nodes, {"w": np.ones((24, 5), np.float32)}, getattr(TensorProto, kind))
    with pytest.raises(ModelError, match=kind):
        frontends.load(path)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8])
def test_whole_weights_in_an_onnx_network_of_real_numbers_are_refused(dtype: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = onnx_file(tmp_path / "net.onnx", nodes, {"w": np.ones((24, 5), dtype)})
    with pytest.raises(ModelError, match=np.dtype(dtype).name):
        frontends.load(path)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_onnx_activations_of_16_bits_are_refused_by_name(dtype: Any, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    arrays = {"s": np.float32(0.1), "z": np.array(0, dtype), "w": np.ones((24, 5), np.float32)}
    with pytest.raises(ModelError, match=np.dtype(dtype).name):
        frontends.load(onnx_file(tmp_path / "net.onnx", nodes, arrays))


class Scaled(nn.Module):
    """A linear layer whose weights are of some type."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, self.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.int8])
def test_a_program_of_another_type_is_refused_by_name(dtype: torch.dtype, tmp_path: Path) -> None:
    """Of the weights, and so of the input that they are multiplied by."""
    module = Scaled(torch.ones(24, 5, dtype=dtype))
    torch.export.save(torch.export.export(module, (torch.ones(1, 24, dtype=dtype),)), tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=str(dtype).removeprefix("torch.")):
        frontends.load(tmp_path / "net.pt2")


class Spectrum(nn.Module):
    """Real weights that were complex: the imaginary part must not get lost."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((24, 5), 1 + 2j))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, self.weight.abs())  # type: ignore[operator]


def test_complex_constants_are_worked_out_exactly(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Spectrum(), (torch.ones(1, 24),)), tmp_path / "net.pt2")
    imported = frontends.load(tmp_path / "net.pt2")
    assert np.allclose(imported.weights["matmul.weight"], np.sqrt(5.0))
