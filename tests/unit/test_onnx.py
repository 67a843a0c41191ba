# SPDX-License-Identifier: Apache-2.0
"""What the ONNX importer promises: what onnxruntime computes, in real numbers and in integers, or a named refusal."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import nets
from medyate import frontends
from medyate.errors import GraphError, MedyateError, ModelError, UnsupportedOpError
from medyate.ir import Imported, Quant
from medyate.plan.exponents import integer_tensors
from medyate.quantize import scheme
from medyate.quantize.apply import run_integers
from medyate.real import Network
from shared_files import shared

TOLERANCE = 1e-4
MAP, SERIES, VECTOR = (1, 4, 8, 6), (1, 4, 30), (1, 24)
RANDOM = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- helpers ---


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


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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


# --- real numbers: each operation ---

CONV = real(6, 4, 3, 3)
ONES = np.ones(1, np.float32)
NODES: Mapping[str, tuple[tuple[int, ...], int, tuple[list[Any], dict[str, Any]]]] = {
    "asymmetric pads": (MAP, 11, chain(node("Conv", CONV, pads=[0, 2, 1, 0], strides=[2, 1]))),
    "groups and dilation": (
        MAP,
        17,
        chain(node("Conv", real(8, 2, 3, 2), real(8), group=2, dilations=[2, 1])),
    ),
    "depthwise": (MAP, 17, chain(node("Conv", real(4, 1, 3, 3), group=4, auto_pad="SAME_LOWER", strides=[2, 2]))),
    "depth multiplier": (MAP, 17, chain(node("Conv", real(8, 1, 3, 3), group=4))),
    "series": (SERIES, 17, chain(node("Conv", real(6, 4, 5), real(6), pads=[1, 3], strides=[2], dilations=[2]))),
    "series, same": (SERIES, 17, chain(node("Conv", real(4, 1, 4), group=4, auto_pad="SAME_UPPER", strides=[3]))),
    "Gemm": (VECTOR, 17, chain(node("Gemm", real(24, 5), real(1, 5), alpha=0.5, beta=2.0))),
    "Gemm behind a map": (MAP, 17, chain(node("Flatten"), node("Gemm", real(5, 192), real(5), transB=1))),
    "Gemm behind a long map": (
        (1, 2, 20, 3),
        17,
        chain(node("Conv", real(3, 2, 1, 1)), node("Flatten"), node("Gemm", real(5, 180), real(5), transB=1)),
    ),
    "MatMul and Add": (VECTOR, 17, chain(node("MatMul", real(24, 5)), node("Add", real(5)))),
    "MatMul over every pixel": (MAP, 17, chain(node("Transpose", perm=[0, 2, 3, 1]), node("MatMul", real(4, 6)), node("Flatten"))),
    "MatMul over a series": (SERIES, 17, chain(node("Tanh"), node("Transpose", perm=[0, 2, 1]), node("MatMul", real(4, 6)), node("Flatten"))),
    "MatMul over a width": (MAP, 17, chain(node("MatMul", real(6, 3)), node("Flatten"))),
    "BatchNormalization": (
        MAP,
        17,
        chain(node("BatchNormalization", real(4), real(4) + 1, real(4), np.abs(real(4)) + 0.1, epsilon=1e-3)),
    ),
    "norm of a series": (
        SERIES,
        17,
        chain(node("BatchNormalization", real(4), real(4) + 1, real(4), np.abs(real(4)) + 0.1)),
    ),
    "norm of a vector": (
        VECTOR,
        17,
        chain(node("BatchNormalization", real(24), real(24), real(24), np.abs(real(24)) + 0.1)),
    ),
    "Add of a constant": (MAP, 17, chain(node("Add", real(4, 1, 1)))),
    "Mul of a number": (MAP, 17, chain(node("Mul", np.float32(3.0)))),
    "Sub of a constant": (MAP, 17, chain(node("Sub", real(1, 4, 1, 1)))),
    "Div by a constant": (MAP, 17, chain(node("Div", real(4, 1, 1) + 3))),
    "a factor in another order": (
        MAP,
        17,
        chain(node("Transpose", perm=[0, 2, 3, 1]), node("Mul", real(4)), node("Transpose", perm=[0, 3, 1, 2])),
    ),
    "AveragePool": (MAP, 17, chain(node("AveragePool", kernel_shape=[3, 2], strides=[1, 2]))),
    "AveragePool, pads left out": (
        MAP,
        17,
        chain(node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])),
    ),
    "AveragePool, pads counted": (
        MAP,
        17,
        chain(node("AveragePool", kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 2, 1], count_include_pad=1)),
    ),
    "AveragePool, rounded up": (
        (1, 4, 8, 7),
        17,
        chain(node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    ),
    "AveragePool of a series": (SERIES, 17, chain(node("AveragePool", kernel_shape=[4], strides=[3], pads=[1, 2]))),
    "MaxPool": (MAP, 17, chain(node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 1]))),
    "MaxPool, rounded up": (MAP, 17, chain(node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1))),
    "MaxPool of a series": (SERIES, 11, chain(node("MaxPool", kernel_shape=[3], auto_pad="SAME_UPPER"))),
    "GlobalAveragePool": (MAP, 17, chain(node("GlobalAveragePool"))),
    "GlobalAveragePool of a series": (SERIES, 17, chain(node("GlobalAveragePool"), node("Flatten"))),
    "GlobalMaxPool": (MAP, 17, chain(node("GlobalMaxPool"))),
    "ReduceMean": (MAP, 13, chain(node("ReduceMean", axes=[2, 3], keepdims=0))),
    "ReduceMean, new": (MAP, 18, chain(node("ReduceMean", whole(-1, -2)))),
    "ReduceMean over rows": (MAP, 18, chain(node("ReduceMean", whole(2)))),
    "ReduceMean, channel-last": (
        MAP,
        13,
        chain(node("Transpose", perm=[0, 2, 3, 1]), node("ReduceMean", axes=[1, 2], keepdims=0)),
    ),
    "Relu": (MAP, 17, chain(node("Relu"))),
    "Clip": (MAP, 17, chain(node("Clip", np.float32(-0.5), np.float32(1.0)))),
    "Clip from below": (MAP, 11, chain(node("Clip", np.float32(0.2)))),
    "Clip, old": (MAP, 9, chain(node("Clip", min=-0.5, max=0.5))),
    "LeakyRelu": (MAP, 17, chain(node("LeakyRelu", alpha=0.2))),
    "HardSwish": (MAP, 17, chain(node("HardSwish"))),
    "HardSigmoid": (MAP, 17, chain(node("HardSigmoid", alpha=1 / 6))),
    "Sigmoid": (MAP, 17, chain(node("Sigmoid"))),
    "Tanh": (SERIES, 17, chain(node("Tanh"))),
    "Elu": (MAP, 17, chain(node("Elu"))),
    "Gelu": (MAP, 20, chain(node("Gelu"))),
    "Softmax": (VECTOR, 17, chain(node("Softmax"))),
    "Softmax, old": (MAP, 11, chain(node("GlobalMaxPool"), node("Softmax"))),
    "Softmax over channels": (MAP, 17, chain(node("GlobalMaxPool"), node("Softmax", axis=1))),
    "Reshape of a map": (MAP, 17, chain(node("Reshape", whole(0, 2, -1, 8)), node("Relu"))),
    "Reshape to a map": (VECTOR, 17, chain(node("Reshape", whole(1, 2, 3, 4)), node("Conv", real(2, 2, 2, 2)))),
    "Reshape inside": (MAP, 17, chain(node("Relu"), node("Reshape", whole(1, 6, 4, 8)), node("Conv", real(2, 6, 2, 2)))),
    "Squeeze": (MAP, 17, chain(node("GlobalMaxPool"), node("Squeeze", whole(2, 3)), node("Gemm", real(4, 3)))),
    "Unsqueeze": (SERIES, 17, chain(node("Unsqueeze", whole(3)), node("Conv", real(2, 4, 3, 1)))),
    "Unsqueeze to one channel": (SERIES, 17, chain(node("Unsqueeze", whole(1)), node("Conv", real(2, 1, 3, 3)))),
    "Transpose of a map": (MAP, 17, chain(node("Transpose", perm=[0, 2, 1, 3]), node("Conv", real(2, 8, 2, 2)))),
    "Transpose inside": (
        MAP,
        17,
        chain(
            node("Conv", CONV),
            node("Transpose", perm=[0, 3, 2, 1]),
            node("Conv", real(2, 4, 2, 2)),
        ),
    ),
    "shuffled channels": (
        MAP,
        17,
        chain(
            node("Relu"),
            node("Reshape", whole(1, 2, 2, 8, 6)),
            node("Transpose", perm=[0, 2, 1, 3, 4]),
            node("Reshape", whole(1, 4, 8, 6)),
            node("Conv", CONV),
        ),
    ),
    "channel-last Flatten": (
        MAP,
        17,
        chain(node("Conv", CONV), node("Transpose", perm=[0, 2, 3, 1]), node("Flatten"), node("Gemm", real(144, 3))),
    ),
    "Pad": (MAP, 17, chain(node("Pad", whole(0, 0, 1, 2, 0, 1, 0, -1)))),
    "Pad of given axes": (MAP, 18, chain(node("Pad", whole(2, 1), np.float32(0), whole(-1)))),
    "Pad of a series": (SERIES, 13, chain(node("Pad", whole(0, 1, 2, 0, 0, 3)), node("Conv", real(2, 5, 3)))),
    "Slice": (MAP, 17, chain(node("Slice", whole(1, 0), whole(9, -1), whole(2, -1), whole(2, 3)))),
    "Slice of a vector": (VECTOR, 17, chain(node("Slice", whole(4), whole(20), whole(1)), node("Gemm", real(16, 3)))),
    "Resize": (MAP, 17, chain(node("Resize", None, np.array([1, 1, 2, 3], np.float32), mode="nearest"))),
    "Resize to sizes": (
        MAP,
        13,
        chain(
            node(
                *("Resize", None, None, whole(1, 4, 16, 12)),
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        ),
    ),
    "Resize to less": (
        MAP,
        13,
        chain(
            node(
                *("Resize", None, np.array([1, 1, 0.5, 0.5], np.float32)),
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        ),
    ),
    "Resize, old": (MAP, 10, chain(node("Resize", np.array([1, 1, 2, 2], np.float32), mode="nearest"))),
    "Upsample": (MAP, 9, chain(node("Upsample", np.array([1, 1, 2, 2], np.float32), mode="nearest"))),
    "Identity, Dropout, Cast": (
        MAP,
        13,
        chain(node("Identity"), node("Dropout"), node("Cast", to=TensorProto.FLOAT), node("Relu")),
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_an_operation_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    extent, opset, (nodes, arrays) = NODES[name]
    assert_same(write(tmp_path / "net.onnx", nodes, arrays, extent, opset), extent)


BRANCHES: Mapping[str, tuple[tuple[int, ...], list[Any], dict[str, Any]]] = {
    "Concat of channels": (
        MAP,
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Tanh", ["x"], ["b"]),
            helper.make_node("Concat", ["a", "b", "x"], ["y"], axis=1),
        ],
        {},
    ),
    "Concat of rows, one of them alone": (
        MAP,
        [
            helper.make_node("ReduceMean", ["x"], ["a"], axes=[2]),
            helper.make_node("Concat", ["a", "x"], ["y"], axis=-2),
        ],
        {},
    ),
    "Concat of flattened maps": (
        MAP,
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Flatten", ["a"], ["b"]),
            helper.make_node("GlobalMaxPool", ["x"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("Concat", ["b", "d"], ["y"], axis=1),
        ],
        {},
    ),
    "Concat, channel-last": (
        MAP,
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Transpose", ["r"], ["a"], perm=[0, 2, 3, 1]),
            helper.make_node("Tanh", ["a"], ["b"]),
            helper.make_node("Concat", ["a", "b"], ["c"], axis=3),
            helper.make_node("Transpose", ["c"], ["y"], perm=[0, 3, 1, 2]),
        ],
        {},
    ),
    "Split and Add": (
        MAP,
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=1),
            helper.make_node("Relu", ["a"], ["c"]),
            helper.make_node("Add", ["c", "b"], ["y"]),
        ],
        {},
    ),
    "Split by sizes": (
        VECTOR,
        [
            helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
            helper.make_node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        {"sizes": whole(10, 14)},
    ),
    "squeeze and excite": (
        MAP,
        [
            helper.make_node("GlobalAveragePool", ["x"], ["a"]),
            helper.make_node("Conv", ["a", "w"], ["b"]),
            helper.make_node("HardSigmoid", ["b"], ["c"], alpha=1 / 6, beta=0.5),
            helper.make_node("Mul", ["c", "x"], ["y"]),
        ],
        {"w": real(4, 4, 1, 1)},
    ),
    "squeeze and excite by Gemm": (
        MAP,
        [
            helper.make_node("ReduceMean", ["x"], ["a"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["a", "w"], ["b"]),
            helper.make_node("Sigmoid", ["b"], ["c"]),
            helper.make_node("Reshape", ["c", "sizes"], ["d"]),
            helper.make_node("Mul", ["x", "d"], ["y"]),
        ],
        {"w": real(4, 4), "sizes": whole(-1, 4, 1, 1)},
    ),
    "hard swish in two pieces": (
        MAP,
        [
            helper.make_node("HardSigmoid", ["x"], ["a"], alpha=1 / 6, beta=0.5),
            helper.make_node("Mul", ["x", "a"], ["y"]),
        ],
        {},
    ),
    "hard swish in four pieces": (
        MAP,
        [
            helper.make_node("Add", ["x", "three"], ["a"]),
            helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
            helper.make_node("Mul", ["x", "b"], ["c"]),
            helper.make_node("Div", ["c", "six"], ["y"]),
        ],
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
    ),
    "a product in two orders": (
        MAP,
        [
            helper.make_node("Reshape", ["x", "sizes"], ["a"]),
            helper.make_node("Tanh", ["x"], ["b"]),
            helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3]),
            helper.make_node("Mul", ["a", "c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["y"]),
        ],
        {"sizes": whole(1, 8, 4, 6)},
    ),
    "sizes worked out from Shape": (
        MAP,
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Shape", ["r"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            helper.make_node("ConstantOfShape", ["one"], ["minus"], value=numpy_helper.from_array(whole(-1))),
            helper.make_node("Unsqueeze", ["n", "zeros"], ["u"]),
            helper.make_node("Concat", ["u", "minus"], ["sizes"], axis=0),
            helper.make_node("Reshape", ["r", "sizes"], ["f"]),
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(real(192, 3))),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        {"zero": np.array(0, np.int64), "zeros": whole(0), "one": whole(1)},
    ),
    "weights stored as integers": (
        MAP,
        [
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0),
            helper.make_node("Conv", ["x", "w"], ["y"]),
        ],
        {
            "q": RANDOM.integers(-127, 128, (5, 4, 3, 3)).astype(np.int8),
            "s": np.linspace(0.01, 0.02, 5, dtype=np.float32),
            "z": np.zeros(5, np.int8),
        },
    ),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_a_graph_with_branches_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    extent, nodes, arrays = BRANCHES[name]
    path = write(tmp_path / "net.onnx", nodes, arrays, extent, 13)
    assert_same(path, extent, 3.0)


# --- layouts, whole networks ---


def test_a_channel_last_input_is_taken_as_it_is(tmp_path: Path) -> None:
    nodes, arrays = chain(node("Mul", np.float32(0.5)), node("Transpose", perm=[0, 3, 1, 2]), node("Conv", CONV))
    path = write(tmp_path / "net.onnx", nodes, arrays, ("batch", 8, 6, 4))
    imported = frontends.load(path)
    assert imported.graph.shapes["x"] == (8, 6, 4)
    assert not any(n.op in ("move", "reshape") for n in imported.graph)
    x = real(1, 8, 6, 4)
    assert np.allclose(run_real(imported, x.transpose(0, 3, 1, 2)), run_onnx(path, x), atol=1e-5)


def test_an_input_that_is_reshaped_at_once_has_that_shape(tmp_path: Path) -> None:
    nodes, arrays = chain(node("Reshape", whole(-1, 1, 6, 4)), node("Conv", real(3, 1, 3, 3)))
    path = write(tmp_path / "net.onnx", nodes, arrays, ("batch", 24))
    assert assert_same(path, (1, 24)).graph.shapes["x"] == (6, 4, 1)


def test_flattening_between_a_map_and_its_layer_costs_nothing(tmp_path: Path) -> None:
    nodes, arrays = chain(
        node("Conv", CONV), node("Relu"), node("Unsqueeze", whole(1)), node("Flatten"), node("Gemm", real(144, 3))
    )
    imported = assert_same(write(tmp_path / "net.onnx", nodes, arrays))
    assert [n.op for n in imported.graph] == ["conv2d", "activation", "conv2d"]


def test_initialisers_may_be_listed_as_inputs(tmp_path: Path) -> None:
    nodes, arrays = chain(node("Conv", CONV))
    path = write(tmp_path / "net.onnx", nodes, arrays, ("N", 4, 8, 6))
    model = onnx.load(path)
    model.graph.input.insert(0, helper.make_tensor_value_info(next(iter(arrays)), TensorProto.FLOAT, CONV.shape))
    onnx.save(model, path)
    assert_same(path)


@pytest.mark.parametrize(
    "file",
    [
        "ic_resnet8_cifar10_float.onnx",
        "vww_mobilenetv1_025_96_float.onnx",
        "derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx",
        "derived/mcunet-5fps_imagenet128_dequant_fp32.onnx",
        "derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx",
    ],
)
def test_a_published_network_agrees_with_onnxruntime(file: str) -> None:
    path = shared(f"models/{file}")
    height, width, channels = (imported := frontends.load(path)).graph.shapes[imported.graph.input]
    assert not any(n.op in ("move", "reshape") for n in imported.graph)
    assert_same(path, (1, channels, height, width))
