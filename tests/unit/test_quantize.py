# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation keeps what a network of real numbers says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medyate.arithmetic.scheme import activation_quant, weight_scales
from medyate.datasets import SCALINGS, Scaling
from medyate.errors import DataError, GraphError
from medyate.frontends import load
from medyate.frontends.builder import GraphBuilder
from medyate.ir import Imported, QGraph, Weights
from medyate.passes.pipeline import simplify
from medyate.quantize.apply import (
    bias_limit,
    dequantize,
    input_quant,
    integer_tensors,
    quantize,
    reference,
    rounded,
    run_integers,
)
from medyate.quantize.bias_correction import on_steps
from medyate.quantize.calibrate import (
    METHODS,
    Calibration,
    Histogram,
    answers,
    choose_ranges,
    expected_error,
    input_range,
    mse_range,
    observe_histograms,
    observe_ranges,
)
from medyate.quantize.equalise import allowed_factors, channel_bounds, equalise, pairs
from medyate.real import Network, channels_first, channels_last
from shared_files import shared

Array = NDArray[Any]
INFINITY = float("inf")
RELU, RELU6 = (0.0, INFINITY), (0.0, 6.0)


def net(activation: tuple[float, float], spread: float = 2.0, seed: int = 0) -> Imported:
    """Dense, depthwise, dense, with channels of very different size; then a sum, a pool and a classifier."""
    random = np.random.default_rng(seed)
    b = GraphBuilder("net", "x", (8, 8, 3), ("conv",))
    sizes = np.exp(random.uniform(-spread, spread, 12)).astype(np.float32)

    def array(*shape: int) -> Array:
        return random.normal(size=shape).astype(np.float32)

    pads = (1, 1, 1, 1)
    first = array(12, 3, 3, 3) / 5 * sizes[:, None, None, None]
    b.convolution("c1", "x", "a", first, array(12) / 5 * sizes, pads=pads, activation=activation)
    b.convolution("dw", "a", "d", array(12, 3, 3, 1) / 3, array(12) / 5, pads=pads, groups=12, activation=activation)
    b.convolution("c2", "d", "e", array(12, 1, 1, 12) / 3, array(12), activation=activation)
    b.convolution("c3", "e", "f", array(12, 1, 1, 12) / 3, array(12))
    b.add("sum", "f", "d", "g")
    b.average_pool("pool", "g", "p", (0, 0), (0, 0))
    b.linear("fc", "p", "logits", array(5, 12), array(5))
    b.softmax("soft", "logits", "y")
    return simplify(b.finish("y"))


def noise(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def images(count: int = 24, seed: int = 1) -> NDArray[np.float32]:
    """Smooth, so that neighbouring inputs go together as in pictures."""
    x = noise(count, 8, 8, 3, seed=seed) + 2 * noise(count, 1, 1, 3, seed=seed + 1)
    return np.clip(x / 3, -1, 1).astype(np.float32)


def tensors(imported: Imported, weights: Weights, samples: Array) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        Network(imported.graph, weights)(channels_first(samples), kept.__setitem__)
    return kept


def integers(qgraph: QGraph, weights: Weights, samples: Array) -> dict[str, Array]:
    """Real values of all tensors of the quantised network."""
    stored = SCALINGS["raw"].int8(samples, input_quant(qgraph))
    kept: dict[str, Array] = {}

    def observe(name: str, value: Any) -> Any:
        quant = qgraph.quant[name]
        kept[name] = ((value - quant.zero) * quant.scale).numpy()
        return value

    with torch.no_grad():
        x = torch.from_numpy(stored.transpose(0, 3, 1, 2).astype(np.float64))
        run_integers(qgraph, integer_tensors(weights), x, observe)
    return kept


def heavy_tailed() -> tuple[Array, Histogram]:
    values = np.random.default_rng(2).laplace(size=1_000_000) * 0.1
    values[:2] = -9.0, 9.0
    counts, _ = np.histogram(values, 2048, (-9.0, 9.0))
    return values, Histogram(-9.0, 9.0, counts.astype(np.float64))


def true_error(values: Array, low: float, high: float) -> float:
    rounded = on_steps(torch.from_numpy(values), activation_quant(low, high)).numpy()
    return float(((rounded - values) ** 2).sum())


def test_the_expected_error_is_the_one_that_rounding_makes() -> None:
    values, histogram = heavy_tailed()
    for low, high in ((-9.0, 9.0), (-1.0, 2.0), (-0.5, 0.5), (-3.0, 0.2)):
        assert expected_error(histogram, low, high) == pytest.approx(true_error(values, low, high), rel=0.05)


def test_with_outliers_the_mse_range_is_narrower_and_its_error_lower() -> None:
    values, histogram = heavy_tailed()
    low, high = mse_range(histogram)
    assert -9.0 < low < 0.0 < high < 9.0
    assert true_error(values, low, high) < 0.5 * true_error(values, -9.0, 9.0)
    for other in ((low / 2, high), (low, high / 2), (low * 1.5, high), (low, high * 1.5)):
        assert true_error(values, low, high) <= 1.02 * true_error(values, *other)


def test_without_outliers_the_mse_range_is_the_whole_one() -> None:
    counts = np.ones(2048)
    low, high = mse_range(Histogram(-1.0, 3.0, counts))
    assert low == pytest.approx(-1.0, abs=0.05)
    assert high == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 100.0])
def test_a_percentile_leaves_out_its_share_and_no_more(percentile: float) -> None:
    values, histogram = heavy_tailed()
    low, high = METHODS["percentile"](histogram, Calibration("percentile", percentile=percentile))
    left_out = ((values < low) | (values > high)).mean() * 100
    assert left_out <= 100.0 - percentile + 1e-9
    assert left_out >= 0.5 * (100.0 - percentile)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_lies_within_what_was_seen(method: str) -> None:
    imported, samples = net(RELU), images()
    seen = observe_ranges(imported.graph, imported.weights, samples)
    chosen = choose_ranges(imported.graph, imported.weights, samples, Calibration(method))
    for name, (low, high) in chosen.items():
        assert low <= 0.0 <= high
        if name != imported.graph.input:
            assert seen[name][0] - 1e-9 <= low
            assert high <= seen[name][1] + 1e-9


def test_logits_and_probabilities_are_never_cut() -> None:
    imported, samples = net(RELU), images()
    assert answers(imported.graph) == {"y", "logits"}
    seen = observe_ranges(imported.graph, imported.weights, samples)
    chosen = choose_ranges(imported.graph, imported.weights, samples, Calibration("percentile", percentile=60.0))
    assert chosen["logits"] == seen["logits"]
    assert chosen["f"] != seen["f"]


@pytest.mark.parametrize(
    ("meaning", "pixels"),
    [
        (SCALINGS["unit"], np.arange(3, 255)),
        (SCALINGS["raw"], np.arange(256)),
        (Scaling(0.58470291, -83 * 0.58470291), np.arange(-120, 125)),
        (Scaling(0.5, -8.0), np.arange(0, 33)),
    ],
)
def test_an_input_on_steps_is_represented_exactly(meaning: Scaling, pixels: Array) -> None:
    values = meaning.real(pixels)
    quant = activation_quant(*input_range(values, (min(0.0, float(values.min())), float(values.max()))))
    found = (meaning.int8(pixels, quant).astype(np.float64) - quant.zero) * quant.scale
    assert np.abs(found - values).max() < 1e-3 * meaning.gain


def test_signed_pixels_miss_their_steps_by_less_than_half_a_step() -> None:
    values = SCALINGS["signed"].real(np.arange(256))
    errors = [
        true_error(values.astype(np.float64), *extent) for extent in ((-1.0, 1.0), input_range(values, (-1.0, 1.0)))
    ]
    assert errors[1] < 0.5 * errors[0]


def test_samples_that_are_no_pixels_keep_their_range() -> None:
    samples = noise(500, 2, 2, 2)
    seen = float(samples.min()), float(samples.max())
    low, high = input_range(samples, seen)
    assert seen[0] * 1.04 <= low <= seen[0]
    assert seen[1] <= high <= seen[1] * 1.04


@pytest.mark.parametrize("activation", [RELU, RELU6])
def test_bias_correction_brings_the_means_of_channels_together(activation: tuple[float, float]) -> None:
    imported, samples = net(activation), images(64)
    exact = tensors(imported, imported.weights, samples)
    shifts = []
    for correct in (False, True):
        calibration = Calibration(bias_correction=correct)
        found = integers(*quantize(imported.graph, imported.weights, samples, calibration), samples)
        for name in ("f", "logits"):
            wanted = exact[name].double().mean((0, 2, 3)).numpy()
            shifts.append(float(np.abs(found[name].mean((0, 2, 3)) - wanted).max()))
    assert shifts[2] < 0.5 * shifts[0]  # f, four layers deep
    assert shifts[3] < shifts[1]


def test_bias_correction_changes_biases_only() -> None:
    imported, samples = net(RELU6), images()
    results = [
        quantize(imported.graph, imported.weights, samples, Calibration(bias_correction=c)) for c in (True, False)
    ]
    assert results[0][0].quants == results[1][0].quants
    different = {k for k in results[0][1] if not np.array_equal(results[0][1][k], results[1][1][k])}
    assert different
    assert all(name.endswith(".bias") for name in different)


@pytest.mark.parametrize("activation", [RELU, RELU6])
def test_equalising_leaves_the_function_and_evens_out_the_channels(activation: tuple[float, float]) -> None:
    imported, samples = net(activation), images(64)
    scaled = equalise(imported.graph, imported.weights, samples)
    fresh = images(64, seed=50)
    wanted, found = (tensors(imported, w, fresh) for w in (imported.weights, scaled))
    for name in ("f", "logits", "y"):
        assert (wanted[name] - found[name]).abs().max() <= 1e-4 * max(1.0, float(wanted[name].abs().max()))
    spreads = []
    for kept in (wanted, found):
        largest = kept["a"].amax((0, 2, 3)).numpy()
        spreads.append(np.log(largest[largest > 0]).std())
    assert spreads[1] < spreads[0]
    assert any(not np.array_equal(imported.weights[name], scaled[name]) for name in scaled)


def test_every_equalised_channel_is_undone_by_the_layer_that_reads_it() -> None:
    imported, samples = net(RELU), images()
    assert [(p.producer.name, p.consumer.name) for p in pairs(imported.graph)] == [("c1", "dw"), ("c2", "c3")]
    scaled = equalise(imported.graph, imported.weights, samples)
    for producer, consumer in (("c1", "dw"), ("c2", "c3")):
        up = scaled[f"{producer}.bias"].astype(np.float64) / imported.weights[f"{producer}.bias"]
        axes = (0, 1) if consumer == "dw" else (0, 1, 2)
        down = (scaled[f"{consumer}.weight"].astype(np.float64) / imported.weights[f"{consumer}.weight"]).mean(axes)
        np.testing.assert_allclose(up * down, 1.0, rtol=1e-5)
    for name in ("fc.weight", "fc.bias", "dw.bias", "c3.bias"):  # the sum reads dw too
        np.testing.assert_array_equal(scaled[name], imported.weights[name])


def test_no_channel_is_equalised_into_a_clamp() -> None:
    random = np.random.default_rng(4)
    factors, highest = random.uniform(1, 16, 1000), random.uniform(-3, 30, 1000)
    allowed = allowed_factors(factors, highest, RELU6)
    moved = allowed > 1
    assert (highest[moved] * allowed[moved] <= 6.0 + 1e-9).all()
    assert (allowed[highest > 6] == 1).all()
    assert (allowed >= 1).all()


def test_channel_bounds_hold_for_every_input_in_the_range() -> None:
    imported = net(RELU6)
    graph = replace(imported.graph)
    bounds = channel_bounds(graph, imported.weights, (-1.0, 1.0))
    corners = np.sign(noise(200, 8, 8, 3, seed=9))
    kept = tensors(imported, imported.weights, corners)
    for name in ("a", "d", "e"):
        low, high = (np.clip(bound, 0, 6) for bound in bounds[name])
        assert (kept[name].amin((0, 2, 3)).numpy() >= low - 1e-4).all()
        assert (kept[name].amax((0, 2, 3)).numpy() <= high + 1e-4).all()


@pytest.mark.parametrize("calibration", [Calibration(), Calibration(equalise=True), Calibration("percentile")])
def test_quantising_twice_gives_the_same_bytes(calibration: Calibration) -> None:
    imported, samples = net(RELU), images()
    first, second = (quantize(imported.graph, imported.weights, samples.copy(), calibration) for _ in range(2))
    assert first[0].quants == second[0].quants
    assert first[1].keys() == second[1].keys()
    for name, array in first[1].items():
        np.testing.assert_array_equal(array, second[1][name])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.75, -2.0])
def test_constant_samples_give_sound_scales(method: str, value: float) -> None:
    imported = net(RELU)
    samples = np.full((3, 8, 8, 3), value, np.float32)
    qgraph, weights = quantize(imported.graph, imported.weights, samples, Calibration(method, equalise=True))
    assert all(np.isfinite(q.scale) and q.scale > 0 and -128 <= q.zero <= 127 for _, q in qgraph.quants)
    assert all(np.isfinite(array).all() for array in weights.values())


def test_a_network_of_zeros_is_quantised() -> None:
    imported = net(RELU)
    zeros = {name: np.zeros_like(array) for name, array in imported.weights.items()}
    qgraph, weights = quantize(imported.graph, zeros, images(), Calibration(equalise=True))
    found = integers(qgraph, weights, images())
    assert np.abs(found["logits"]).max() == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(bad: float) -> None:
    imported, samples = net(RELU), images()
    samples[3, 2, 1, 0] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        quantize(imported.graph, imported.weights, samples)
    with pytest.raises(DataError, match="no samples"):
        quantize(imported.graph, imported.weights, samples[:0])


def test_a_calibration_that_there_is_not_is_refused() -> None:
    with pytest.raises(GraphError, match="minmax, percentile, mse"):
        Calibration("entropy")
    with pytest.raises(GraphError, match=r"99\.99"):
        Calibration("percentile", percentile=0.5)


def test_values_that_move_unchanged_keep_one_scale() -> None:
    b = GraphBuilder("net", "x", (8, 8, 3), ("conv",))
    b.max_pool("pool", "x", "p", (2, 2), (2, 2), (0, 0, 0, 0))
    b.convolution("conv", "p", "y", noise(4, 3, 3, 3), None)
    imported = simplify(b.finish("y"))
    pixels = np.random.default_rng(3).integers(0, 256, (40, 8, 8, 3))
    for method in METHODS:
        qgraph, _ = quantize(imported.graph, imported.weights, SCALINGS["unit"].real(pixels), Calibration(method))
        assert qgraph.quant["x"] == qgraph.quant["p"]
        assert qgraph.quant["x"].scale == pytest.approx(1 / 255)


def test_histograms_count_all_values_but_zero() -> None:
    imported, samples = net(RELU), images()
    histograms = observe_histograms(imported.graph, imported.weights, samples)
    for name, value in tensors(imported, imported.weights, samples).items():
        assert histograms[name].counts.sum() == int((value != 0).sum())


def test_dequantised_weights_are_the_real_ones_to_half_a_step() -> None:
    imported, samples = net(RELU6), images()
    qgraph, weights = quantize(imported.graph, imported.weights, samples)
    real = dequantize(qgraph, weights)
    for name in ("c1", "c2", "fc"):
        apart = np.abs(real[f"{name}.weight"] - imported.weights[f"{name}.weight"])
        assert (apart.max(axis=(1, 2, 3)) <= weights[f"{name}.scale"] * 0.501).all()


def cifar(folder: Path) -> tuple[Array, Array, Array]:
    with np.load(folder / "data.npz") as data:
        meaning = SCALINGS["raw"]
        return meaning.real(data["x_train"][:128]), meaning.real(data["x_test"][:300]), data["y_test"][:300]


def keywords(folder: Path) -> tuple[Array, Array, Array]:
    with np.load(folder / "data.npz") as data:
        order = np.random.default_rng(0).permutation(len(data["x"]))[:556]
        x, y = Scaling(0.58470291, -83 * 0.58470291).real(data["x"][order]), data["y"][order]
    return x[:256], x[256:], y[256:]


@pytest.mark.parametrize(
    ("model", "data", "read"),
    [
        ("ic_resnet8_cifar10_float.onnx", "cifar10", cifar),
        ("kws_dscnn_float.tflite", "kws01", keywords),
    ],
)
def test_int8_is_within_a_point_of_real_numbers(
    model: str, data: str, read: Callable[[Path], tuple[Array, Array, Array]]
) -> None:
    imported = simplify(load(shared(f"models/{model}")))
    calibration, samples, labels = read(shared(f"data/{data}"))
    graph = imported.graph
    with torch.no_grad():
        real = channels_last(Network(graph, imported.weights)(channels_first(samples))).numpy().argmax(1)
    qgraph, weights = quantize(graph, imported.weights, calibration)
    parts = [integers(qgraph, weights, samples[i : i + 50])[graph.output] for i in range(0, len(samples), 50)]
    int8 = np.concatenate(parts)[:, :, 0, 0].argmax(1)
    assert (int8 == real).mean() >= 0.98
    assert (real == labels).mean() - (int8 == labels).mean() <= 0.01


def test_bias_correction_saves_a_depthwise_network() -> None:
    """MobileNetV1, whose depthwise weights shift means: noise of the logits from a fifth to a twelfth."""
    path = shared("models/derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx")
    imported = simplify(load(path))
    photos = sorted(shared("data/flowers17/test").rglob("*.jpg"))[::17]
    samples = SCALINGS["signed"].real(np.stack([photo(file) for file in photos]))
    graph, count = imported.graph, 12
    with torch.no_grad():
        real = channels_last(Network(graph, imported.weights)(channels_first(samples[:count]))).numpy()
    found = []
    for correct in (False, True):
        calibration = Calibration(bias_correction=correct)
        qgraph, weights = quantize(graph, imported.weights, samples[count:], calibration)
        apart = integers(qgraph, weights, samples[:count])[graph.output][:, :, 0, 0] - real
        found.append(float(np.sqrt(apart.var(axis=1).mean() / real.var(axis=1).mean())))
    assert found[1] < 0.5 * found[0]
    assert found[1] < 0.12


def photo(file: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), np.uint8)


def dead(value: float, shift: float) -> Imported:
    """A layer whose channel 4 has weights of `value` and a bias of `shift`, in front of a classifier that reads it."""
    random = np.random.default_rng(6)
    weight = random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    weight[4] = value
    bias = random.normal(0, 0.1, 8).astype(np.float32)
    bias[4] = shift
    b = GraphBuilder("net", "x", (8, 8, 3), ("conv",))
    b.convolution("conv", "x", "c", weight, bias, activation=RELU)
    b.average_pool("pool", "c", "p", (0, 0), (0, 0))
    head = random.normal(0, 0.3, (5, 1, 1, 8)).astype(np.float32)
    b.convolution("head", "p", "y", head, np.zeros(5, np.float32))
    return simplify(b.finish("y"))


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-12, 1e-8, 1e-6, 1e-4])
@pytest.mark.parametrize("shift", [2.0, -3.0, 900.0])
def test_a_channel_without_weights_keeps_its_bias(value: float, shift: float, correct: bool) -> None:
    """Its own scale would take more than 32 bits to hold the bias."""
    imported, samples = dead(value, shift), images(64)
    qgraph, weights = quantize(imported.graph, imported.weights, samples, Calibration(bias_correction=correct))
    exact = tensors(imported, imported.weights, samples)["y"].numpy().reshape(len(samples), -1)
    found = rounded(qgraph, weights, samples)
    stored = np.clip(np.round(samples / qgraph.quant["x"].scale) + qgraph.quant["x"].zero, -128, 127).astype(np.int8)
    quant = qgraph.quant["y"]
    device = (reference(qgraph, weights, stored).astype(np.float64) - quant.zero) * quant.scale
    assert np.abs(found - exact).max() <= 6 * quant.scale
    assert np.abs(device - exact).max() <= 6 * quant.scale
    assert np.abs(weights["conv.bias"].astype(np.int64)).max() <= bias_limit(27)


def test_a_channel_that_needs_no_more_room_keeps_its_scale() -> None:
    imported, samples = net(RELU), images()
    _, weights = quantize(imported.graph, imported.weights, samples)
    for name in ("c1", "c2", "c3", "fc"):
        np.testing.assert_array_equal(weights[f"{name}.scale"], weight_scales(imported.weights[f"{name}.weight"], 0))
