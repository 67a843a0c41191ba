# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: ranges from calibration samples, then int8 weights and int32 biases."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import GraphError
from medyate.ir import Graph, QGraph, Quant, Weights
from medyate.ops import OPS
from medyate.quantize.scheme import (
    DEAD_RATIO,
    QMAX,
    WEIGHT_MAX,
    Integers,
    activation_bounds,
    activation_quant,
    weight_scales,
)

BATCH = 64
DELTA_MAX = 128


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
    quants = {name: activation_quant(*ranges[name]) for name, _ in graph.tensors}
    for node in graph:
        if node.op == "shortcut":  # moves values without rescaling them
            quants[node.output] = quants[node.inputs[0]]
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
        arrays[node.weight_name("bias")] = _clamped_bias(bias / unit, q_weight.size // len(scales))
    return QGraph(graph, tuple(quants.items())), arrays


def _clamped_bias(steps: NDArray[np.float64], taps: int) -> NDArray[np.int32]:
    """Biases such that no accumulator can overflow, whatever the input and the deltas."""
    room = 2**31 - 1 - taps * (WEIGHT_MAX + DELTA_MAX) * (2 * QMAX + 1)
    if room < 0:
        raise GraphError(
            f"a layer sums {taps:,} products per output; 32 bits hold the sum of 33,025.",
            "Split the layer or pool its input.",
        )
    return np.clip(np.round(steps), -room, room).astype(np.int32)


def dead_channels(scales: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Output channels whose scale is at the bound below which they are frozen."""
    dead: NDArray[np.bool_] = scales <= scales.max() * DEAD_RATIO * (1 + 1e-9)
    return dead


def integers(qgraph: QGraph, weights: Weights, index: int) -> Integers:
    """The integer facts of the graph's index-th node."""
    node = qgraph.graph.nodes[index]
    inputs = tuple(qgraph.quant[name] for name in node.inputs)
    output = qgraph.quant[node.output]
    multipliers: tuple[float, ...] = ()
    if OPS[node.op].channel_axes is not None:
        scales = np.asarray(weights[node.weight_name("scale")], np.float64)
        multipliers = tuple(float(inputs[0].scale * scale / output.scale) for scale in scales)
    elif node.op == "average_pool":
        kernel = node.attrs.kernel  # type: ignore[attr-defined]
        multipliers = (inputs[0].scale / (kernel[0] * kernel[1] * output.scale),)
    activation = getattr(node.attrs, "activation", None)
    return Integers(inputs, output, multipliers, activation_bounds(activation, output))


def input_quant(qgraph: QGraph) -> Quant:
    """Scale and zero point of the network's input."""
    return qgraph.quant[qgraph.graph.input]


def run_integers(qgraph: QGraph, arrays: dict[str, Any], x: Any, observe: Any = None) -> Any:
    """Forward in the device's integers: float64 PyTorch tensors that hold int8 values (N, C, H, W).

    `arrays` are the integer weights as float64 tensors; gradients flow to them and to x in units of
    the integer tensors, with DESIGN's mask convention.
    """
    values = {qgraph.graph.input: x}
    scales = {name: array.numpy() for name, array in arrays.items() if name.endswith(".scale")}
    for index, node in enumerate(qgraph.graph):
        op = OPS[node.op]
        assert op.integer is not None
        roles = op.weights(node.attrs, qgraph.graph.input_shapes(node))
        mine = {role: arrays[node.weight_name(role)] for role in roles}
        facts = integers(qgraph, scales, index)
        value = op.integer(node.attrs, tuple(values[name] for name in node.inputs), mine, facts)
        if observe is not None:
            value = observe(node.output, value)
        values[node.output] = value
    return values[qgraph.graph.output]
