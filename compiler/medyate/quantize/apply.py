# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: ranges from calibration samples, then int8 weights and int32 biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import GraphError
from medyate.ir import Graph, Node, QGraph, Quant, Weights
from medyate.ops import OPS
from medyate.ops.opdef import Site
from medyate.quantize.scheme import (
    DEAD_RATIO,
    DELTA_MAX,
    QMAX,
    WEIGHT_MAX,
    Integers,
    activation_bounds,
    activation_quant,
    weight_scales,
)

BATCH = 64
ROLES = ("weight", "bias", "scale", "zero", "origin", "multiplier", "table", "slope")
"""Every array that a quantised node can have; `constants` of its operation make the last three."""


def observe_ranges(graph: Graph, weights: Weights, samples: NDArray[np.float32]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every tensor over the samples (N, H, W, C)."""
    import torch

    from medyate.real import Network, channels_first

    network = Network(graph, weights)
    ranges: dict[str, tuple[float, float]] = {}

    def observe(name: str, value: Any) -> None:
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))

    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            network(channels_first(samples[start : start + BATCH]), observe)
    return ranges


def quantize(graph: Graph, weights: Weights, samples: NDArray[np.float32]) -> tuple[QGraph, Weights]:
    """The quantised network and its integer arrays; samples are real (N, H, W, C)."""
    ranges = observe_ranges(graph, weights, samples)
    quants = {name: activation_quant(*extent) for name, extent in shared_ranges(graph, ranges).items()}
    for node in graph:
        quants[node.output] = OPS[node.op].fixed_output or quants[node.output]
    arrays: dict[str, NDArray[Any]] = {}
    for node in graph:
        axes = OPS[node.op].channel_axes
        if axes is None:
            continue
        axis = axes[0]
        weight = np.asarray(weights[node.weight_name("weight")], np.float64)
        scales = weight_scales(weight, axis)
        shaped = scales.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        q_weight = np.clip(np.round(weight / shaped), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
        arrays[node.weight_name("weight")] = q_weight
        arrays[node.weight_name("scale")] = scales
        bias = np.asarray(weights[node.weight_name("bias")], np.float64)
        unit = quants[node.inputs[0]].scale * scales
        arrays[node.weight_name("bias")] = clamped_bias(np.round(bias / unit), q_weight.size // len(scales))
    qgraph = QGraph(graph, tuple(quants.items()))
    return qgraph, add_constants(qgraph, arrays)


def shared_ranges(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ranges, with one for all tensors between which values move unchanged."""
    group = {name: name for name in ranges}

    def leader(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in graph:
        if OPS[node.op].keeps_scale(node.attrs):
            for name in node.inputs:
                group[leader(name)] = leader(node.output)
    merged: dict[str, tuple[float, float]] = {}
    for name, (low, high) in ranges.items():
        known = merged.get(leader(name), (low, high))
        merged[leader(name)] = min(low, known[0]), max(high, known[1])
    return {name: merged[leader(name)] for name in ranges}


def add_constants(qgraph: QGraph, weights: Weights) -> dict[str, NDArray[Any]]:
    """The weights with every array that an operation works out of them; one that is there already stays."""
    arrays = dict(weights)
    for index, node in enumerate(qgraph.graph):
        for role, array in OPS[node.op].constants(site(qgraph, arrays, index)).items():
            arrays.setdefault(node.weight_name(role), np.asarray(array))
    return arrays


def clamped_bias(steps: NDArray[Any], taps: int, weight_zero: int = 0) -> NDArray[np.int32]:
    """Biases such that no accumulator can overflow, whatever the input and the deltas."""
    room = 2**31 - 1 - taps * (WEIGHT_MAX + abs(weight_zero) + DELTA_MAX) * (2 * QMAX + 1)
    if room < 0:
        raise GraphError(
            f"a layer sums {taps:,} products per output; 32 bits hold the sum of 33,025.",
            "Split the layer or pool its input.",
        )
    clamped: NDArray[np.int32] = np.clip(steps, -room, room).astype(np.int32)
    return clamped


def dead_channels(scales: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Output channels whose scale is at the bound below which they are frozen."""
    dead: NDArray[np.bool_] = scales <= scales.max() * DEAD_RATIO * (1 + 1e-9)
    return dead


def integers(qgraph: QGraph, weights: Weights, index: int) -> Integers:
    """The integer facts of the graph's index-th node."""
    node = qgraph.graph.nodes[index]
    inputs = tuple(qgraph.quant[name] for name in node.inputs)
    output = qgraph.quant[node.output]
    activation = getattr(node.attrs, "activation", None)
    bounds = activation_bounds(activation, output)
    return Integers(inputs, output, node_arrays(node, weights), bounds, qgraph.rounds_once)


def node_arrays(node: Node, weights: Weights) -> dict[str, NDArray[Any]]:
    """A node's quantised arrays by role."""
    names = {role: node.weight_name(role) for role in ROLES}
    return {role: np.asarray(weights[name]) for role, name in names.items() if name in weights}


def site(qgraph: QGraph, weights: Weights, index: int) -> Site:
    """All that the kernel of the graph's index-th node needs to know."""
    node = qgraph.graph.nodes[index]
    shapes = qgraph.graph.input_shapes(node), qgraph.graph.shapes[node.output]
    return Site(node.attrs, *shapes, integers(qgraph, weights, index))


def dequantize(qgraph: QGraph, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """The real weights and biases that the integers stand for."""
    real: dict[str, NDArray[np.float32]] = {}
    for index, node in enumerate(qgraph.graph):
        axes = OPS[node.op].channel_axes
        if axes is None:
            continue
        facts = integers(qgraph, weights, index)
        scales = facts.arrays["scale"].astype(np.float64)
        weight = facts.arrays["weight"].astype(np.float64) - facts.weight_zero
        shaped = scales.reshape([-1 if i == axes[0] else 1 for i in range(weight.ndim)])
        real[node.weight_name("weight")] = (weight * shaped).astype(np.float32)
        bias = facts.arrays["bias"] * (facts.inputs[0].scale * scales)
        real[node.weight_name("bias")] = bias.astype(np.float32)
    return real


def input_quant(qgraph: QGraph) -> Quant:
    """Scale and zero point of the network's input."""
    return qgraph.quant[qgraph.graph.input]


def run_integers(qgraph: QGraph, arrays: dict[str, Any], x: Any, observe: Any = None) -> Any:
    """Forward in the device's integers: float64 PyTorch tensors that hold int8 values (N, C, H, W).

    `arrays` are the integer weights as float64 tensors; gradients flow to them and to x in units of
    the integer tensors, with DESIGN's mask convention.
    """
    values = {qgraph.graph.input: x}
    constants = {name: array.detach().numpy() for name, array in arrays.items()}
    for index, node in enumerate(qgraph.graph):
        op = OPS[node.op]
        assert op.integer is not None
        roles = op.weights(node.attrs, qgraph.graph.input_shapes(node))
        mine = {role: arrays[node.weight_name(role)] for role in roles}
        facts = integers(qgraph, constants, index)
        value = op.integer(node.attrs, tuple(values[name] for name in node.inputs), mine, facts)
        if observe is not None:
            value = observe(node.output, value)
        values[node.output] = value
    return values[qgraph.graph.output]
