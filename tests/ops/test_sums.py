# SPDX-License-Identifier: Apache-2.0
"""Sums at their longest with terms at their largest, under the sanitizer; what is longer is refused by node."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from test_kernels import address

from clibrary import STEPS, UNDEFINED, load
from medyate.errors import GraphError
from medyate.frontends.builder import GraphBuilder
from medyate.ir import QGraph, Quant, Weights
from medyate.ops.move import Move
from medyate.plan.parameters import CARRY_MAX
from medyate.plan.plan import classes_loss
from medyate.plan.steps import training_pass
from medyate.plan.sums import FACTOR_PIXELS_MAX, INT32_MAX, biases_pixels_max, check_sums, gradient_max, pixels_max
from medyate.quantize.apply import add_constants
from probe import RUNTIME

CONVOLUTIONS = (
    "src/ops/conv.c",
    "src/ops/conv2d.c",
    "src/ops/depthwise.c",
    "kernels/ref/conv2d_kernels.c",
    "kernels/ref/depthwise_kernels.c",
)
OPS = ("src/ops/move.c", "src/ops/mul.c", "src/ops/pool.c", "kernels/ref/pool_kernels.c", "src/ops/softmax.c", *STEPS)


@pytest.fixture(scope="module", params=[8, 16])
def sums(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, ctypes.CDLL]:
    flags = (*UNDEFINED, f"-DMDY_GRAD_BITS={request.param}")
    return request.param, load("sums_probe.c", tmp_path_factory.mktemp("sums"), OPS, flags=flags)


@pytest.mark.parametrize("pixels", [1, 65536, 65793, 66311, 66312, 300 * 300, 1 << 20, FACTOR_PIXELS_MAX])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_factor_of_many_pixels_gives_up_bits_where_it_must(
    pixels: int, sign: int, sums: tuple[int, ctypes.CDLL]
) -> None:
    bits, library = sums
    shift = ctypes.c_int()
    found = library.probe_factor(ctypes.c_uint32(pixels), sign, ctypes.byref(shift))
    exact = -sign * pixels * gradient_max(bits) * 255
    assert found * 2**shift.value == pytest.approx(exact, rel=0.01)
    room = INT32_MAX // (gradient_max(bits) * 255 / 2 ** (bits - 8))
    assert shift.value == bits - 8 if pixels <= room else shift.value > bits - 8, "what fits is not rounded further"


@pytest.mark.parametrize("sign", [1, -1])
def test_copies_windows_and_shares_fit_with_a_carry(sign: int, sums: tuple[int, ctypes.CDLL]) -> None:
    bits, library = sums
    most = (INT32_MAX - CARRY_MAX) // gradient_max(bits)
    side = 255 if most >= 255 * 255 else int(most**0.5)
    assert library.probe_copies(side, side, sign) == sign * (CARRY_MAX + side * side * gradient_max(bits))
    for kernel in (2, 3, 7, 15) if bits == 16 else (2, 3, 7, 16, 64):
        overlap = (kernel * kernel - 1).bit_length()
        room = min(15, 31 - bits - overlap)
        assert kernel * kernel <= 2 ** (room + 1)
        found = library.probe_windows(kernel, overlap, sign)
        assert abs(found - sign * CARRY_MAX) <= 2**30 and abs(found) > CARRY_MAX
    library.probe_shares(0, sign)
    library.probe_shares(1, sign)


def test_a_saturated_accumulator_stays_at_the_end_of_the_range(sums: tuple[int, ctypes.CDLL]) -> None:
    _, library = sums
    for zero in (-128, -1, 0, 127):
        assert library.probe_output(INT32_MAX, zero) == 127
        assert library.probe_output(-INT32_MAX - 1, zero) == -128


def test_the_compiler_and_the_runtime_say_the_same() -> None:
    header = (RUNTIME / "include" / "mdy" / "ops" / "mul.h").read_text()
    assert f"UINT32_C(1) << {FACTOR_PIXELS_MAX.bit_length() - 1})" in header


@pytest.mark.parametrize("depthwise", [0, 1])
def test_a_layer_at_its_bound_sums_exactly(depthwise: int, tmp_path: Path) -> None:
    kernels = load("kernel_probe.c", tmp_path, CONVOLUTIONS)
    height, width = 257, 258
    assert 0 <= pixels_max(8) - height * width < 10
    geometry = np.array([*(height, width, 1) * 2, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 127, *(0,) * 7], np.int32)
    record = np.zeros(12 + height * width, np.uint8)
    record[11 : 11 + height * width] = 128  # x = -128
    dy, weight = np.full((height, width), -127, np.int8), np.zeros(1, np.int8)
    dx, dw = np.zeros((height, width), np.int32), np.zeros(1, np.int64)
    arguments = [address(a) for a in (geometry, np.ones(1, np.int16), weight, record)]
    sizes = ctypes.c_uint32(record.size // 4 * 4), ctypes.c_uint32(1)
    kernels.probe_backward(depthwise, *arguments, *sizes, address(dy), address(dx), address(dw))
    assert dw[0] == height * width * 127 * 255


def network(middle: str, side: int) -> tuple[QGraph, Weights]:
    """One operation over a map of `side` x `side` between two layers."""
    b = GraphBuilder("net", "x", (side, side, 1), ("conv",))
    b.convolution("first", "x", "a", np.ones((1, 1, 1, 1), np.float32), None)
    last = "a"
    match middle:
        case "factor":
            b.slice("one", "a", "g", (0, 0, 0), (1, 1, 1), (1, 1, 1))
            b.convolution("gate", "g", "gate", np.ones((1, 1, 1, 1), np.float32), None)
            b.mul("product", "a", "gate", "y")
            last = "y"
        case "copies":
            b.slice("one", "a", "g", (0, 0, 0), (1, 1, 1), (1, 1, 1))
            b.emit("enlarge", "move", Move((255, 255, 1), repeat=(255, 255, 1)), ("g",), "y")
            last = "y"
        case "max":
            b.max_pool("pool", "a", "y", (250, 250), (1, 1), (0, 0, 0, 0))
            last = "y"
        case "average":
            b.average_pool("pool", "a", "y", (200, 200), (1, 1))
            last = "y"
    if last != "a":
        b.slice("end", last, "z", (0, 0, 0), (1, 1, 1), (1, 1, 1))
        last = "z"
    b.convolution("last", last, "end", np.ones((1, 1, 1, 1), np.float32), None)
    graph = b.finish("end").graph
    qgraph = QGraph(graph, tuple((name, Quant(0.1, 0)) for name, _ in graph.tensors))
    layers = [node.name for node in graph if node.op == "conv2d"]
    arrays = {f"{name}.weight": np.ones((1, 1, 1, 1), np.int8) for name in layers}
    arrays |= {f"{name}.bias": np.zeros(1, np.int32) for name in layers}
    return qgraph, add_constants(qgraph, arrays | {f"{name}.scale": np.ones(1) for name in layers})


def checked(middle: str, side: int, bits: int, candidates: tuple[str, ...], biases: tuple[str, ...] = ()) -> None:
    qgraph, weights = network(middle, side)
    given = dict.fromkeys(candidates, 1)
    steps = training_pass(qgraph, weights, given, classes_loss(3), bits, biases=biases)
    check_sums(qgraph, weights, steps, candidates, biases, bits)


@pytest.mark.parametrize(
    ("middle", "side", "bits", "trained", "message"),
    [
        ("none", 258, 8, "last", r"'last' has 66,564 output pixels .* a sum holds 66,311"),
        ("factor", 4097, 8, "gate", r"'product' \(mul\) has 16,785,409 pixels that share a factor"),
        ("copies", 4, 16, "first", r"'enlarge' \(move\) has 65,025 copies of a value; a sum holds 57,345"),
        ("max", 600, 16, "first", r"'pool' \(max_pool\) has 62,500 windows that read one pixel"),
        ("average", 250, 8, "first", r"'pool' \(average_pool\) has 40,000 pixels of overlapping windows"),
        ("average", 400, 16, "first", r"'pool' \(average_pool\) has 40,000 pixels of overlapping windows"),
    ],
)
def test_what_does_not_fit_is_refused_by_node_and_numbers(
    middle: str, side: int, bits: int, trained: str, message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        checked(middle, side, bits, (trained,))
    if middle != "none":
        checked(middle, side, bits, ("last",))  # no gradient passes there


def test_what_fits_is_taken() -> None:
    checked("none", 257, 8, ("last",))
    checked("none", 258, 16, ("last",))
    checked("factor", 300, 8, ("gate", "last"))
    checked("copies", 4, 8, ("first",))
    checked("none", 300, 8, (), ("last",))
    assert biases_pixels_max(8) == INT32_MAX // 127
