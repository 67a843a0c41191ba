# SPDX-License-Identifier: Apache-2.0
"""One small ONNX graph for every operation, and for the ways in which operations meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnx_files import MAP, SERIES, VECTOR, chain, node, real, whole

CONV = real(6, 4, 3, 3)

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
    "PRelu": (MAP, 17, chain(node("PRelu", real(4, 1, 1)))),
    "PRelu, one slope": (MAP, 17, chain(node("PRelu", np.float32(0.3)))),
    "HardSwish": (MAP, 17, chain(node("HardSwish"))),
    "HardSigmoid": (MAP, 17, chain(node("HardSigmoid", alpha=1 / 6))),
    "Sigmoid": (MAP, 17, chain(node("Sigmoid"))),
    "Tanh": (SERIES, 17, chain(node("Tanh"))),
    "Elu": (MAP, 17, chain(node("Elu"))),
    "Gelu": (MAP, 20, chain(node("Gelu"))),
    "Gelu by tanh": (MAP, 20, chain(node("Gelu", approximate="tanh"))),
    "Selu": (MAP, 17, chain(node("Selu"))),
    "Softplus": (MAP, 17, chain(node("Softplus"))),
    "Mish": (MAP, 18, chain(node("Mish"))),
    "Abs": (MAP, 17, chain(node("Abs"))),
    "Neg": (MAP, 17, chain(node("Neg"))),
    "Exp": (MAP, 17, chain(node("Exp"))),
    "Max of numbers": (MAP, 17, chain(node("Max", np.float32(0.25)))),
    "Min of numbers": (MAP, 17, chain(node("Min", np.float32(0.25)))),
    "ReduceMax": (MAP, 13, chain(node("ReduceMax", axes=[2, 3], keepdims=0))),
    "ReduceMax over rows": (MAP, 18, chain(node("ReduceMax", whole(2)))),
    "ReduceSum": (MAP, 13, chain(node("ReduceSum", whole(2, 3), keepdims=0))),
    "ConvTranspose": (
        MAP,
        17,
        chain(node("ConvTranspose", real(4, 3, 3, 4), real(3), strides=[2, 2], pads=[1, 1, 0, 2])),
    ),
    "ConvTranspose, padded output": (
        MAP,
        17,
        chain(node("ConvTranspose", real(4, 3, 2, 2), strides=[3, 3], output_padding=[1, 2])),
    ),
    "ConvTranspose of a series": (SERIES, 17, chain(node("ConvTranspose", real(4, 5, 4), strides=[2], pads=[1, 1]))),
    "ConvTranspose without strides": (MAP, 17, chain(node("ConvTranspose", real(4, 1, 3, 3)))),
    "SpaceToDepth": (MAP, 17, chain(node("SpaceToDepth", blocksize=2))),
    "DepthToSpace": (MAP, 17, chain(node("Conv", real(12, 4, 1, 1)), node("DepthToSpace", blocksize=2))),
    "DepthToSpace by channels": (
        MAP,
        17,
        chain(node("Conv", real(12, 4, 1, 1)), node("DepthToSpace", blocksize=2, mode="CRD")),
    ),
    "AveragePool, pads counted and rounded up": (
        MAP,
        19,
        chain(node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1, ceil_mode=1)),
    ),
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
"""(extent of the input, opset, (nodes, constants)), all of real numbers."""

BRANCHES: Mapping[str, tuple[tuple[int, ...], list[Any], dict[str, Any]]] = {
    "Sub of tensors": (
        MAP,
        [helper.make_node("Tanh", ["x"], ["a"]), helper.make_node("Sub", ["a", "x"], ["y"])],
        {},
    ),
    "Max of tensors": (
        MAP,
        [helper.make_node("Tanh", ["x"], ["a"]), helper.make_node("Max", ["a", "x", "c"], ["y"])],
        {"c": np.float32(-0.25)},
    ),
    "Min of tensors": (
        MAP,
        [helper.make_node("Tanh", ["x"], ["a"]), helper.make_node("Min", ["a", "x"], ["y"])],
        {},
    ),
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
            "q": np.random.default_rng(7).integers(-127, 128, (5, 4, 3, 3)).astype(np.int8),
            "s": np.linspace(0.01, 0.02, 5, dtype=np.float32),
            "z": np.zeros(5, np.int8),
        },
    ),
}
"""(extent of the input, nodes, constants) in opset 13."""
