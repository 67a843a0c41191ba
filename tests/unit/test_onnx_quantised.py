# SPDX-License-Identifier: Apache-2.0
"""Quantised ONNX: the device's integers are within two steps of onnxruntime's, in every form of the format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import resnet_cifar
import to_pt2
import torch
from onnx import TensorProto, helper

import nets
from medyate import frontends
from medyate.errors import ModelError, UnsupportedOpError
from medyate.ir import Imported, Quant
from medyate.oracle import oracle_for
from medyate.quantize.apply import integer_tensors, run_integers
from onnx_cases import CONV
from onnx_files import MAP, VECTOR, chain, node, quantise, real, run_onnx, write
from onnx_quantised_cases import HAND_MADE, PROBABILITIES, TO_QUANTISE
from oracles import forms
from shared_files import shared

RANDOM = np.random.default_rng(7)

QUANTISED = [
    pytest.param(form, per_channel, unsigned, id=f"{form}-{'channels' if per_channel else 'tensor'}-{kind}")
    for form in ("QDQ", "QOperator")
    for per_channel, unsigned, kind in ((True, False, "int8"), (False, True, "uint8"))
]

NETWORKS = ("ic", "ds_cnn", "resnet20", "mobilenet_v2")


# --- helpers ---


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


# --- what onnxruntime quantises ---


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


@pytest.mark.parametrize("name", TO_QUANTISE)
@pytest.mark.parametrize(("form", "per_channel", "unsigned"), QUANTISED)
def test_a_quantised_operation_computes_what_onnxruntime_computes(
    name: str, form: str, per_channel: bool, unsigned: bool, tmp_path: Path
) -> None:
    nodes, arrays = TO_QUANTISE[name]
    path, samples = quantised_case(tmp_path, nodes, arrays, form, per_channel=per_channel, unsigned=unsigned)
    worst, _, _ = compare(path, samples)
    assert worst <= 2


@pytest.mark.parametrize(("option", "left"), [("ActivationSymmetric", 1), ("QDQKeepRemovableActivations", 0)])
def test_a_clamp_stays_where_it_has_a_scale_of_its_own(option: str, left: int, tmp_path: Path) -> None:
    nodes, arrays = chain(node("Conv", CONV), node("Relu"), node("Conv", real(2, 6, 3, 3)))
    path, samples = quantised_case(tmp_path, nodes, arrays, extra_options={option: True})
    worst, _, imported = compare(path, samples)
    assert worst <= 1
    assert [n.op for n in imported.graph].count("activation") == left


def test_weights_may_be_uint8_with_a_zero_point(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType

    nodes, arrays = chain(node("Conv", CONV + np.float32(1.0)), node("Relu"), node("Conv", real(2, 6, 3, 3)))
    path, samples = quantised_case(tmp_path, nodes, arrays, unsigned=True, weight_type=QuantType.QUInt8)
    worst, _, imported = compare(path, samples)
    assert worst <= 1
    assert any(name.endswith(".zero") and array != 0 for name, array in imported.weights.items())


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_softmax_has_the_scale_of_its_kernel(form: str, tmp_path: Path) -> None:
    path, samples = quantised_case(tmp_path, *PROBABILITIES, form, unsigned=True)
    worst, _, imported = compare(path, samples)
    assert worst <= 2
    assert imported.graph.nodes[-1].op == "softmax"
    assert imported.qgraph is not None
    assert imported.qgraph.quant[imported.graph.output] == Quant(1 / 256, -128)


# --- what others write ---


@pytest.mark.parametrize("name", HAND_MADE)
def test_an_operation_between_integers_computes_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    extent, nodes, arrays = HAND_MADE[name]
    worst, _, _ = compare(write(tmp_path / "net.onnx", nodes, arrays, extent, 13), real(20, *extent[1:]))
    assert worst <= 1


def test_a_clamp_between_a_layer_and_its_scale_is_fused(tmp_path: Path) -> None:
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


def test_input_and_output_may_be_integers_and_weights_be_quantised_in_the_graph(tmp_path: Path) -> None:
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
    assert imported.notes == ("'the_layer': 1 biases were clamped, so that 32 bits cannot overflow (output channel 0)",)
    assert imported.weights["the_layer.bias"][1] == 5


# --- half-quantised ---


def test_a_quantised_network_with_a_real_layer_is_refused(tmp_path: Path) -> None:
    nodes, arrays = chain(node("Conv", CONV), node("Relu"), node("Conv", real(2, 6, 3, 3)))
    path, _ = quantised_case(tmp_path, nodes, arrays, nodes_to_exclude=["the_Conv_2"])
    with pytest.raises(UnsupportedOpError, match="its weights are real numbers"):
        frontends.load(path)


def test_a_quantised_network_with_a_real_tensor_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("Mul", ["b", "k"], ["y"]),
    ]
    with pytest.raises(ModelError, match="'y' of a quantised model has no scale"):
        frontends.load(write(tmp_path / "net.onnx", nodes, {"s": np.float32(1), "z": np.int8(0), "k": real(4, 1, 1)}))


def test_a_sum_that_a_file_leaves_real_gets_the_scale_of_what_it_can_give(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("Add", ["b", "b"], ["y"]),
    ]
    imported = frontends.load(write(tmp_path / "net.onnx", nodes, {"s": np.float32(1), "z": np.int8(0)}))
    assert imported.qgraph is not None
    assert imported.qgraph.quant["y"] == Quant(2.0, 0)
    assert any("real in the file" in note for note in imported.notes)


def test_a_real_bias_beside_small_weights_raises_the_scale_of_its_channel(tmp_path: Path) -> None:
    """Its integers would take more than 32 bits; onnxruntime adds it as a real number where it does not fuse."""
    scales, bias = np.array([1e-9, 0.01], np.float32), np.array([2.0, 0.5], np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["v"], axis=0),
        helper.make_node("Conv", ["b", "v", "bias"], ["c"], "the_layer"),
        helper.make_node("QuantizeLinear", ["c", "t", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["d", "t", "z"], ["y"]),
    ]
    arrays = {"s": np.float32(0.03), "t": np.float32(0.05), "z": np.int8(0), "ws": scales, "wz": np.zeros(2, np.int8)}
    arrays |= {"w": RANDOM.integers(-127, 128, (2, 4, 1, 1)).astype(np.int8), "bias": bias}
    path = write(tmp_path / "net.onnx", nodes, arrays)
    imported, samples = frontends.load(path), RANDOM.normal(0, 1, (8, *MAP[1:])).astype(np.float32)
    assert imported.notes == ()
    found, quant = run_quantised(imported, samples)
    wanted = oracle_for(path)(path, forms(samples.transpose(0, 2, 3, 1)))
    order = wanted.reshape(len(samples), 8, 6, 2).transpose(0, 3, 1, 2).reshape(len(samples), -1)
    assert np.abs(found - order).max() <= 1.001 * quant.scale
    assert np.unique(np.round(order[:, :48], 3)).size == 1  # the channel that its bias decides
