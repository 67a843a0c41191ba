# SPDX-License-Identifier: Apache-2.0
"""The part of a network that training can change; what lies before it runs once for each sample.

The cut is the last place in front of the first trained layer at which no more values are alive than in a sample, so
that keeping them for all samples takes no more memory than the samples do.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from medyate.ir import Graph, elements
from medyate.real import Network, channels_last

BATCH = 64


def cut(graph: Graph, trained: Iterable[str]) -> int:
    """Number of the first node behind the cut."""
    wanted = set(trained)
    first = next((i for i, node in enumerate(graph.nodes) if node.name in wanted), len(graph.nodes))
    sample = elements(graph.shapes[graph.input])
    sizes = ((i, sum(elements(graph.shapes[name]) for name in alive(graph, i))) for i in range(first + 1))
    return max(i for i, size in sizes if size <= sample)


def alive(graph: Graph, index: int) -> tuple[str, ...]:
    """Tensors made before a node that it or later ones read; the output behind the last."""
    if index == len(graph.nodes):
        return (graph.output,)
    made = {graph.input, *(node.output for node in graph.nodes[:index])}
    read = dict.fromkeys(name for node in graph.nodes[index:] for name in node.inputs)
    return tuple(name for name in read if name in made)


class Tail:
    """Runs a network from a cut on."""

    def __init__(self, network: Network, trained: Iterable[str]) -> None:
        self.network = network
        self.first = cut(network.graph, trained)
        self.names = alive(network.graph, self.first)

    def prefix(self, samples: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The tensors at the cut for (N, C, H, W) samples, each (N, ...)."""
        parts = []
        with torch.no_grad():
            for batch in samples.split(BATCH):  # type: ignore[no-untyped-call]
                values = {self.network.graph.input: batch}
                self.network.run(self.network.graph.nodes[: self.first], values)
                parts.append([values[name] for name in self.names])
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def features(self, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Flat features (N, H * W * C) from the tensors at the cut."""
        values = dict(zip(self.names, kept, strict=True))
        self.network.run(self.network.graph.nodes[self.first :], values)
        return channels_last(values[self.network.graph.output])
