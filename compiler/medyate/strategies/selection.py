# SPDX-License-Identifier: Apache-2.0
"""What is trained in an epoch besides the classifier, and what that takes.

Input channels are the papers' unit; neurons (output channels) are Velocity's, and biases come along where a method
trains them. A neuron's gradient needs every input map of its layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from medyate.ir import Graph
from medyate.ops import OPS
from medyate.rank.lara import LayerScore

Channels = Mapping[str, tuple[int, ...]]
"""Ascending channel numbers by layer; layers without any are left out."""


@dataclass(frozen=True)
class Selection:
    """The trained part of the network."""

    channels: Channels = field(default_factory=dict)
    """Input channels, whose weight slices are trained."""
    neurons: Channels = field(default_factory=dict)
    """Output channels, whose filters and biases are trained."""
    biases: frozenset[str] = frozenset()
    """Layers whose biases are trained."""

    @property
    def layers(self) -> frozenset[str]:
        """Every layer of which something is trained."""
        return frozenset(self.channels) | frozenset(self.neurons) | self.biases


@dataclass(frozen=True)
class Footprint:
    """What a selection takes for one sample, in elements and multiply-adds."""

    weights: int
    activations: int
    macs: int
    """Multiply-adds of the weight gradients."""

    @property
    def elements(self) -> int:
        """The papers' memory slots."""
        return self.weights + self.activations


def layer_macs(graph: Graph) -> dict[str, int]:
    """Multiply-adds of each layer's forward pass, which are those of its whole weight gradient."""
    return {node.name: OPS[node.op].macs(node.attrs, graph.input_shapes(node)) for node in graph}


def footprint(
    selection: Selection, layers: Iterable[LayerScore], macs: Mapping[str, int], outputs: Mapping[str, int]
) -> Footprint:
    """Of a selection among `layers`; `macs` of their forward passes, `outputs`: their numbers of output channels.

    A neuron takes its share of the layer's weights and all of its inputs.
    """
    weights = activations = work = 0
    for layer in layers:
        chosen = len(selection.channels.get(layer.layer, ()))
        share = len(selection.neurons.get(layer.layer, ())) / outputs[layer.layer]
        weights += chosen * layer.cost.weights + round(share * layer.channels * layer.cost.weights)
        activations += (layer.channels if share else chosen) * layer.cost.activations
        work += chosen * macs[layer.layer] // layer.channels + round(share * macs[layer.layer])
    return Footprint(weights, activations, work)


def whole(layers: Iterable[LayerScore]) -> Selection:
    """Every weight and bias of some layers."""
    found = tuple(layers)
    return Selection({s.layer: tuple(range(s.channels)) for s in found}, {}, frozenset(s.layer for s in found))


def largest_that_fit(scores: Iterable[float], costs: Iterable[int], budget: int) -> tuple[int, ...]:
    """Indices by falling score while they fit, ascending; what does not fit is skipped, as the sampler does."""
    values, prices = np.fromiter(scores, float), np.fromiter(costs, int)
    taken: list[int] = []
    for index in np.argsort(-values, kind="stable"):
        if prices[index] <= budget:
            budget -= int(prices[index])
            taken.append(int(index))
    return tuple(sorted(taken))
