# SPDX-License-Identifier: Apache-2.0
"""Small ONNX graphs that are to be quantised, and quantised ones made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper

from onnx_cases import CONV
from onnx_files import MAP, chain, node, real, whole

Case = tuple[tuple[int, ...], list[Any], dict[str, Any]]
"""(extent of the input, nodes, constants) in opset 13."""

TO_QUANTISE: Mapping[str, tuple[list[Any], dict[str, Any]]] = {
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
    "Max of two scales": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Conv", ["x", "v"], ["b"]),
            helper.make_node("Max", ["a", "b"], ["c"]),
            helper.make_node("Conv", ["x", "w2"], ["d"]),
            helper.make_node("Min", ["c", "d"], ["e"]),
            helper.make_node("Conv", ["e", "u"], ["y"]),
        ],
        {"w": CONV, "v": 2 * CONV[::-1], "w2": 3 * CONV, "u": real(2, 6, 3, 3)},
    ),
    "functions that stay real": chain(
        node("Conv", CONV),
        node("Elu"),
        node("Conv", real(4, 6, 3, 3)),
        node("Softplus"),
        node("Conv", real(2, 4, 1, 1)),
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
    "depthwise": chain(node("Conv", CONV), node("Conv", real(6, 1, 3, 3), group=6), node("Conv", real(2, 6, 1, 1))),
    "sum of two": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Conv", ["x", "v"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["c"]),
            helper.make_node("Conv", ["c", "u"], ["y"]),
        ],
        {"w": CONV, "v": 3 * CONV[::-1], "u": real(2, 6, 3, 3)},
    ),
    "constants of one channel": chain(
        node("Conv", CONV[:1]), node("Mul", np.float32([[[1.7]]])), node("Add", np.float32([[[-2.5]]])), node("Relu")
    ),
    "padding that counts": chain(
        node("Conv", CONV),
        node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        node("Conv", real(2, 6, 3, 2)),
    ),
}
"""(nodes, constants) of maps, to be quantised by onnxruntime."""
PROBABILITIES = chain(
    node("Conv", CONV), node("Flatten"), node("Gemm", real(144, 5) / np.float32(20), real(5)), node("Softmax")
)


def between(extent: tuple[int, ...], op: str, *constants: Any, **attributes: Any) -> Case:
    """One operation between integers, as no quantiser of onnxruntime writes it."""
    names = {f"c{k}": np.asarray(array, np.float32) for k, array in enumerate(constants)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node(op, ["b", *names], ["c"], "the_node", **attributes),
        helper.make_node("QuantizeLinear", ["c", "t", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "t", "z"], ["y"]),
    ]
    return extent, nodes, {"s": np.float32(0.03), "t": np.float32(0.05), "z": np.int8(3), **names}


def on_integers(extent: tuple[int, ...], op: str, **attributes: Any) -> Case:
    """One operation on integers, in another scale than its input's."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node(op, ["a", "s", "z", "t", "z"], ["b"], "the_node", domain="com.microsoft", **attributes),
        helper.make_node("DequantizeLinear", ["b", "t", "z"], ["y"]),
    ]
    return extent, nodes, {"s": np.float32(0.03), "t": np.float32(0.05), "z": np.int8(3)}


def statistics(channels: int) -> list[np.ndarray]:
    """Scale, bias, mean and variance of a norm."""
    return [np.abs(real(channels)) + least for least in (1, 0, 2, 1)]


ONE_CHANNEL, ONE_PIXEL = (1, 1, 8, 6), (1, 4, 1, 1)
HAND_MADE: Mapping[str, Case] = {
    **{
        f"{op} of {extent[1]}": between(extent, op, real(extent[1], 1, 1) + 2)
        for op in ("Add", "Sub", "Mul", "Div")
        for extent in (MAP, ONE_CHANNEL)
    },
    **{
        f"norm of {extent[1]}": between(
            extent, "BatchNormalization", *(np.abs(real(extent[1])) + k for k in (1, 0, 2, 1))
        )
        for extent in (MAP, ONE_CHANNEL)
    },
    "pool of one pixel": on_integers(ONE_PIXEL, "QLinearGlobalAveragePool", channels_last=0),
}
NOT_IN_ONNXRUNTIME: Mapping[str, Case] = {
    "mean": on_integers(MAP, "QLinearReduceMean", axes=[2, 3], keepdims=1),
    "mean of one pixel": on_integers(ONE_PIXEL, "QLinearReduceMean", axes=[2, 3], keepdims=1),
}
