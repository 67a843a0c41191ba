# SPDX-License-Identifier: Apache-2.0
"""ONNX in real numbers: every operation, layout and published network gives what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from medyate import frontends
from onnx_cases import BRANCHES, CONV, NODES
from onnx_files import assert_same, chain, node, real, run_onnx, run_real, whole, write
from shared_files import shared


@pytest.mark.parametrize("name", NODES)
def test_an_operation_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    extent, opset, (nodes, arrays) = NODES[name]
    assert_same(write(tmp_path / "net.onnx", nodes, arrays, extent, opset), extent)


@pytest.mark.parametrize("name", BRANCHES)
def test_a_graph_with_branches_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    extent, nodes, arrays = BRANCHES[name]
    path = write(tmp_path / "net.onnx", nodes, arrays, extent, 13)
    assert_same(path, extent, 3.0)


@pytest.mark.parametrize("opset", range(11, 24))
def test_every_opset_is_read(opset: int, tmp_path: Path) -> None:
    nodes, arrays = chain(
        *(node("Conv", CONV), node("BatchNormalization", *(np.abs(real(6)) + 0.1 for _ in range(4)))),
        *(node("Clip", np.float32(0), np.float32(6)), node("GlobalAveragePool")),
        *(node("Reshape", whole(0, -1)), node("Gemm", real(6, 3)), node("Softmax")),
    )
    path = write(tmp_path / "net.onnx", nodes, arrays, opset=opset)
    assert_same(path)


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
