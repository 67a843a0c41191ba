# SPDX-License-Identifier: Apache-2.0
"""Cuts off the classifier: what is left ends in the features that the new task's head reads."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from medyate.errors import ModelError
from medyate.ir import Graph, Weights
from medyate.ops.conv2d import Conv2d


def split_head(
    graph: Graph, weights: Weights
) -> tuple[Graph, Weights, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(backbone, its weights, the old classifier's weight (classes, features) and bias).

    Raises ModelError when the network does not end in a linear classifier.
    """
    nodes = list(graph.nodes)
    if nodes and nodes[-1].op == "softmax":
        nodes.pop()
    last = nodes[-1] if nodes else None
    attrs = last.attrs if last is not None else None
    is_linear = (
        last is not None
        and isinstance(attrs, Conv2d)
        and attrs.kernel == graph.shapes[last.inputs[0]][:2]
        and attrs.pads == (0, 0, 0, 0)
        and attrs.activation is None
    )
    if last is None or not is_linear:
        raise ModelError(
            f"'{graph.name}' does not end in a linear classifier.",
            "Export the network with its classifier as the last layer.",
        )
    weight = cast("NDArray[np.float32]", weights[last.weight_name("weight")])
    bias = cast("NDArray[np.float32]", weights[last.weight_name("bias")])
    kept = tuple(nodes[:-1])
    names = {graph.input} | {node.output for node in kept}
    tensors = tuple(t for t in graph.tensors if t[0] in names)
    backbone = replace(graph, nodes=kept, tensors=tensors, output=last.inputs[0])
    own = {last.weight_name(role) for role in ("weight", "bias")}
    rest = {name: array for name, array in weights.items() if name not in own}
    return backbone, rest, (weight.reshape(weight.shape[0], -1), bias)
