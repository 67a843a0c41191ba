# SPDX-License-Identifier: Apache-2.0
"""What the ONNX importer promises: what onnxruntime computes, in real numbers and in integers, or a named refusal."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import resnet_cifar
import to_pt2
import torch
from onnx import TensorProto, helper, numpy_helper

import nets
from medyate import frontends
from medyate.errors import GraphError, MedyateError, ModelError, UnsupportedOpError
from medyate.ir import Imported, Quant
from medyate.plan.exponents import integer_tensors
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
    "MatMul over every pixel": (
        MAP,
        17,
        chain(node("Transpose", perm=[0, 2, 3, 1]), node("MatMul", real(4, 6)), node("Flatten")),
    ),
    "MatMul over a series": (
        SERIES,
        17,
        chain(node("Tanh"), node("Transpose", perm=[0, 2, 1]), node("MatMul", real(4, 6)), node("Flatten")),
    ),
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
    "Reshape inside": (
        MAP,
        17,
        chain(node("Relu"), node("Reshape", whole(1, 6, 4, 8)), node("Conv", real(2, 6, 2, 2))),
    ),
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


# --- quantised networks ---

QUANTISED = [
    pytest.param(form, per_channel, unsigned, id=f"{form}-{'channels' if per_channel else 'tensor'}-{kind}")
    for form in ("QDQ", "QOperator")
    for per_channel, unsigned, kind in ((True, False, "int8"), (False, True, "uint8"))
]


def quantise(
    source: Path, samples: np.ndarray, form: str, *, per_channel: bool, unsigned: bool, **options: Any
) -> Path:
    """The file as onnxruntime's own quantiser writes it."""
    import logging

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


def cifar10(count: int, first: int = 0) -> np.ndarray:
    with np.load(shared("data/cifar10/data.npz")) as data:
        images: np.ndarray = data["x_test"][first : first + count].transpose(0, 3, 1, 2).astype(np.float32)
    return images


def logits_of_ic(folder: Path) -> Path:
    """MLPerf Tiny's ResNet-8 in opset 13, which knows scales per channel; without the softmax, which magnifies."""
    from onnx import version_converter

    model = version_converter.convert_version(onnx.load(shared("models/ic_resnet8_cifar10_float.onnx")), 13)
    softmax = model.graph.node.pop()
    model.graph.output[0].name = softmax.input[0]
    onnx.save(model, folder / "ic.onnx")
    return folder / "ic.onnx"


def exported(name: str, folder: Path) -> Path:
    """A network of tests/nets.py, or the trained ResNet-20."""
    if name == "resnet20":
        module, extent = to_pt2.module(shared("models/resnet20-12fca82f.th"))
        x = torch.zeros(extent)
    else:
        module, x = nets.build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the legacy exporter announces its end at every call
        torch.onnx.export(module, (x,), str(folder / "net.onnx"), dynamo=False, opset_version=13)
    return folder / "net.onnx"


def run_quantised(imported: Imported, samples: np.ndarray) -> tuple[np.ndarray, Quant]:
    """(real outputs, their scale) of the device's integers."""
    qgraph = imported.qgraph
    assert qgraph is not None
    x, y = qgraph.quant[qgraph.graph.input], qgraph.quant[qgraph.graph.output]
    steps = np.clip(np.rint(samples / np.float32(x.scale)) + x.zero, -128, 127).astype(np.float64)
    height, width, channels = qgraph.graph.shapes[qgraph.graph.input]
    with torch.no_grad():
        shaped = torch.from_numpy(steps.reshape(-1, channels, height, width))
        found = run_integers(qgraph, integer_tensors(imported.weights), shaped).numpy()
    return (found.reshape(len(samples), -1) - y.zero) * y.scale, y


def compare(path: Path, samples: np.ndarray) -> tuple[float, float, Imported]:
    """(largest difference in output steps, share of equal predictions, network)."""
    imported = frontends.load(path)
    assert imported.qgraph is not None
    assert set(imported.qgraph.quant) == set(imported.graph.shapes)
    got, quant = run_quantised(imported, samples)
    want = run_onnx(path, samples)
    agree = float((got.argmax(1) == want.argmax(1)).mean())
    return round(float(np.abs(got - want).max() / quant.scale), 3), agree, imported


NETWORKS = ("ic", "ds_cnn", "resnet20", "mobilenet_v2")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("form", "per_channel", "unsigned"), QUANTISED)
def test_a_quantised_network_computes_what_onnxruntime_computes(
    name: str, form: str, per_channel: bool, unsigned: bool, tmp_path: Path
) -> None:
    source = logits_of_ic(tmp_path) if name == "ic" else exported(name, tmp_path)
    height, width = (49, 10) if name == "ds_cnn" else (32, 32)
    if name == "ds_cnn":
        samples = np.random.default_rng(4).normal(size=(264, 1, height, width)).astype(np.float32)
    else:
        samples = cifar10(264) / np.float32(1 if name == "ic" else 128)
    if name == "resnet20":
        mean, deviation = (np.array(v, np.float32)[:, None, None] for v in (resnet_cifar.MEAN, resnet_cifar.DEVIATION))
        samples = (samples * np.float32(128 / 255) - mean) / deviation
    path = quantise(source, samples[:64], form, per_channel=per_channel, unsigned=unsigned)
    worst, agree, imported = compare(path, samples[64:])
    print(name, form, per_channel, unsigned, worst, agree)
    assert not imported.notes
    assert worst <= 2
    assert agree >= 0.99


def quantised_case(
    tmp_path: Path,
    nodes: Sequence[Any],
    arrays: Mapping[str, Any],
    form: str = "QDQ",
    extent: Sequence[int] = MAP,
    *,
    per_channel: bool = False,
    unsigned: bool = False,
    **options: Any,
) -> tuple[Path, np.ndarray]:
    """(quantised file, samples within its calibration)."""
    path = write(tmp_path / "net.onnx", nodes, arrays, extent, 13)
    samples = np.random.default_rng(5).normal(size=(40, *extent[1:])).astype(np.float32)
    kinds = {"per_channel": per_channel, "unsigned": unsigned}
    return quantise(path, samples, form, **kinds, **options), samples


FUNCTIONS: Mapping[str, tuple[list[Any], dict[str, Any]]] = {
    "LeakyRelu": chain(node("Conv", CONV), node("LeakyRelu", alpha=0.3), node("Conv", real(2, 6, 3, 3))),
    "Sigmoid": chain(node("Conv", CONV), node("Sigmoid"), node("Conv", real(2, 6, 3, 3))),
    "HardSwish": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("HardSigmoid", ["a"], ["b"], alpha=1 / 6, beta=0.5),
            helper.make_node("Mul", ["a", "b"], ["c"]),
            helper.make_node("Conv", ["c", "v"], ["y"]),
        ],
        {"w": CONV, "v": real(2, 6, 3, 3)},
    ),
    "squeeze and excite": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("GlobalAveragePool", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "u"], ["c"]),
            helper.make_node("Sigmoid", ["c"], ["d"]),
            helper.make_node("Mul", ["a", "d"], ["e"]),
            helper.make_node("Conv", ["e", "v"], ["y"]),
        ],
        {"w": CONV, "u": real(6, 6, 1, 1), "v": real(2, 6, 3, 3)},
    ),
    "Concat of two scales": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Conv", ["x", "v"], ["b"]),
            helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
            helper.make_node("Conv", ["c", "u"], ["y"]),
        ],
        {"w": CONV, "v": 5 * CONV[:2], "u": real(2, 8, 3, 3)},
    ),
    "moves and pools": chain(
        node("Conv", CONV, pads=[1, 1, 1, 1]),
        node("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Pad", whole(0, 1, 1, 0, 0, 1, 0, 2)),
        node("Resize", None, np.array([1, 1, 2, 2], np.float32), mode="nearest"),
        node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Transpose", perm=[0, 2, 3, 1]),
        node("Reshape", whole(1, -1)),
        node("Gemm", real(200, 7) / 5, real(7)),
    ),
    "constants": chain(
        node("Conv", CONV),
        node("Mul", np.abs(real(6, 1, 1)) + np.float32(0.5)),
        node("Add", real(1, 6, 1, 1)),
        node("Relu"),
        node("Conv", real(2, 6, 3, 3)),
    ),
    "MatMul and Add": chain(
        node("Conv", CONV), node("Relu"), node("Flatten"), node("MatMul", real(144, 5)), node("Add", real(5))
    ),
    "series": chain(
        node("Reshape", whole(1, 4, 48)),
        node("Conv", real(6, 4, 5), real(6), strides=[2]),
        node("Relu"),
        node("GlobalAveragePool"),
        node("Flatten"),
        node("Gemm", real(6, 5)),
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("form", "per_channel", "unsigned"), QUANTISED)
def test_a_quantised_operation_computes_what_onnxruntime_computes(
    name: str, form: str, per_channel: bool, unsigned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, arrays = FUNCTIONS[name]
    path, samples = quantised_case(tmp_path, nodes, arrays, form, per_channel=per_channel, unsigned=unsigned)
    worst, _, _ = compare(path, samples)
    assert worst <= 2


@pytest.mark.parametrize(("option", "left"), [("ActivationSymmetric", 1), ("QDQKeepRemovableActivations", 0)])
def test_a_clamp_stays_where_it_has_a_scale_of_its_own(
    option: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, arrays = chain(node("Conv", CONV), node("Relu"), node("Conv", real(2, 6, 3, 3)))
    path, samples = quantised_case(tmp_path, nodes, arrays, extra_options={option: True})
    worst, _, imported = compare(path, samples)
    assert worst <= 1
    assert [n.op for n in imported.graph].count("activation") == left


def test_weights_may_be_uint8_with_a_zero_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.quantization import QuantType

    nodes, arrays = chain(node("Conv", CONV + np.float32(1.0)), node("Relu"), node("Conv", real(2, 6, 3, 3)))
    path, samples = quantised_case(tmp_path, nodes, arrays, unsigned=True, weight_type=QuantType.QUInt8)
    worst, _, imported = compare(path, samples)
    assert worst <= 1
    assert any(name.endswith(".zero") and array != 0 for name, array in imported.weights.items())


def test_a_clamp_between_a_layer_and_its_scale_is_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other quantisers leave Relu in front of QuantizeLinear."""
    scales = {"s": np.float32(0.05), "z": np.int8(-3), "sw": np.float32(0.01), "zw": np.int8(0)}
    weight = RANDOM.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("DequantizeLinear", ["q", "sw", "zw"], ["w"]),
        helper.make_node("Conv", ["b", "w", "bias"], ["c"]),
        helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "s", "z"], ["e"]),
        helper.make_node("DequantizeLinear", ["e", "s", "z"], ["y"]),
    ]
    arrays = {**scales, "q": weight, "bias": real(6), "low": np.float32(0), "high": np.float32(4)}
    path = write(tmp_path / "net.onnx", nodes, arrays, opset=13)
    worst, _, imported = compare(path, real(20, 4, 8, 6))
    assert worst <= 1
    assert [n.op for n in imported.graph] == ["conv2d"]


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_softmax_has_the_scale_of_its_kernel(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, arrays = chain(
        node("Conv", CONV), node("Flatten"), node("Gemm", real(144, 5) / np.float32(20), real(5)), node("Softmax")
    )
    path, samples = quantised_case(tmp_path, nodes, arrays, form, unsigned=True)
    worst, _, imported = compare(path, samples)
    assert worst <= 2
    assert imported.graph.nodes[-1].op == "softmax"
    assert imported.qgraph is not None
    assert imported.qgraph.quant[imported.graph.output] == Quant(1 / 256, -128)


def test_input_and_output_may_be_integers_and_weights_be_quantised_in_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QuantizeLinear of a weight, turned around behind it, as networks trained with quantisation have it."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("QuantizeLinear", ["real", "sw", "zw"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "sw", "zw"], ["w"], axis=0),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "s2", "z"], ["y"]),
    ]
    weight, scales = real(5, 24), np.linspace(0.02, 0.03, 5, dtype=np.float32)
    arrays = {"s": np.float32(0.03), "s2": np.float32(0.1), "z": np.uint8(7), "real": weight, "sw": scales}
    path = write(tmp_path / "net.onnx", nodes, {**arrays, "zw": np.zeros(5, np.int8)}, VECTOR, 13)
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, path)
    stored = RANDOM.integers(0, 256, (10, 24)).astype(np.uint8)
    got, quant = run_quantised(frontends.load(path), (stored.astype(np.float32) - 7) * np.float32(0.03))
    want = run_onnx(path, stored).astype(np.float64)
    assert np.abs(got / quant.scale + quant.zero + 128 - want).max() <= 1.001


def test_a_bias_that_could_overflow_is_clamped_with_a_note(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("QLinearConv", ["a", "s", "z", "w", "s", "z", "s", "z", "bias"], ["b"], "the_layer"),
        helper.make_node("DequantizeLinear", ["b", "s", "z"], ["y"]),
    ]
    bias = np.array([2**31 - 1, 5], np.int32)
    arrays = {"s": np.float32(0.1), "z": np.int8(0), "w": np.ones((2, 4, 1, 1), np.int8), "bias": bias}
    imported = frontends.load(write(tmp_path / "net.onnx", nodes, arrays))
    assert imported.notes == ("'the_layer': 1 biases were clamped, so that 32 bits cannot overflow",)
    assert imported.weights["the_layer.bias"][1] == 5


# --- refusals name what blocks ---

REFUSED: Mapping[str, tuple[tuple[list[Any], dict[str, Any]], str]] = {
    "an unknown operation": (chain(node("Erf")), "there is no such operation"),
    "weights that are no constant": (
        ([helper.make_node("Conv", ["x", "x"], ["y"], "the_Conv_0")], {}),
        "'x' is not a constant",
    ),
    "three dimensions": (chain(node("Conv", real(2, 4, 3, 3, 3))), "a kernel of 3 dimensions"),
    "groups that do not fit": (chain(node("Conv", real(3, 2, 1, 1), group=2)), "2 groups"),
    "a large window": (chain(node("Conv", real(2, 4, 17, 1), pads=[9, 0, 9, 0])), "above 16"),
    "a constant per pixel": (chain(node("Add", real(8, 6))), "not one number per channel"),
    "a divided constant": (
        ([helper.make_node("Div", ["c", "x"], ["y"], "the_Div_0")], {"c": np.float32(1)}),
        "a constant is divided",
    ),
    "two batches": (chain(node("Reshape", whole(2, -1))), "none of one sample"),
    "a mean over channels": (chain(node("ReduceMean", axes=[1])), "height and width"),
    "a squeezed batch": (chain(node("GlobalMaxPool"), node("Squeeze")), "the axes None"),
    "a softmax over pixels": (chain(node("Softmax", axis=2)), "a softmax over axis 2"),
    "four groups of axes": (
        chain(node("Reshape", whole(1, 4, 4, 2, 6)), node("Transpose", perm=[0, 1, 3, 2, 4])),
        "an order of",
    ),
    "a mixed batch": (chain(node("Transpose", perm=[1, 0, 2, 3])), "an order of"),
    "reflections": (chain(node("Pad", whole(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")), "only zeros"),
    "another border": (chain(node("Pad", whole(0, 0, 1, 1, 0, 0, 1, 1), np.float32(2))), "only zeros"),
    "linear interpolation": (
        chain(node("Resize", None, np.array([1, 1, 2, 2], np.float32), mode="linear")),
        "only the nearest pixel",
    ),
    "an odd factor": (
        chain(node("Resize", None, np.array([1, 1, 1.5, 1], np.float32), mode="nearest")),
        "no whole factor",
    ),
    "another hard sigmoid": (chain(node("HardSigmoid")), "alpha is 0.2"),
    "a steep slope": (chain(node("LeakyRelu", alpha=2.0)), "a slope of 2.0"),
    "a backward slice": (chain(node("Slice", whole(7), whole(-9), whole(2), whole(-1))), "a step of -1"),
    "nothing left": (chain(node("Slice", whole(3), whole(3), whole(2))), "nothing is left"),
    "a scale that is none": (chain(node("QuantizeLinear", np.float32(0), np.int8(0))), "no scales"),
    "int16": (
        (
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"], "the_first"),
                helper.make_node("DequantizeLinear", ["a", "s", "z"], ["y"], "the_second"),
            ],
            {"s": np.float32(1), "z": np.int16(0)},
        ),
        "'the_first'.*activations of int16",
    ),
    "another scale": (
        chain(node("QuantizeLinear", np.float32(1), np.int8(0)), node("DequantizeLinear", np.float32(2), np.int8(0))),
        "not that with which",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused_by_node(name: str, tmp_path: Path) -> None:
    (nodes, arrays), reason = REFUSED[name]
    opset = 21 if name == "int16" else 13
    with pytest.raises(UnsupportedOpError, match=reason) as refusal:
        frontends.load(write(tmp_path / "net.onnx", nodes, arrays, opset=opset))
    assert refusal.value.node in (nodes[0].name, nodes[-1].name)
    assert "GlobalAveragePool" in refusal.value.remedy


def test_a_quantised_network_with_a_real_layer_is_refused(tmp_path: Path) -> None:
    nodes, arrays = chain(node("Conv", CONV), node("Relu"), node("Conv", real(2, 6, 3, 3)))
    path, _ = quantised_case(tmp_path, nodes, arrays, nodes_to_exclude=["the_Conv_2"])
    with pytest.raises(UnsupportedOpError, match="its weights are real numbers"):
        frontends.load(path)


def test_a_quantised_network_with_a_real_tensor_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("Add", ["b", "b"], ["y"]),
    ]
    with pytest.raises(ModelError, match="'y' of a quantised model has no scale"):
        frontends.load(write(tmp_path / "net.onnx", nodes, {"s": np.float32(1), "z": np.int8(0)}))


def test_a_network_without_layers_is_refused(tmp_path: Path) -> None:
    for nodes in ([helper.make_node("Identity", ["x"], ["y"])], []):
        with pytest.raises(ModelError, match=r"no layers|not a sound"):
            frontends.load(write(tmp_path / "net.onnx", nodes, {}))


@pytest.mark.parametrize("extent", [(2, 4, 8, 6), (1, 4, "height", 6), (4,), (1, 2, 2, 2, 2), (1, 0, 8, 6)], ids=str)
def test_an_input_of_another_form_is_refused(extent: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is expected"):
        frontends.load(write(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, extent))


def test_values_that_are_not_finite_are_refused_by_layer(tmp_path: Path) -> None:
    broken = CONV.copy()
    broken[1, 2, 0, 0] = np.nan
    for part in (node("Conv", broken), node("Mul", np.float32(np.inf)), node("Add", np.float32(np.nan))):
        with pytest.raises(GraphError, match=f"'{part[0].name}_0' holds NaN"):
            frontends.load(write(tmp_path / "net.onnx", *chain(part)))


def test_a_huge_constant_is_refused_before_it_is_made(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", *chain(node("Conv", CONV)))
    model = onnx.load(path)
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    onnx.save(model, path)
    with pytest.raises(ModelError, match="is larger than"):
        frontends.load(path)
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["c"], "huge"), helper.make_node("Add", ["x", "c"], ["y"])]
    with pytest.raises(UnsupportedOpError, match=r"'huge'.*no microcontroller can hold"):
        frontends.load(write(tmp_path / "net.onnx", nodes, {"size": whole(1 << 20, 1 << 20)}))


def test_a_loop_over_constants_is_refused_unrun(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("k", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    nodes = [
        helper.make_node("Loop", ["", "true"], [], "endless", body=body),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    with pytest.raises(ModelError):
        frontends.load(write(tmp_path / "net.onnx", nodes, {"true": np.array(True)}))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(kept: float, tmp_path: Path) -> None:
    content = write(tmp_path / "good.onnx", *chain(node("Conv", CONV))).read_bytes()
    (tmp_path / "bad.onnx").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(MedyateError):
        frontends.load(tmp_path / "bad.onnx")


def test_damaged_bytes_raise_no_other_error(tmp_path: Path) -> None:
    source = shared("models/ic_resnet8_cifar10_float.onnx").read_bytes()
    header, path = len(source) - 20000, tmp_path / "bad.onnx"
    for seed in range(60):
        random = np.random.default_rng(seed)
        content = bytearray(source)
        for position in random.integers(0, 4000 if seed % 2 else header, 4):
            content[position] = int(random.integers(0, 256))
        path.write_bytes(content)
        try:
            frontends.load(path)
        except MedyateError as error:
            assert "\n" not in str(error)


# --- constants in other files ---


def with_external(path: Path, location: str, **entries: str) -> Path:
    """A file whose only constant lies elsewhere."""
    write(path, *chain(node("Conv", CONV)))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_constants_may_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.bin").write_bytes(b"1234" + CONV.tobytes())
    assert_same(with_external(tmp_path / "net.onnx", "data/weights.bin", offset="4", length=str(CONV.nbytes)))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "folder/secret.bin", "", "..\\a"])
def test_constants_outside_the_folder_are_refused_unread(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(CONV.tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "folder").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="outside the model's folder"):
        frontends.load(with_external(inside / "net.onnx", location))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [({"offset": "8"}, "does not lie in"), ({"length": "3"}, "does not lie in"), ({"offset": "x"}, "not a sound")],
)
def test_constants_must_fit_their_file(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(CONV.tobytes())
    with pytest.raises(ModelError, match=reason):
        frontends.load(with_external(tmp_path / "net.onnx", "weights.bin", **entries))


def test_a_missing_file_of_constants_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'nowhere.bin', which does not exist"):
        frontends.load(with_external(tmp_path / "net.onnx", "nowhere.bin"))


@pytest.mark.parametrize("opset", range(11, 24))
def test_every_opset_is_read(opset: int, tmp_path: Path) -> None:
    nodes, arrays = chain(
        *(node("Conv", CONV), node("BatchNormalization", *(np.abs(real(6)) + 0.1 for _ in range(4)))),
        *(node("Clip", np.float32(0), np.float32(6)), node("GlobalAveragePool")),
        *(node("Reshape", whole(0, -1)), node("Gemm", real(6, 3)), node("Softmax")),
    )
    path = write(tmp_path / "net.onnx", nodes, arrays, opset=opset)
    assert_same(path)
