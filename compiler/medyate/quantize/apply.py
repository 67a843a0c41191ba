# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: ranges from calibration samples, then int8 weights and int32 biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import (
    WEIGHT_MAX,
    Integers,
    activation_bounds,
    activation_quant,
    products_max,
    weight_scales,
)
from medyate.errors import GraphError
from medyate.ir import Graph, Node, QGraph, Quant, Weights, elements
from medyate.ops import OPS
from medyate.ops.opdef import Site
from medyate.quantize.bias_correction import corrected_biases, on_steps
from medyate.quantize.calibrate import Calibration, choose_ranges
from medyate.quantize.equalise import equalise

ROLES = ("weight", "bias", "scale", "zero", "product", "origin", "multiplier", "table", "slope")
"""Every array that a quantised node can have; `constants` of its operation make the last three."""
DEFAULT = Calibration()

SCALE_ROUNDS = 8
BIAS_SLACK = 1 + 2.0**-10
"""Above the smallest scale that a bias fits, for what rounding and correction add."""
NAMED = 8
"""Channels that a message names."""
REFERENCE_VALUES = 1 << 20
"""Of one tensor at a time in the reference: a batch of a large network takes gigabytes in float64."""


def quantize(
    graph: Graph, weights: Weights, samples: NDArray[np.float32], calibration: Calibration = DEFAULT
) -> tuple[QGraph, Weights]:
    """The quantised network and its integer arrays; samples are real (N, H, W, C).

    Raises DataError when the samples or what the network makes of them are no finite numbers.
    """
    if calibration.equalise:
        weights = equalise(graph, weights, samples)
    ranges = shared_ranges(graph, choose_ranges(graph, weights, samples, calibration))
    quants = {name: activation_quant(*extent) for name, extent in ranges.items()}
    for node in graph:
        quants[node.output] = OPS[node.op].fixed_output(node.attrs) or quants[node.output]
    qgraph = QGraph(graph, tuple(quants.items()))
    return qgraph, add_constants(qgraph, rounded_layers(graph, weights, quants, samples, calibration))


def rounded_layers(
    graph: Graph,
    weights: Weights,
    quants: Mapping[str, Quant],
    samples: NDArray[np.float32],
    calibration: Calibration,
) -> dict[str, NDArray[Any]]:
    """int8 weights, their scales and int32 biases of all layers, by array name.

    A bias counts in steps of its channel's scale. Where the weights are next to nothing beside it (a batch norm has
    switched the channel off), their own scale would need more than 32 bits for it: the channel's scale is raised.
    Corrections change biases, so this goes round until every one fits. Raises GraphError where none would.
    """
    layers = [node for node in graph if OPS[node.op].channel_axes is not None]
    biases: Weights = weights
    least = {node.name: np.zeros(1) for node in layers}
    for _ in range(SCALE_ROUNDS):
        arrays: dict[str, NDArray[Any]] = {}
        for node in layers:
            weight = np.asarray(weights[node.weight_name("weight")], np.float64)
            room = bias_limit(weight.size // weight.shape[_output_axis(node)], layer=f"'{node.name}'")
            wanted = scales_for_bias(_bias(biases, node), quants[node.inputs[0]].scale, room)
            least[node.name] = np.maximum(least[node.name], wanted)
            scales = np.maximum(weight_scales(weight, _output_axis(node)), least[node.name])
            arrays |= rounded_weights(node, weight, scales)
        if calibration.bias_correction:
            rounded = {node.weight_name("weight"): real_weights(node, arrays) for node in layers}
            biases = corrected_biases(graph, weights, rounded, quants, samples)
        outside = [_steps_of_bias(node, biases, arrays, quants) for node in layers]
        if not any(channels for _, channels in outside):
            break
    for node, (steps, channels) in zip(layers, outside, strict=True):
        if channels:
            raise GraphError(
                f"'{node.name}': the biases of {named_channels(channels)} do not fit beside the layer's products.",
                "Split the layer, or check its weights.",
            )
        arrays[node.weight_name("bias")] = steps.astype(np.int32)
    return arrays


def scales_for_bias(bias: NDArray[np.float64], x_scale: float, room: int) -> NDArray[np.float64]:
    """The smallest float32 scale of each channel at which its bias is at most `room` steps."""
    scales: NDArray[np.float64] = (np.abs(bias) / (x_scale * max(room, 1)) * BIAS_SLACK).astype(np.float32)
    return scales.astype(np.float64)


def _bias(biases: Weights, node: Node) -> NDArray[np.float64]:
    return np.asarray(biases[node.weight_name("bias")], np.float64)


def _steps_of_bias(
    node: Node, biases: Weights, arrays: Weights, quants: Mapping[str, Quant]
) -> tuple[NDArray[np.float64], list[int]]:
    """(the bias in steps of the accumulator, channels in which it is too large)."""
    scales = np.asarray(arrays[node.weight_name("scale")], np.float64)
    steps = np.round(_bias(biases, node) / (quants[node.inputs[0]].scale * scales))
    return steps, large_biases(steps, arrays[node.weight_name("weight")].size // len(scales))


def rounded_weights(node: Node, weight: NDArray[np.float64], scales: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """A layer's int8 weights of given scales, and these, by array name."""
    steps = np.round(weight / _along_outputs(node, scales, weight.ndim))
    return {
        node.weight_name("weight"): np.clip(steps, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8),
        node.weight_name("scale"): scales,
    }


def real_weights(node: Node, arrays: Weights, zero: int = 0) -> NDArray[np.float64]:
    """What a layer's int8 weights stand for."""
    weight = np.asarray(arrays[node.weight_name("weight")], np.float64) - zero
    scales = np.asarray(arrays[node.weight_name("scale")], np.float64)
    real: NDArray[np.float64] = weight * _along_outputs(node, scales, weight.ndim)
    return real


def _output_axis(node: Node) -> int:
    axes = OPS[node.op].channel_axes
    assert axes is not None
    return axes[0]


def _along_outputs(node: Node, scales: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    axis = _output_axis(node)
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)])


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


def large_biases(steps: NDArray[Any], taps: int, weight_zero: int = 0, layer: str = "a layer") -> list[int]:
    """Output channels whose bias an accumulator cannot hold beside the layer's products."""
    return [int(channel) for channel in np.flatnonzero(np.abs(steps) > bias_limit(taps, weight_zero, layer))]


def named_channels(channels: Sequence[int]) -> str:
    """Channels in a sentence: the first few by number."""
    numbers = ", ".join(str(channel) for channel in channels[:NAMED])
    more = f" and {len(channels) - NAMED} more" if len(channels) > NAMED else ""
    return f"output channel{'s' if len(channels) > 1 else ''} {numbers}{more}"


def bias_limit(taps: int, weight_zero: int = 0, layer: str = "a layer") -> int:
    """Largest |bias| of a layer with so many weights for each output. Raises GraphError where there is none."""
    room = 2**31 - 1 - products_max(taps, weight_zero)
    if room < 0:
        raise GraphError(
            f"{layer} sums {taps:,} products per output; 32 bits hold the sum of 33,025.",
            "Split the layer or pool its input.",
        )
    return room


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
        if OPS[node.op].channel_axes is None:
            continue
        facts = integers(qgraph, weights, index)
        scales = facts.arrays["scale"].astype(np.float64)
        weight = real_weights(node, weights, facts.weight_zero)
        real[node.weight_name("weight")] = weight.astype(np.float32)
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


def integer_tensors(weights: Weights) -> dict[str, Any]:
    """The integer arrays as float64 tensors."""
    import torch

    return {name: torch.from_numpy(np.array(array, np.float64)) for name, array in weights.items()}


def rounded(qgraph: QGraph, weights: Weights, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs (n, k) of real arithmetic on rounded weights and tensors: what quantising costs, whatever computes it.

    Samples are real (n, H, W, C).
    """
    import torch

    from medyate.real import Network, channels_first, channels_last

    graph, quants = qgraph.graph, qgraph.quant
    network = Network(graph, dequantize(qgraph, weights))
    outputs = []
    with torch.no_grad():
        for part in torch.split(channels_first(samples), _batch(graph)):
            values = {graph.input: on_steps(part, quants[graph.input])}
            for node in graph:
                network.run((node,), values)
                values[node.output] = on_steps(values[node.output], quants[node.output])
            outputs.append(channels_last(values[graph.output]).numpy())
    stacked: NDArray[np.float32] = np.concatenate(outputs)
    return stacked


def _batch(graph: Graph) -> int:
    """Samples at a time in the reference."""
    return max(1, REFERENCE_VALUES // max(elements(shape) for _, shape in graph.tensors))


def reference(qgraph: QGraph, weights: Weights, samples: NDArray[np.int8]) -> NDArray[np.int8]:
    """The device's integers in PyTorch, (n, k), for samples (n, H, W, C)."""
    import torch

    from medyate.real import channels_last

    tensors = integer_tensors(weights)
    x = torch.from_numpy(samples.transpose(0, 3, 1, 2).astype(np.float64))
    with torch.no_grad():
        outputs = [
            channels_last(run_integers(qgraph, tensors, part)).numpy() for part in torch.split(x, _batch(qgraph.graph))
        ]
    stacked: NDArray[np.int8] = np.concatenate(outputs).astype(np.int8)
    return stacked
