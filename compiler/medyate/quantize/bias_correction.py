# SPDX-License-Identifier: Apache-2.0
"""Takes back the shift that quantising gives to the mean of every output channel.

A rounded weight is off by the same amount at every pixel, so its error does not average out: the
means of whole channels move, most of all behind depthwise layers, where nine weights have one channel
to themselves (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
correction", section 4.2, in the form that measures on samples).

The network runs twice side by side, in real numbers and with rounded weights and tensors, one layer at
a time. A layer's bias grows by the difference of its channels' means before the activation; the next
layer sees what the corrected one makes of it. Rounded tensors are real numbers on int8 steps here: the
device's own integers differ from them by the last bits of the multipliers, which shift no mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import QMAX, QMIN
from medyate.ir import Graph, Node, Quant, Weights, elements
from medyate.ops import OPS

SAMPLES = 128
VALUES = 1 << 25
"""Values of one tensor over all samples: larger networks are corrected on fewer samples."""


def corrected_biases(
    graph: Graph, weights: Weights, rounded: Weights, quants: Mapping[str, Quant], samples: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Real biases by array name, with which every layer's channels have the means of real numbers.

    `rounded` holds the real values of the quantised weights; samples are real (N, H, W, C).
    """
    import torch

    from medyate.real import channels_first

    x = channels_first(chosen(graph, samples))
    exact: dict[str, Any] = {graph.input: x}
    steps: dict[str, Any] = {graph.input: on_steps(x, quants[graph.input])}
    biases: dict[str, NDArray[np.float64]] = {}
    last = {name: node for node in graph for name in node.inputs}
    with torch.no_grad():
        for node in graph:
            xs = tuple(exact[name] for name in node.inputs)
            rounded_xs = tuple(steps[name] for name in node.inputs)
            own = _arrays(graph, node, weights)
            theirs = own
            if OPS[node.op].channel_axes is not None:
                theirs = {**own, "weight": _tensor(rounded[node.weight_name("weight")])}
                linear = _linear(node, xs, own)
                shift = _means(linear) - _means(_linear(node, rounded_xs, theirs))
                bias = own["bias"].double() + shift
                biases[node.weight_name("bias")] = bias.numpy()
                theirs["bias"] = bias.float()
                activation = node.attrs.activation  # type: ignore[attr-defined]
                exact[node.output] = linear if activation is None else linear.clamp_(*activation)
            else:
                exact[node.output] = OPS[node.op].real(node.attrs, xs, own)
            value = OPS[node.op].real(node.attrs, rounded_xs, theirs)
            steps[node.output] = on_steps(value, quants[node.output])
            for name in set(node.inputs):
                if last[name] is node:  # memory for the largest tensors only
                    del exact[name], steps[name]
    return biases


def chosen(graph: Graph, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evenly spaced samples, so many that no tensor grows too large."""
    largest = max(elements(shape) for _, shape in graph.tensors)
    count = min(len(samples), max(1, min(SAMPLES, VALUES // largest)))
    return samples[np.arange(count) * len(samples) // count]


def on_steps(value: Any, quant: Quant) -> Any:
    """The nearest values that int8 steps stand for."""
    steps = (value / quant.scale).round_().add_(quant.zero).clamp_(QMIN, QMAX)
    return steps.sub_(quant.zero).mul_(quant.scale)


def _linear(node: Node, xs: tuple[Any, ...], arrays: Mapping[str, Any]) -> Any:
    """A layer's output before the activation."""
    linear: Any = replace(node.attrs, activation=None)  # type: ignore[call-arg]
    return OPS[node.op].real(linear, xs, arrays)


def _means(value: Any) -> Any:
    """Of every channel."""
    return value.double().mean((0, 2, 3))


def _arrays(graph: Graph, node: Node, weights: Weights) -> dict[str, Any]:
    roles = OPS[node.op].weights(node.attrs, graph.input_shapes(node))
    return {role: _tensor(weights[node.weight_name(role)]) for role in roles}


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(array, np.float32))
