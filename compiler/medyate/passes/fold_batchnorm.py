# SPDX-License-Identifier: Apache-2.0
"""Batch norm behind a convolution becomes part of the convolution's weights and bias."""

from __future__ import annotations

import numpy as np

from medyate.errors import UnsupportedOpError
from medyate.ir import Graph, Weights
from medyate.ops import OPS
from medyate.passes.rewrite import absorb, only_producer


def fold_batchnorm(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Folds every batch norm. Raises UnsupportedOpError for one that follows no convolution."""
    arrays = dict(weights)
    while True:
        node = next((n for n in graph if n.op == "batch_norm"), None)
        if node is None:
            return graph, arrays
        conv = only_producer(graph, node)
        axes = None if conv is None else OPS[conv.op].channel_axes
        if conv is None or axes is None:
            raise UnsupportedOpError(
                node.name, "batch_norm", "it does not follow a convolution of its own", ("folded batch norm",)
            )
        scale = np.asarray(arrays.pop(node.weight_name("scale")), np.float32)
        shift = np.asarray(arrays.pop(node.weight_name("shift")), np.float32)
        weight = np.asarray(arrays[conv.weight_name("weight")], np.float32)
        shaped = scale.reshape([-1 if axis == axes[0] else 1 for axis in range(weight.ndim)])
        arrays[conv.weight_name("weight")] = weight * shaped
        bias = np.asarray(arrays[conv.weight_name("bias")], np.float32)
        arrays[conv.weight_name("bias")] = bias * scale + shift
        graph = absorb(graph, node, conv, conv.attrs)
