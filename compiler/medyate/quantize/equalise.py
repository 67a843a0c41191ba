# SPDX-License-Identifier: Apache-2.0
"""Lets the channels between two layers fill one range without a change of the network's function.

Where y = W2 act(W1 x + b1) and act scales along (relu), channel c of W1 and b1 may be multiplied by any
m > 0 and the weights of W2 that read it divided by m. A tensor has one scale for all channels, so a
channel whose values are small loses its bits; multiplied, it does not (Nagel et al. 2019, section 4.1,
with the ranges of activations in place of the weights' where a layer has a scale per output channel).

A clamp at 6 does not scale along. A channel is multiplied there only if no input in the calibrated
range can bring it to the clamp, before or after: then it is a relu for that channel. That leaves small
factors, which pay only in front of a depthwise layer, whose weights lose nothing by them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.ir import Activation, Graph, Node, Weights
from medyate.ops import OPS
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.quantize.calibrate import watch

LARGEST = 16.0
"""Bound of a factor and of its inverse: weights far apart in scale would have to learn far apart too."""

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Lowest and highest value of every channel."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two layers with nothing but an activation between them."""

    producer: Node
    consumer: Node


def equalise(graph: Graph, weights: Weights, samples: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The weights with every eligible channel scaled; samples are real (N, H, W, C)."""
    scaled: dict[str, NDArray[Any]] = dict(weights)
    largest = channel_maxima(graph, weights, samples)
    limits = channel_bounds(graph, weights, (float(samples.min()), float(samples.max())))
    for pair in pairs(graph):
        # Scaling a pair leaves what other pairs see: the ranges hold for all.
        name = pair.producer.output
        activation = pair.producer.attrs.activation  # type: ignore[attr-defined]
        reads = np.asarray(scaled[pair.consumer.weight_name("weight")], np.float64)
        factors = channel_factors(largest[name], column_maxima(pair.consumer, reads))
        factors = allowed_factors(factors, limits[name][1], activation)
        scaled |= rescaled(pair, scaled, factors)
    return scaled


def pairs(graph: Graph) -> tuple[Pair, ...]:
    """Weighted layers whose output, clamped at zero, one other weighted layer reads and nothing else.

    Behind a clamp at a positive value, that layer is depthwise.
    """
    found = []
    for node in graph:
        readers = graph.consumers[node.output]
        if len(readers) != 1 or node.output == graph.output or not _layer(node) or not _layer(readers[0]):
            continue
        activation: Activation = node.attrs.activation  # type: ignore[attr-defined]
        if activation is None or activation[0] != 0.0 or activation[1] <= 0:
            continue
        if math.isinf(activation[1]) or isinstance(readers[0].attrs, Depthwise):
            found.append(Pair(node, readers[0]))
    return tuple(found)


def _layer(node: Node) -> bool:
    return isinstance(node.attrs, Depthwise) or (isinstance(node.attrs, Conv2d) and node.attrs.groups == 1)


def channel_maxima(graph: Graph, weights: Weights, samples: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Largest magnitude of every channel of every tensor."""
    maxima: dict[str, NDArray[np.float64]] = {}

    def observe(name: str, value: Any) -> None:
        found = value.abs().amax((0, 2, 3)).double().numpy()
        maxima[name] = np.maximum(maxima.get(name, found), found)

    watch(graph, weights, samples, observe)
    return maxima


def column_maxima(consumer: Node, weight: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Largest share of its row's largest weight, per input channel; None for a depthwise layer.

    There every channel has a scale of its own, and nothing is lost whatever its weights.
    """
    if isinstance(consumer.attrs, Depthwise):
        return None
    rows = np.abs(weight)
    widest = np.maximum(rows.max(axis=(1, 2, 3), keepdims=True), 1e-30)
    columns: NDArray[np.float64] = (rows / widest).max(axis=(0, 1, 2))
    return columns


def channel_factors(values: NDArray[np.float64], columns: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Factors that bring channels to one range: all the way, or half the way where weights pay for it."""
    alive = values > 0 if columns is None else (values > 0) & (columns > 0)
    factors = np.ones(len(values))
    if not alive.any():
        return factors
    wanted = 1.0 / values[alive] if columns is None else np.sqrt(columns[alive] / values[alive])
    wanted = wanted / wanted.min()  # none below one: a clamp allows no smaller factor
    factors[alive] = np.minimum(wanted, LARGEST)
    return factors


def allowed_factors(
    factors: NDArray[np.float64], highest: NDArray[np.float64], activation: Activation
) -> NDArray[np.float64]:
    """The factors as far as the activation lets them; `highest` bounds the channels before it."""
    assert activation is not None
    if math.isinf(activation[1]):
        return factors
    room = np.where(highest > 0, activation[1] / np.maximum(highest, 1e-30), 1.0)
    return np.maximum(np.minimum(factors, room), 1.0)


def rescaled(pair: Pair, weights: Weights, factors: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    """The arrays of both layers after a channel's factor went from one into the other."""
    names = [pair.producer.weight_name(role) for role in ("weight", "bias")]
    weight, bias = (np.asarray(weights[name], np.float64) for name in names)
    reader = pair.consumer.weight_name("weight")
    last = isinstance(pair.producer.attrs, Depthwise)  # (kernel_h, kernel_w, channels)
    return {
        names[0]: (weight * (factors if last else factors[:, None, None, None])).astype(np.float32),
        names[1]: (bias * factors).astype(np.float32),
        reader: (np.asarray(weights[reader], np.float64) / factors).astype(np.float32),
    }


def channel_bounds(graph: Graph, weights: Weights, extent: tuple[float, float]) -> Mapping[str, Bounds]:
    """Bounds of every channel before its activation that hold for every input within `extent`."""
    after: dict[str, Bounds] = {}
    before: dict[str, Bounds] = {}
    for name, (_, _, channels) in graph.tensors:
        after[name] = np.full(channels, -np.inf), np.full(channels, np.inf)
    low, high = min(extent[0], 0.0), max(extent[1], 0.0)  # padding is zero
    ones = np.ones(graph.shapes[graph.input][2])
    after[graph.input] = low * ones, high * ones
    for node in graph:
        if OPS[node.op].channel_axes is None or not _layer(node):
            continue
        lowest, highest = (np.minimum(after[node.inputs[0]][0], 0), np.maximum(after[node.inputs[0]][1], 0))
        weight = np.asarray(weights[node.weight_name("weight")], np.float64)
        bias = np.asarray(weights[node.weight_name("bias")], np.float64)
        positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
        axes = (0, 1) if isinstance(node.attrs, Depthwise) else (1, 2, 3)
        top = bias + (_product(positive, highest) + _product(negative, lowest)).sum(axis=axes)
        bottom = bias + (_product(positive, lowest) + _product(negative, highest)).sum(axis=axes)
        before[node.output] = bottom, top
        least, most = node.attrs.activation or (-math.inf, math.inf)  # type: ignore[attr-defined]
        after[node.output] = np.clip(bottom, least, most), np.clip(top, least, most)
    return before


def _product(weight: NDArray[np.float64], bound: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product, with 0 for 0 times infinity: a weight of zero does not read."""
    with np.errstate(invalid="ignore"):
        product: NDArray[np.float64] = np.where(weight == 0, 0.0, weight * bound)
    return product
