# SPDX-License-Identifier: Apache-2.0
"""Batch norm behind a convolution becomes part of the convolution's weights and bias."""

from __future__ import annotations

import numpy as np

from medyate.errors import UnsupportedOpError
from medyate.ir import Graph, Weights
from medyate.passes.rewrite import absorb, only_producer


def fold_batchnorm(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Folds every batch norm. Raises UnsupportedOpError for one that follows no convolution."""
    arrays = dict(weights)
    while True:
        node = next((n for n in graph if n.op == "batch_norm"), None)
        if node is None:
            return graph, arrays
        conv = only_producer(graph, node)
        if conv is None or conv.op not in ("conv2d", "depthwise"):
            raise UnsupportedOpError(
                node.name, "batch_norm", "it does not follow a convolution of its own", ("folded batch norm",)
            )
        scale = arrays.pop(node.weight_name("scale"))
        shift = arrays.pop(node.weight_name("shift"))
        weight = arrays[conv.weight_name("weight")]
        shaped = scale.reshape(-1, 1, 1, 1) if conv.op == "conv2d" else scale.reshape(1, 1, -1)
        arrays[conv.weight_name("weight")] = np.asarray(weight * shaped, np.float32)
        bias = arrays[conv.weight_name("bias")] * scale + shift
        arrays[conv.weight_name("bias")] = np.asarray(bias, np.float32)
        graph = absorb(graph, node, conv, conv.attrs)
