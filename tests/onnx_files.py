# SPDX-License-Identifier: Apache-2.0
"""ONNX files made for tests, and what onnxruntime and the IR compute with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from medyate import frontends
from medyate.ir import Imported
from medyate.oracle.onnx import defined_session
from medyate.real import Network

TOLERANCE = 1e-4

MAP, SERIES, VECTOR = (1, 4, 8, 6), (1, 4, 30), (1, 24)


# --- files ---


def real(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def node(op: str, *arrays: Any, source: str = "x", output: str = "y", **attributes: Any) -> tuple[Any, dict[str, Any]]:
    """One node that reads `source` and constants; None leaves an input out."""
    names = {f"{output}/{k}": array for k, array in enumerate(arrays) if array is not None}
    inputs = [source, *(f"{output}/{k}" if array is not None else "" for k, array in enumerate(arrays))]
    return helper.make_node(op, inputs, [output], f"the_{op}", **attributes), names


def chain(*parts: tuple[Any, dict[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
    """Nodes one behind another, from 'x' to 'y'; a part may read 'x' again."""
    nodes, constants = [], {}
    for position, (made, arrays) in enumerate(parts):
        copied, renamed = onnx.NodeProto(), {name: f"{position}:{name}" for name in arrays}
        copied.CopyFrom(made)
        copied.name = f"{made.name}_{position}"
        before = f"t{position - 1}" if position else "x"
        copied.input[:] = [renamed.get(name, before if name == "x" else name) for name in made.input]
        copied.output[:] = ["y" if position == len(parts) - 1 else f"t{position}"]
        nodes.append(copied)
        constants.update({renamed[name]: array for name, array in arrays.items()})
    return nodes, constants


def write(
    path: Path, nodes: Sequence[Any], arrays: Mapping[str, Any], extent: Sequence[Any] = MAP, opset: int = 17
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, extent)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "values"]))
    onnx.save(model, path)
    return path


def quantise(
    source: Path, samples: np.ndarray, form: str, *, per_channel: bool, unsigned: bool, **options: Any
) -> Path:
    """The file as onnxruntime's own quantiser writes it."""
    from onnxruntime import quantization as q

    class Samples(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            name = onnx.load(source).graph.input[0].name
            self.rest: Iterator[dict[str, np.ndarray]] = iter([{name: x[None]} for x in samples])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    kind = q.QuantType.QUInt8 if unsigned else q.QuantType.QInt8
    target = source.with_suffix(".quantised.onnx")
    logging.disable(logging.WARNING)  # it recommends a preprocessing that changes no test
    try:
        q.quantize_static(
            *(source, target, Samples(), q.QuantFormat[form]), per_channel=per_channel, activation_type=kind, **options
        )
    finally:
        logging.disable(logging.NOTSET)
    return target


# --- outputs ---


def session(path: Path) -> Any:
    return defined_session(onnx.load(path))


def run_onnx(path: Path, samples: np.ndarray) -> np.ndarray:
    running = session(path)
    name = running.get_inputs()[0].name
    return np.concatenate([running.run(None, {name: x[None]})[0].reshape(1, -1) for x in samples])


def run_real(imported: Imported, x: np.ndarray) -> np.ndarray:
    """Channel-first values into the input as the IR has it, and out of it."""
    height, width, channels = imported.graph.shapes[imported.graph.input]
    y = Network(imported.graph, imported.weights)(torch.from_numpy(x.reshape(1, channels, height, width)))
    result: np.ndarray = y.detach().numpy().reshape(1, -1)
    return result


def assert_same(path: Path, extent: Sequence[int] = MAP, scale: float = 1.0) -> Imported:
    imported = frontends.load(path)
    x = real(*extent) * np.float32(scale)
    got, want = run_real(imported, x), run_onnx(path, x)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()
    return imported
