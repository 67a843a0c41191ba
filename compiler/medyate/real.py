# SPDX-License-Identifier: Apache-2.0
"""A graph as a PyTorch module in real numbers: for calibration, ranking and as a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medyate.ir import Graph, Node, Weights
from medyate.ops import OPS


class Network(torch.nn.Module):
    """Runs a graph; parameters are called like the weights, with dots as '/'."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        super().__init__()
        self.graph = graph
        for name in sorted(weights):
            tensor = torch.from_numpy(np.array(weights[name], np.float32))
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(tensor))

    def weight(self, name: str) -> torch.nn.Parameter:
        """The parameter of a weight's name."""
        found = self._parameters[name.replace(".", "/")]
        assert found is not None
        return found

    def forward(self, x: torch.Tensor, observe: Callable[[str, Any], None] | None = None) -> torch.Tensor:
        """The output for (N, C, H, W); `observe` is told every tensor."""
        values: dict[str, Any] = {self.graph.input: x}
        if observe is not None:
            observe(self.graph.input, x)
        self.run(self.graph, values, observe)
        result: torch.Tensor = values[self.graph.output]
        return result

    def run(
        self, nodes: Iterable[Node], values: dict[str, Any], observe: Callable[[str, Any], None] | None = None
    ) -> None:
        """Adds the outputs of `nodes` to the tensors that are known."""
        for node in nodes:
            op = OPS[node.op]
            roles = op.weights(node.attrs, self.graph.input_shapes(node))
            arrays = {role: self.weight(node.weight_name(role)) for role in roles}
            value = op.real(node.attrs, tuple(values[name] for name in node.inputs), arrays)
            values[node.output] = value
            if observe is not None:
                observe(node.output, value)


def channels_first(samples: NDArray[Any]) -> torch.Tensor:
    """(N, H, W, C) to a PyTorch (N, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(0, 3, 1, 2)))


def channels_last(features: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to flat (N, H * W * C) features, the order of the head's weights."""
    return features.permute(0, 2, 3, 1).flatten(1)
