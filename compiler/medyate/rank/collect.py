# SPDX-License-Identifier: Apache-2.0
"""Gradient norms of every layer, accumulated over a short fine-tuning on the host.

The whole network and a new head are trained with mini-batch SGD; each epoch adds, per layer, the norm
of its gradient and the norms of its input channels' slices, both averaged over the epoch's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.ir import Graph, Node, Weights
from medyate.ops import OPS

BATCH = 16


@dataclass(frozen=True)
class GradientNorms:
    """Accumulated norms of one layer."""

    layer: float
    """Sum over epochs of ||dL/dW||_2."""
    channels: float
    """Sum over epochs of the sum over input channels of ||(dL/dW)_c||_2."""


@dataclass(frozen=True)
class Collected:
    """What the preliminary fine-tuning gave."""

    norms: Mapping[str, GradientNorms]
    head_weight: NDArray[np.float32]
    """(classes, features), trained along; used to calibrate the gradients' exponents."""
    losses: tuple[float, ...]


def collect(
    graph: Graph,
    weights: Weights,
    samples: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    outputs: int,
    epochs: int = 3,
    rate: float = 0.01,
    seed: int = 0,
    progress: Callable[[int, int], None],
) -> Collected:
    """Fine-tunes a copy of the network on (N, H, W, C) samples and returns the norms by node."""
    import torch

    from medyate.ir import elements
    from medyate.real import Network, channels_first, channels_last

    torch.manual_seed(seed)
    network = Network(graph, weights)
    features = elements(graph.shapes[graph.output])
    head = torch.nn.Linear(features, outputs)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    layers = [node for node in graph if OPS[node.op].channel_axes is not None]
    optimiser = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=rate)
    sums = {node.name: np.zeros(2) for node in layers}
    x, y = channels_first(samples), torch.from_numpy(labels)
    criterion = torch.nn.functional.mse_loss if labels.ndim == 2 else torch.nn.functional.cross_entropy
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    steps = max(1, -(-len(x) // BATCH))
    for epoch in range(epochs):
        total = 0.0
        for step, batch in enumerate(torch.randperm(len(x), generator=generator).split(BATCH)):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            loss = criterion(head(channels_last(network(x[batch]))), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([*network.parameters(), *head.parameters()], 10.0)
            for node in layers:
                sums[node.name] += _norms(network.weight(node.weight_name("weight")).grad, node) / steps
            optimiser.step()
            total += float(loss.detach()) / steps
            progress(epoch * steps + step + 1, epochs * steps)
        losses.append(total)
    norms = {name: GradientNorms(float(pair[0]), float(pair[1])) for name, pair in sums.items()}
    return Collected(norms, head.weight.detach().numpy().copy(), tuple(losses))


def channel_squares(array: Any, node: Node) -> Any:
    """Summed squares of each input channel's slice of a tensor of the weight's shape: (channels,)."""
    axes = OPS[node.op].channel_axes
    assert axes is not None
    groups = getattr(node.attrs, "groups", 1)  # each has input channels of its own
    split = array.unflatten(axes[0], (groups, -1)).movedim(axes[0], 0) if groups > 1 else array[None]
    others = tuple(a for a in range(1, split.ndim) if a != axes[1] + 1)
    return split.square().sum(others).flatten()


def _norms(gradient: Any, node: Node) -> NDArray[np.float64]:
    return np.array([float(gradient.norm()), float(channel_squares(gradient, node).sqrt().sum())])
