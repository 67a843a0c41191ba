# SPDX-License-Identifier: Apache-2.0
"""What the writers promise: the file that comes back is the network, and its runtime computes its integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import nets
from medyate.arithmetic import tflite_kernels as kernels
from medyate.arithmetic.functions import Function
from medyate.export import ExportError
from medyate.export import onnx as onnx_writer
from medyate.export import tflite as tflite_writer
from medyate.frontends import load
from medyate.frontends.torch import from_module
from medyate.ir import Attrs, Graph, Imported, Node, QGraph, Quant, Shape, Weights
from medyate.ops import OPS
from medyate.ops.average_pool import AveragePool
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.ops.max_pool import MaxPool
from medyate.ops.move import Move
from medyate.ops.opdef import Case, OpDef
from medyate.oracle import tflite as tflite_runtime
from medyate.oracle.onnx import defined_session
from medyate.passes.pipeline import simplify
from medyate.quantize.apply import ROLES, add_constants, quantize, reference
from medyate.real import Network, channels_first, channels_last
from medyate.validate import validate
from oracles import forms
from shared_files import shared

QUANTISED = (
    "ic_resnet8_cifar10_int8",
    "kws_dscnn_int8",
    "vww_mobilenetv1_025_96_int8",
    "ad_autoencoder_int8",
    "hello_world_int8",
    "micro_speech_int8",
    "person_detect_int8",
    "mobilenet_v1_0.25_128_quant_uint8",
)
REAL = (
    "mbv2-w0.35_imagenet128_dequant_fp32",
    "mcunet-5fps_imagenet128_dequant_fp32",
    "mobilenet_v1_0.25_224_imagenet_bn_fp32",
)
UNKNOWN_TO_ONNX = ("multiplier", "origin")
"""Arrays that a TFLite file decides; an ONNX file has no other than the plain ones."""
CASES = [
    pytest.param(op, case, id=f"{op.name}-{number}")
    for op in OPS.values()
    if op.kernel is not None
    for number, case in enumerate(op.cases)
]
NO_OPERATOR = ("hard_sigmoid", "silu", "elu", "selu", "softplus", "mish", "neg", "square")
NOT_IN_TFLITE: tuple[Callable[[Attrs], bool], ...] = (
    lambda a: isinstance(a, Function) and a.kind in NO_OPERATOR,
    lambda a: isinstance(a, AveragePool) and a.kernel not in ((4, 4), (3, 5)),
)


# --- helpers ---


def rows(graph: Graph, qgraph: QGraph | None) -> list[tuple[Any, ...]]:
    """All of a graph but its names."""
    number = {graph.input: 0} | {node.output: k + 1 for k, node in enumerate(graph)}
    quants = {} if qgraph is None else qgraph.quant
    first = (graph.shapes[graph.input], quants.get(graph.input), number[graph.output])
    return [
        first,
        *(
            (n.op, n.attrs, tuple(number[i] for i in n.inputs), graph.shapes[n.output], quants.get(n.output))
            for n in graph
        ),
    ]


def arrays(graph: Graph, weights: Weights, without: tuple[str, ...] = ()) -> list[dict[str, NDArray[Any]]]:
    roles = [role for role in ROLES if role not in without]
    found = []
    for node in graph:
        names = {role: node.weight_name(role) for role in roles}
        found.append({role: np.asarray(weights[name]) for role, name in names.items() if name in weights})
    return found


def assert_same(again: Imported, given: Imported, without: tuple[str, ...] = ()) -> None:
    """The same operations, attributes, shapes, scales and arrays, up to names."""
    assert rows(again.graph, again.qgraph) == rows(given.graph, given.qgraph)
    pairs = zip(arrays(again.graph, again.weights, without), arrays(given.graph, given.weights, without), strict=True)
    for found, wanted in pairs:
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[role], wanted[role]) for role in wanted)


def pads_taken_over(imported: Imported) -> Imported:
    """Zeros around a map as the pads of the convolution that reads it: TFLite keeps the two apart."""
    graph, weights = imported.graph, imported.weights
    for node in graph:
        pad = graph.producer.get(node.inputs[0])
        if not isinstance(node.attrs, Conv2d | Depthwise) or pad is None or not isinstance(pad.attrs, Move):
            continue
        a, (height, width, channels) = pad.attrs, graph.shapes[pad.inputs[0]]
        top, left, front = (-start for start in a.start)
        pads = (top, left, a.size[0] - height - top, a.size[1] - width - left)
        surrounds = replace(a, size=(height, width, channels), start=(0, 0, 0)) == Move((height, width, channels))
        if not surrounds or front or a.size[2] != channels or min(pads) < 0 or len(graph.consumers[pad.output]) > 1:
            continue
        total = tuple(own + more for own, more in zip(node.attrs.pads, pads, strict=True))
        taken = replace(node, inputs=pad.inputs, attrs=replace(node.attrs, pads=total))
        nodes = tuple(taken if n is node else n for n in graph if n is not pad)
        tensors = tuple((name, shape) for name, shape in graph.tensors if name != pad.output)
        graph = validate(replace(graph, nodes=nodes, tensors=tensors), weights)
        qgraph = None if imported.qgraph is None else replace(imported.qgraph, graph=graph)
        return pads_taken_over(replace(imported, graph=graph, qgraph=qgraph))
    return imported


def noise(shape: Shape, count: int = 20) -> NDArray[np.int8]:
    return np.random.default_rng(0).integers(-128, 128, (count, *shape)).astype(np.int8)


def run_onnx(path: Path, samples: NDArray[Any]) -> NDArray[Any]:
    """Outputs for real samples (n, H, W, C), channels first and flat."""
    session = defined_session(onnx.load(path))
    name = session.get_inputs()[0].name
    first = np.ascontiguousarray(samples.transpose(0, 3, 1, 2), np.float32)
    return np.array([session.run(None, {name: sample[None]})[0].reshape(-1) for sample in first])


def onnx_steps(path: Path, qgraph: QGraph, stored: NDArray[np.int8]) -> NDArray[Any]:
    """What onnxruntime makes of a quantised file, in the output's steps."""
    x, y = qgraph.quant[qgraph.graph.input], qgraph.quant[qgraph.graph.output]
    real = (stored.astype(np.float32) - x.zero) * np.float32(x.scale)
    return np.asarray(np.rint(run_onnx(path, real) / np.float32(y.scale)) + y.zero)


def first_order(outputs: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Flat outputs in channel-last order as channel-first ones."""
    return outputs.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(outputs), -1)


def in_binary32(qgraph: QGraph, weights: Weights) -> tuple[QGraph, Weights]:
    """The network with scales, multipliers and tables as TFLite has them."""
    quants = {name: Quant(float(np.float32(quant.scale)), quant.zero) for name, quant in qgraph.quants}
    kept = {name: array for name, array in weights.items() if name.rpartition(".")[2] in ("weight", "bias", "scale")}
    own = {n: np.float64(np.float32(array)) if n.endswith(".scale") else array for n, array in kept.items()}
    for node in qgraph.graph:
        if isinstance(node.attrs, Function):
            quants[node.output] = kernels.RESULTS.get(node.attrs.kind, quants[node.output])
            table = kernels.table(node.attrs, quants[node.inputs[0]], quants[node.output])
            own |= {} if table is None else {node.weight_name("table"): table}
        if node.op == "mul":
            a, b, y = (np.float32(quants[name].scale) for name in (*node.inputs, node.output))
            own[node.weight_name("multiplier")] = np.array([float(a * b / y)])
    result = QGraph(qgraph.graph, tuple(quants.items()))
    return result, add_constants(result, own)


def chain(shape: Shape, *steps: tuple[str, Attrs]) -> tuple[Graph, Weights]:
    """Operations behind each other, from 'x'."""
    rng = np.random.default_rng(3)
    nodes, tensors, weights = [], [("x", shape)], {}
    for number, (op, attrs) in enumerate(steps):
        source, before = tensors[-1]
        output = f"t{number}"
        nodes.append(Node(f"n{number}", op, (source,), output, attrs))
        tensors.append((output, OPS[op].shape(attrs, (before,))))
        for role, dims in OPS[op].weights(attrs, (before,)).items():
            weights[f"n{number}.{role}"] = rng.normal(0, 0.5, dims).astype(np.float32)
    return Graph("chain", "x", tensors[-1][0], tuple(nodes), tuple(tensors)), weights


Operand = Callable[[Shape, int], tuple[str, Attrs]]
"""(shape of an operand, channel of the input that it may begin at) to the operation that makes it."""


def convolved(extent: tuple[int, int]) -> Operand:
    return lambda shape, _: ("conv2d", Conv2d(shape[2], (extent[0] - shape[0] + 1, extent[1] - shape[1] + 1)))


def cut_out(shape: Shape, channel: int) -> tuple[str, Attrs]:
    return "move", Move(shape, start=(0, 0, channel))


def example(op: OpDef, case: Case, *, cut: bool = False) -> tuple[Graph, Weights, Any]:
    """The operation on the input itself; two operands are convolutions of it, or parts of it."""
    rng = np.random.default_rng(2)
    if len(case.inputs) == 1:
        graph, weights = chain(case.inputs[0], (op.name, case.attrs))
        return graph, weights, rng.normal(0, 1, (16, *graph.shapes["x"])).astype(np.float32)
    extent = (max(shape[0] for shape in case.inputs), max(shape[1] for shape in case.inputs))
    make = cut_out if cut else convolved(extent)
    tensors, nodes, channel = [("x", (*extent, sum(shape[2] for shape in case.inputs)))], [], 0
    for number, shape in enumerate(case.inputs):
        kind, attrs = make(shape, channel)
        nodes.append(Node(f"in{number}", kind, ("x",), f"a{number}", attrs))
        tensors.append((f"a{number}", shape))
        channel += shape[2]
    nodes.append(Node("op", op.name, tuple(node.output for node in nodes), "y", case.attrs))
    graph = Graph("case", "x", "y", tuple(nodes), (*tensors, ("y", op.shape(case.attrs, case.inputs))))
    shapes = {
        node.weight_name(role): dims
        for node in graph
        for role, dims in OPS[node.op].weights(node.attrs, graph.input_shapes(node)).items()
    }
    weights = {name: rng.normal(0, 0.5, dims).astype(np.float32) for name, dims in shapes.items()}
    return validate(graph, weights), weights, rng.normal(0, 1, (16, *graph.shapes["x"])).astype(np.float32)


# --- real networks ---


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_file_comes_back_from_tflite_and_computes_the_same(name: str, tmp_path: Path) -> None:
    path = shared(f"models/{name}.tflite")
    given, written = load(path), tmp_path / "again.tflite"
    assert given.qgraph is not None
    tflite_writer.write(given.qgraph, given.weights, written)
    assert_same(load(written), given)
    stored = noise(given.graph.shapes[given.graph.input])
    assert np.array_equal(tflite_runtime.run(written, forms(stored)), tflite_runtime.run(path, forms(stored)))


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_file_comes_back_from_onnx_and_onnxruntime_agrees(name: str, tmp_path: Path) -> None:
    given, written = load(shared(f"models/{name}.tflite")), tmp_path / "again.onnx"
    assert given.qgraph is not None
    onnx_writer.write(given.qgraph, given.weights, written)
    assert_same(load(written), given, UNKNOWN_TO_ONNX)
    stored = noise(given.graph.shapes[given.graph.input], 4)
    found, wanted = onnx_steps(written, given.qgraph, stored), reference(given.qgraph, given.weights, stored)
    # it rounds once where the device rounds twice, and a softmax over noise makes many steps out of one
    assert (found.argmax(1) == wanted.argmax(1)).mean() >= 0.75
    assert np.abs(found - wanted).mean() < 1


@pytest.mark.parametrize("name", REAL)
def test_a_network_of_real_numbers_comes_back_from_both_formats(name: str, tmp_path: Path) -> None:
    returns_from_both(simplify(load(shared(f"models/derived/{name}.onnx"))), tmp_path)


@pytest.mark.parametrize("name", nets.NETS)
def test_the_same_network_through_torch_onnx_and_tflite_gives_the_same_graph(name: str, tmp_path: Path) -> None:
    module, example_input = nets.build(name)
    given = simplify(from_module(module, example_input, name))
    if name == "flat_head":  # TFLite has no operator for its clamp to [-1, 4]: two stand for it
        onnx_writer.write_real(given.graph, given.weights, tmp_path / "net.onnx")
        assert_same(load_simplified(tmp_path / "net.onnx"), given)
        return
    returns_from_both(given, tmp_path)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet20"])
def test_a_network_that_was_quantised_here_is_exact_in_tflite_and_comes_back(name: str, tmp_path: Path) -> None:
    module, example_input = nets.build(name)
    given = simplify(from_module(module, example_input, name))
    real = np.random.default_rng(1).normal(0, 1, (16, *given.graph.shapes[given.graph.input])).astype(np.float32)
    qgraph, integers = in_binary32(*quantize(given.graph, given.weights, real))
    path = tmp_path / "net.tflite"
    tflite_writer.write(qgraph, integers, path)
    again = pads_taken_over(load(path))
    assert_same(again, Imported(qgraph.graph, integers, qgraph, ()))
    stored = noise(qgraph.graph.shapes[qgraph.graph.input], 5)
    assert np.array_equal(tflite_runtime.run(path, forms(stored)), reference(qgraph, integers, stored))


def load_simplified(path: Path) -> Imported:
    """As the compiler sees a file: clamps fused, pads with their convolutions."""
    return pads_taken_over(simplify(load(path)))


def returns_from_both(given: Imported, folder: Path) -> None:
    onnx_writer.write_real(given.graph, given.weights, folder / "net.onnx")
    tflite_writer.write_real(given.graph, given.weights, folder / "net.tflite")
    assert_same(load_simplified(folder / "net.onnx"), given)
    assert_same(load_simplified(folder / "net.tflite"), given)


# --- every operation ---


@pytest.mark.parametrize(("op", "case"), CASES)
def test_tflite_computes_the_integers_of_an_operation_or_is_not_written(op: OpDef, case: Case, tmp_path: Path) -> None:
    graph, weights, real = example(op, case)
    qgraph, integers = in_binary32(*quantize(graph, weights, real))
    path = tmp_path / "case.tflite"
    try:
        tflite_writer.write(qgraph, integers, path)
    except ExportError:
        assert any(missing(case.attrs) for missing in NOT_IN_TFLITE)
        assert not path.exists()
        return
    stored = noise(graph.shapes["x"])
    found = tflite_runtime.run(path, forms(stored))
    assert found.dtype == np.int8
    assert np.array_equal(found, reference(qgraph, integers, stored))
    if op.name == "reshape":  # the file's input takes the shape of its only reader, and no layer is left
        return
    again = load(path)
    assert again.qgraph is not None
    assert np.array_equal(reference(again.qgraph, again.weights, stored), found)
    if not isinstance(case.attrs, Function):  # one clamp may have become two operators
        assert_same(again, Imported(graph, integers, qgraph, ()))


@pytest.mark.parametrize(("op", "case"), CASES)
def test_onnxruntime_computes_an_operation_to_the_step(op: OpDef, case: Case, tmp_path: Path) -> None:
    graph, weights, real = example(op, case, cut=True)
    qgraph, integers = quantize(graph, weights, real)
    onnx_writer.write(qgraph, integers, tmp_path / "case.onnx")
    stored = noise(graph.shapes["x"])
    found = onnx_steps(tmp_path / "case.onnx", qgraph, stored)
    wanted = first_order(reference(qgraph, integers, stored), graph.shapes[graph.output]).astype(float)
    apart = np.abs(found - wanted)
    assert apart.max() <= 1


@pytest.mark.parametrize(("op", "case"), CASES)
def test_real_numbers_of_an_operation_are_those_of_both_runtimes(op: OpDef, case: Case, tmp_path: Path) -> None:
    graph, weights, real = example(op, case)
    with torch.no_grad():
        wanted = channels_last(Network(graph, weights)(channels_first(real))).numpy()
    onnx_writer.write_real(graph, weights, tmp_path / "case.onnx")
    found = run_onnx(tmp_path / "case.onnx", real)
    assert np.allclose(found, first_order(wanted, graph.shapes[graph.output]), atol=1e-5)
    unknown = (Function, AveragePool)
    try:
        tflite_writer.write_real(graph, weights, tmp_path / "case.tflite")
    except ExportError:
        assert isinstance(case.attrs, unknown)
        return
    assert np.allclose(tflite_runtime.run(tmp_path / "case.tflite", forms(real)), wanted, atol=1e-5)


@pytest.mark.parametrize("width", [5, 6])
@pytest.mark.parametrize("relu", [True, False], ids=["relu", "signed"])
def test_pads_of_pools_do_not_count_in_tflite(width: int, relu: bool, tmp_path: Path) -> None:
    conv = Conv2d(3, (1, 1), activation=(0.0, math.inf) if relu else None)
    graph, weights = chain((6, width, 2), ("conv2d", conv), ("max_pool", MaxPool((3, 3), (2, 2), (1, 1, 1, 1))))
    bit_exact(graph, weights, tmp_path)


def test_a_clamp_without_a_code_becomes_maximum_and_minimum(tmp_path: Path) -> None:
    conv = Conv2d(4, (3, 3), pads=(1, 1, 1, 1), activation=(-0.5, 0.75))
    graph, weights = chain((5, 5, 3), ("conv2d", conv), ("conv2d", replace(conv, activation=(0.0, 0.3))))
    wide = {name: array * 4 for name, array in weights.items()}
    bit_exact(graph, wide, tmp_path)


def test_filters_of_groups_and_depth_multipliers_are_tflites(tmp_path: Path) -> None:
    depth = Conv2d(8, (3, 3), (2, 1), pads=(1, 1, 1, 1), groups=4)
    graph, weights = chain((6, 6, 4), ("conv2d", depth), ("conv2d", Conv2d(6, (2, 2), groups=2)))
    bit_exact(graph, weights, tmp_path)


def bit_exact(graph: Graph, weights: Weights, folder: Path) -> None:
    rng = np.random.default_rng(4)
    real = rng.normal(0, 1, (16, *graph.shapes["x"])).astype(np.float32)
    qgraph, integers = in_binary32(*quantize(graph, weights, real))
    tflite_writer.write(qgraph, integers, folder / "net.tflite")
    stored = noise(graph.shapes["x"])
    assert np.array_equal(tflite_runtime.run(folder / "net.tflite", forms(stored)), reference(qgraph, integers, stored))
    tflite_writer.write_real(graph, weights, folder / "real.tflite")
    with torch.no_grad():
        wanted = channels_last(Network(graph, weights)(channels_first(real))).numpy()
    assert np.allclose(tflite_runtime.run(folder / "real.tflite", forms(real)), wanted, atol=1e-4)


# --- TFLite's own arithmetic ---


@pytest.mark.parametrize(
    "function",
    [
        Function("identity"),
        Function("clip", 0.0, 6.0),
        Function("leaky_relu", 0.1),
        Function("hard_swish"),
        Function("sigmoid"),
        Function("tanh"),
    ],
    ids=lambda function: function.kind,
)
def test_tables_are_those_of_the_reference_kernels(function: Function, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for _ in range(3):
        x, y = (Quant(float(np.float32(rng.uniform(0.02, 0.2))), int(rng.integers(-90, 90))) for _ in range(2))
        y = kernels.RESULTS.get(function.kind, y)
        graph, _ = chain((1, 1, 256), ("activation", function))
        table = kernels.table(function, x, y)
        assert table is not None
        qgraph = QGraph(graph, (("x", x), ("t0", y)))
        tflite_writer.write(qgraph, add_constants(qgraph, {"n0.table": table}), tmp_path / "table.tflite")
        every = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 1, 256)
        assert np.array_equal(tflite_runtime.run(tmp_path / "table.tflite", forms(every))[0], table)


@pytest.mark.parametrize("extent", [(4, 4), (3, 5), (7, 7)], ids=str)
def test_the_mean_of_a_whole_map_may_change_the_scale(extent: tuple[int, int], tmp_path: Path) -> None:
    graph, _ = chain((*extent, 8), ("average_pool", AveragePool(extent, extent)))
    for ratio in (1.0, 2.0, 3.0, 0.7):
        quants = (("x", Quant(0.0625, -3)), ("t0", Quant(float(np.float32(0.0625 / ratio)), 5)))
        qgraph = QGraph(graph, quants)
        constants = add_constants(qgraph, {})
        path = tmp_path / f"{ratio}.tflite"
        tflite_writer.write(qgraph, constants, path)
        stored = noise((*extent, 8)) // 4
        assert np.array_equal(tflite_runtime.run(path, forms(stored)), reference(qgraph, constants, stored))
        assert_same(load(path), Imported(graph, constants, qgraph, ()))


# --- refusals ---


def small(scale: float = 0.0625) -> tuple[QGraph, dict[str, NDArray[Any]]]:
    graph, weights = chain((3, 3, 2), ("conv2d", Conv2d(2, (2, 2))))
    qgraph = QGraph(graph, (("x", Quant(scale, 1)), ("t0", Quant(0.5, -3))))
    integers = {
        "n0.weight": np.clip(weights["n0.weight"] * 100, -127, 127).astype(np.int8),
        "n0.bias": np.array([3, -4], np.int32),
        "n0.scale": np.array([0.25, 0.125]),
    }
    return qgraph, add_constants(qgraph, integers)


def test_scales_that_tflite_would_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="binary32"):
        tflite_writer.write(*small(0.1), tmp_path / "net.tflite")
    assert not (tmp_path / "net.tflite").exists()


def test_a_network_that_rounds_once_is_no_tflite_network(tmp_path: Path) -> None:
    qgraph, weights = small()
    with pytest.raises(ExportError, match="once"):
        tflite_writer.write(replace(qgraph, rounds_once=True), weights, tmp_path / "net.tflite")


def test_multipliers_that_tflite_would_not_work_out_are_refused(tmp_path: Path) -> None:
    qgraph, weights = small()
    weights["n0.multiplier"] = weights["n0.multiplier"] * 1.001
    with pytest.raises(ExportError, match="multipliers"):
        tflite_writer.write(qgraph, weights, tmp_path / "net.tflite")


def test_a_mean_of_windows_that_changes_the_scale_is_refused(tmp_path: Path) -> None:
    graph, _ = chain((4, 4, 8), ("average_pool", AveragePool((2, 2), (2, 2))))
    qgraph = QGraph(graph, (("x", Quant(0.0625, -3)), ("t0", Quant(0.125, 5))))
    with pytest.raises(ExportError, match="whole axes"):
        tflite_writer.write(qgraph, add_constants(qgraph, {}), tmp_path / "net.tflite")


@pytest.mark.parametrize("writer", [onnx_writer.write_real, tflite_writer.write_real])
def test_batch_norms_are_folded_first(writer: Callable[[Graph, Weights, Path], None], tmp_path: Path) -> None:
    module, example_input = nets.build("flat_head")
    given = from_module(module, example_input, "net")
    with pytest.raises(ExportError, match="simplify"):
        writer(given.graph, given.weights, tmp_path / "net")


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_the_same_network_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    write = {"tflite": tflite_writer.write, "onnx": onnx_writer.write}[suffix]
    for name in ("a", "b"):
        write(*small(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
