# SPDX-License-Identifier: Apache-2.0
"""TFLite files made by hand, one operator each: the import computes what the reference kernels compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tflite
from numpy.typing import NDArray

from medyate.check import real_error
from medyate.errors import UnsupportedOpError
from medyate.export import tflite as tflite_writer
from medyate.export.flatfile import FlatFile, Options, Steps
from medyate.frontends import load
from medyate.ir import Imported
from medyate.ops.max_pool import MaxPool
from medyate.ops.move import Move
from medyate.oracle import tflite as tflite_runtime
from medyate.plan.budget import Limits
from medyate.plan.plan import inference_plan
from medyate.quantize.apply import reference
from oracles import forms
from probe import Probe
from tflite_cases import NEW, REAL, Case

SCALE = 0.0625


def bit_exact(path: Path, samples: NDArray[np.int8], folder: Path) -> Imported:
    """The import, whose integers in PyTorch and in C are the reference kernels', now and after an export."""
    imported, again = load(path), folder / "again.tflite"
    assert imported.qgraph is not None
    wanted = tflite_runtime.run(path, forms(samples))
    assert np.array_equal(reference(imported.qgraph, imported.weights, samples), wanted)
    tflite_writer.write(imported.qgraph, imported.weights, again)
    assert np.array_equal(tflite_runtime.run(again, forms(samples)), wanted)
    probe = Probe(inference_plan(imported.qgraph, imported.weights, Limits(1 << 20)), folder, record=False)
    probe.init()
    assert np.array_equal(np.stack([probe.output(sample).reshape(-1) for sample in samples]), wanted)
    return imported


# --- every operator that reads or makes integers of its own ---


@pytest.mark.parametrize("case", NEW, ids=lambda case: case.kind)
def test_an_operator_is_the_reference_kernel(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "one.tflite"
    path.write_bytes(case.file())
    shape = load(path).graph.tensors[0][1]
    samples = np.random.default_rng(3).integers(-128, 128, (6, *shape)).astype(np.int8)
    samples[0], samples[1] = -128, 127
    bit_exact(path, samples, tmp_path)


@pytest.mark.parametrize("case", REAL, ids=lambda case: case.kind)
def test_an_operator_on_real_numbers_is_the_reference_kernel(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "one.tflite"
    path.write_bytes(case.file())
    imported = load(path)
    samples = np.random.default_rng(4).normal(size=(6, *imported.graph.tensors[0][1])).astype(np.float32)
    given = forms(samples)
    assert real_error(imported, samples, tflite_runtime.run(path, given)) < 1e-5


# --- MEAN ---


MEANS = (
    *(("int8", extent, ratio, 0) for extent in ((7, 7), (3, 5), (10, 1)) for ratio in (1.0, 1.37, 0.31)),
    ("int8", (4, 4), 1.37, 0),
    ("int8", (3, 5), 1.0, 7),
    ("int8", (1, 1), 1.37, 7),
    ("uint8", (7, 7), 1.0, 0),
    ("uint8", (7, 7), 1.37, 7),
)
"""(type, height and width, by what factor and by how many steps the output's scale and zero point differ)."""


@pytest.mark.parametrize(("kind", "extent", "ratio", "zero"), MEANS, ids=str)
def test_a_mean_rounds_as_the_reference_kernel(
    kind: str, extent: tuple[int, int], ratio: float, zero: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    file, middle = FlatFile(), 128 if kind == "uint8" else 0
    sizes = (1, *extent, 64)
    keep = ratio == 1.0
    x = file.tensor("x", sizes, kind, Steps((SCALE,), (middle - 9,)))
    axes = file.constant("axes", np.array([1, 2], np.int32))
    output = Steps((float(np.float32(SCALE / ratio)),), (middle - 9 + zero,))
    y = file.tensor("y", (1, 1, 1, 64) if keep else (1, 64), kind, output)
    file.operator("MEAN", 2, (x, axes), y, Options("ReducerOptions", {"KeepDims": keep}))
    path = tmp_path / "mean.tflite"
    path.write_bytes(file.finish("mean", x, y))
    centres = rng.integers(-110, 110, (30, 1, 1, 64))
    samples = np.clip(centres + rng.integers(-40, 41, (30, *sizes[1:])), -128, 127).astype(np.int8)
    bit_exact(path, samples, tmp_path)


@pytest.mark.parametrize(
    ("sizes", "axes", "keep"), [((1, 10, 64), (1,), False), ((1, 10, 64), (-2,), True), ((1, 9, 1, 64), (1,), False)]
)
def test_a_mean_over_a_series_is_one_over_its_map(
    sizes: tuple[int, ...], axes: tuple[int, ...], keep: bool, tmp_path: Path
) -> None:
    file = FlatFile()
    x = file.tensor("x", sizes, "int8", Steps((SCALE,), (-9,)))
    over = file.constant("axes", np.array(axes, np.int32))
    left = tuple(1 if axis - len(sizes) in axes or axis in axes else size for axis, size in enumerate(sizes))
    kept = left if keep else tuple(s for a, s in enumerate(sizes) if a not in axes and a - len(sizes) not in axes)
    y = file.tensor("y", kept, "int8", Steps((float(np.float32(SCALE / 1.37)),), (-9,)))
    file.operator("MEAN", 2, (x, over), y, Options("ReducerOptions", {"KeepDims": keep}))
    path = tmp_path / "mean.tflite"
    path.write_bytes(file.finish("mean", x, y))
    imported = bit_exact(path, noise(sizes[1], 1, 64), tmp_path)
    assert [node.op for node in imported.graph] == ["average_pool"]


def test_a_mean_over_channels_is_refused_by_name(tmp_path: Path) -> None:
    file = FlatFile()
    x = file.tensor("x", (1, 4, 4, 8), "float32", None)
    axes = file.constant("axes", np.array([3], np.int32))
    y = file.tensor("y", (1, 4, 4), "float32", None)
    file.operator("MEAN", 2, (x, axes), y, Options("ReducerOptions", {"KeepDims": False}))
    path = tmp_path / "mean.tflite"
    path.write_bytes(file.finish("mean", x, y))
    with pytest.raises(UnsupportedOpError, match=r"MEAN.*axes \[3\]"):
        load(path)


# --- PADV2 and STRIDED_SLICE ---


POOL = Options(
    "Pool2DOptions", {"Padding": tflite.Padding.VALID, "StrideH": 2, "StrideW": 1, "FilterHeight": 3, "FilterWidth": 2}
)
KINDS = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8}


def padded(folder: Path, kind: str, value: float, *, pooled: bool, zero: int = 5) -> Path:
    """(6, 5, 3) with a row above, two below and a column on the right of one value, and a max pool behind."""
    file, steps = FlatFile(), None if kind == "float32" else Steps((SCALE,), (zero,))
    x = file.tensor("x", (1, 6, 5, 3), kind, steps)
    amounts = file.constant("pads", np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))
    filling = file.constant("value", np.array([value], KINDS[kind]), steps)
    y = file.tensor("padded", (1, 9, 6, 3), kind, steps)
    file.operator("PADV2", 2, (x, amounts, filling), y, Options("PadV2Options", {}))
    if pooled:
        pool = file.tensor("y", (1, 4, 5, 3), kind, steps)
        file.operator("MAX_POOL_2D", 2, (y,), pool, POOL)
        y = pool
    path = folder / "padded.tflite"
    path.write_bytes(file.finish("padded", x, y))
    return path


def noise(*shape: int) -> NDArray[np.int8]:
    return np.random.default_rng(1).integers(-128, 128, (10, *shape)).astype(np.int8)


@pytest.mark.parametrize(("kind", "value"), [("int8", 5), ("uint8", 5)])
def test_a_pad_with_the_zero_point_is_one_with_zeros(kind: str, value: int, tmp_path: Path) -> None:
    imported = bit_exact(padded(tmp_path, kind, value, pooled=False), noise(6, 5, 3), tmp_path)
    assert [node.attrs for node in imported.graph] == [Move((9, 6, 3), start=(-1, 0, 0))]


@pytest.mark.parametrize(("kind", "value"), [("int8", -128), ("uint8", 0)])
def test_a_pad_with_the_least_value_is_that_of_the_max_pool_behind_it(kind: str, value: int, tmp_path: Path) -> None:
    imported = bit_exact(padded(tmp_path, kind, value, pooled=True), noise(6, 5, 3), tmp_path)
    assert [node.attrs for node in imported.graph] == [MaxPool((3, 2), (2, 1), (1, 0, 2, 1))]


@pytest.mark.parametrize(("value", "pooled"), [(0.0, False), (-np.inf, True), (np.finfo(np.float32).min, True)])
def test_real_pads_are_zeros_or_those_of_a_max_pool(value: float, pooled: bool, tmp_path: Path) -> None:
    path = padded(tmp_path, "float32", value, pooled=pooled)
    samples = np.random.default_rng(1).normal(0, 1, (10, 6, 5, 3)).astype(np.float32)
    imported = load(path)
    assert len(imported.graph.nodes) == 1
    assert real_error(imported, samples, tflite_runtime.run(path, forms(samples))) == 0


@pytest.mark.parametrize(
    ("kind", "value", "pooled"),
    [("int8", 0, True), ("int8", -128, False), ("uint8", 1, True), ("float32", 1.0, True), ("float32", np.nan, True)],
)
def test_other_pads_are_refused_by_name(kind: str, value: float, pooled: bool, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOpError, match=r"'padded' \(PADV2\).*it adds"):
        load(padded(tmp_path, kind, value, pooled=pooled))


def sliced(folder: Path, shape: tuple[int, ...], parts: list[tuple[int, int, int]], masks: tuple[int, int]) -> Path:
    """One STRIDED_SLICE with (begin, end, stride) of height, width and channels; bit k of a mask is axis k."""
    file, steps = FlatFile(), Steps((SCALE,), (5,))
    limits = np.array([(0, 1, 1), *parts], np.int32)
    chosen = [
        range(size)[slice(None if masks[0] >> k & 1 else b, None if masks[1] >> k & 1 else e, s)]
        for k, (size, (b, e, s)) in enumerate(zip(shape, parts, strict=True), 1)
    ]
    x = file.tensor("x", (1, *shape), "int8", steps)
    constants = [file.constant(name, limits[:, k].copy()) for k, name in enumerate(("begin", "end", "strides"))]
    y = file.tensor("y", (1, *map(len, chosen)), "int8", steps)
    options = Options("StridedSliceOptions", {"BeginMask": masks[0], "EndMask": masks[1]})
    file.operator("STRIDED_SLICE", 2, (x, *constants), y, options)
    path = folder / "sliced.tflite"
    path.write_bytes(file.finish("sliced", x, y))
    return path


@pytest.mark.parametrize(
    ("parts", "masks"),
    [
        ([(5, 0, -1), (0, 4, 1), (0, 3, 1)], (0, 0)),
        ([(5, 0, -1), (3, -9, -2), (-1, -3, -1)], (0, 0)),
        ([(1, 2, -2), (0, 0, -1), (2, 0, -1)], (0b0110, 0b1110)),
        ([(-2, 1, -3), (9, -3, -1), (0, 3, 2)], (0, 0)),
    ],
    ids=["turned", "to the first", "masked", "from behind"],
)
def test_a_slice_may_run_backwards(parts: list[tuple[int, int, int]], masks: tuple[int, int], tmp_path: Path) -> None:
    bit_exact(sliced(tmp_path, (6, 4, 3), parts, masks), noise(6, 4, 3), tmp_path)


def test_a_slice_with_a_step_of_zero_is_refused(tmp_path: Path) -> None:
    good = sliced(tmp_path, (6, 4, 3), [(0, 6, 7), (0, 4, 1), (0, 3, 1)], (0, 0)).read_bytes()
    bad = tmp_path / "bad.tflite"
    steps = np.array([1, 7, 1, 1], "<i4").tobytes()
    assert good.count(steps) == 1
    bad.write_bytes(good.replace(steps, np.array([1, 0, 1, 1], "<i4").tobytes()))
    with pytest.raises(UnsupportedOpError, match="step of 0"):
        load(bad)


# --- integer weights beside real activations ---


@pytest.mark.parametrize("scales", [1, 4], ids=["one scale", "one for each output"])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_integer_weights_beside_real_activations_are_real_numbers(kind: str, scales: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    window = {"Padding": tflite.Padding.VALID, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    sizes, axis, output, options = {
        "CONV_2D": ((4, 2, 3, 4), 0, (1, 4, 3, 4), Options("Conv2DOptions", window)),
        "DEPTHWISE_CONV_2D": (
            (1, 2, 3, 4),
            3,
            (1, 4, 3, 4),
            Options("DepthwiseConv2DOptions", {**window, "DepthMultiplier": 1}),
        ),
        "FULLY_CONNECTED": ((4, 100), 0, (1, 4), Options("FullyConnectedOptions", {})),
    }[kind]
    file = FlatFile()
    x = file.tensor("x", (1, 100) if kind == "FULLY_CONNECTED" else (1, 5, 5, 4), "float32", None)
    steps = Steps(tuple(rng.uniform(0.01, 0.1, scales).tolist()), (0,) * scales, axis)
    weight = file.constant("weight", rng.integers(-127, 128, sizes).astype(np.int8), steps)
    bias = file.constant("bias", rng.normal(0, 1, 4).astype(np.float32))
    y = file.tensor("y", output, "float32", None)
    file.operator(kind, 3, (x, weight, bias), y, options)
    path = tmp_path / "hybrid.tflite"
    path.write_bytes(file.finish("hybrid", x, y))
    imported = load(path)
    samples = rng.normal(0, 1, (10, *imported.graph.shapes[imported.graph.input])).astype(np.float32)
    assert real_error(imported, samples, tflite_runtime.run(path, forms(samples))) < 1e-6
    assert any("int8 weights beside float activations" in note for note in imported.notes)
