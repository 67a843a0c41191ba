# SPDX-License-Identifier: Apache-2.0
"""`medyate verify` agrees with a device that is right, whatever the file's ends, and with no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from medyate import check
from medyate.check import Report
from medyate.export.flatfile import FlatFile, Options, Steps
from medyate.ir import Graph, QGraph, Weights
from medyate.stages import silent
from onnx_files import node, quantise, real, write

RANDOM = np.random.default_rng(17)
HEAD = (("GlobalAveragePool", "f", "g"), ("Flatten", "g", "l"))


def verified(path: Path, count: int = 12) -> Report:
    return check.check(path, "host", count, None, "auto", 0, silent)


# --- files ---


def onnx_file(
    path: Path, nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], extent: tuple[int, ...], kind: int
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, extent)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def classifier(path: Path, dtype: type = np.float32, *, rows: bool = False) -> Path:
    """A convolution and a classifier; its input has channels first, or (`rows`) last."""
    arrays = {n: real(*s).astype(dtype) for n, s in {"w": (6, 3, 3, 3), "v": (5, 6), "b": (5,)}.items()}
    begin = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if rows else []
    nodes = [
        *begin,
        helper.make_node("Conv", ["t" if rows else "x", "w"], ["f"], pads=[0, 0, 1, 1], strides=[2, 1]),
        *(helper.make_node(op, [source], [output]) for op, source, output in HEAD),
        helper.make_node("Gemm", ["l", "v", "b"], ["y"], transB=1),
    ]
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    return onnx_file(path, nodes, arrays, (1, 8, 6, 3) if rows else (1, 3, 8, 6), kind)


def map_file(path: Path) -> Path:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)]
    return onnx_file(path, nodes, {"w": real(4, 3, 3, 3)}, (1, 3, 5, 7), TensorProto.FLOAT)


def turned_map_file(path: Path) -> Path:
    """A map whose channels are last, as its values run."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    return onnx_file(path, nodes, {"w": real(4, 3, 3, 3)}, (1, 3, 5, 7), TensorProto.FLOAT)


def quantised_file(path: Path) -> Path:
    """What onnxruntime's quantiser leaves: real ends."""
    source = classifier(path.with_name("real.onnx"))
    return quantise(
        source, RANDOM.uniform(-1, 1, (16, 3, 8, 6)).astype(np.float32), "QDQ", per_channel=True, unsigned=False
    )


def program(path: Path, net: nn.Module, *extent: int, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(3)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    made = torch.export.export(net.to(dtype).eval(), (torch.zeros(1, *extent, dtype=dtype),))
    torch.export.save(made, path)
    return path


def tflite_file(path: Path, *, real_input: bool, real_output: bool) -> Path:
    """A linear int8 layer; converters put QUANTIZE and DEQUANTIZE around it unless they are told otherwise."""
    file, x_steps, y_steps = FlatFile(), Steps((0.02,), (3,)), Steps((0.11,), (-7,))
    x = file.tensor("x", (1, 24), "int8", x_steps)
    y = file.tensor("y", (1, 5), "int8", y_steps)
    source, output = x, y
    if real_input:
        source = file.tensor("real_x", (1, 24), "float32", None)
        file.operator("QUANTIZE", 1, (source,), x)
    weight = file.constant("w", RANDOM.integers(-127, 128, (5, 24)).astype(np.int8), Steps((0.005,), (0,)))
    bias = file.constant("b", RANDOM.integers(-900, 900, 5).astype(np.int32), Steps((0.0001,), (0,)))
    file.operator("FULLY_CONNECTED", 1, (x, weight, bias), y, Options("FullyConnectedOptions", {}))
    if real_output:
        output = file.tensor("real_y", (1, 5), "float32", None)
        file.operator("DEQUANTIZE", 1, (y,), output)
    path.write_bytes(file.finish("net", source, output))
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "channels-last.onnx": lambda path: classifier(path, rows=True),
    "half.onnx": lambda path: classifier(path, np.float16),
    "map.onnx": map_file,
    "turned-map.onnx": turned_map_file,
    "qdq.onnx": quantised_file,
    "map.pt2": lambda path: program(path, nn.Conv2d(3, 4, 3, padding=1), 3, 5, 7),
    "series.pt2": lambda path: program(path, nn.Conv1d(3, 4, 3, padding=1), 3, 9),
    "real-ends.tflite": lambda path: tflite_file(path, real_input=True, real_output=True),
    "real-input.tflite": lambda path: tflite_file(path, real_input=True, real_output=False),
    "real-output.tflite": lambda path: tflite_file(path, real_input=False, real_output=True),
}


@pytest.mark.parametrize("name", FILES)
def test_a_device_that_is_right_matches_whatever_the_files_ends(name: str, tmp_path: Path) -> None:
    report = verified(FILES[name](tmp_path / name))
    assert report.match, report
    assert report.faults == ()
    if name.endswith(".tflite"):
        assert report.largest_difference_steps == 0
    if name == "qdq.onnx":
        assert report.exact_share == 1.0


# --- what must not match ---


def collapsed(arrays: Weights, name: str) -> Weights:
    return {**arrays, name: np.zeros_like(arrays[name])}


def test_a_network_of_real_numbers_that_lost_a_layer_does_not_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = check.quantize

    def broken(graph: Graph, weights: Weights, samples: np.ndarray) -> tuple[QGraph, Weights]:
        qgraph, arrays = exact(graph, weights, samples)
        return qgraph, collapsed(arrays, f"{graph.nodes[-1].name}.weight")

    monkeypatch.setattr(check, "quantize", broken)
    report = verified(classifier(tmp_path / "net.onnx"))
    assert not report.match
    assert report.faults


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_device_that_computes_another_network_does_not_match(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantising is sound; the image is built from other numbers."""
    exact = check.inference_plan

    def other(qgraph: QGraph, arrays: Weights, limits: object, **more: object) -> object:
        changed = dict(arrays)
        name = f"{qgraph.graph.nodes[-1].name}.{part}"
        changed[name] = arrays[name][::-1].copy() if part == "weight" else arrays[name] + 4000
        return exact(qgraph, changed, limits, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(check, "inference_plan", other)
    report = verified(classifier(tmp_path / "net.onnx"))
    assert not report.match
    assert any("the same integers give in PyTorch" in fault for fault in report.faults)
    assert any("steps apart" in fault for fault in report.faults)


def test_a_network_that_8_bits_do_not_hold_does_not_match(tmp_path: Path) -> None:
    """Its answer is the small difference of two large sums."""
    weight = real(4, 24)
    large, arrays = np.full((1, 24), 40.0, np.float32), {}
    nodes = []
    for name, matrix, output in (("a", np.repeat(large, 4, 0) + weight, "p"), ("b", -np.repeat(large, 4, 0), "q")):
        made, constants = node("Gemm", matrix, source="x", output=output, transB=1)
        made.name = name
        nodes.append(made)
        arrays |= constants
    nodes.append(helper.make_node("Add", ["p", "q"], ["y"]))
    report = verified(write(tmp_path / "net.onnx", nodes, arrays, (1, 24)))
    assert not report.match
    assert report.import_error is not None and report.import_error < 1e-4
    assert any("8 bits are too few" in fault for fault in report.faults)
