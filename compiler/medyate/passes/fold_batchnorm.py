# SPDX-License-Identifier: Apache-2.0
"""Batch norm becomes part of the convolution in front of it, or else a depthwise convolution of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medyate.ir import Graph, Weights
from medyate.ops import OPS
from medyate.ops.depthwise import Depthwise
from medyate.passes.rewrite import absorb, only_producer


def fold_batchnorm(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Replaces every batch norm."""
    arrays = dict(weights)
    while True:
        node = next((n for n in graph if n.op == "batch_norm"), None)
        if node is None:
            return graph, arrays
        scale = np.asarray(arrays.pop(node.weight_name("scale")), np.float32)
        shift = np.asarray(arrays.pop(node.weight_name("shift")), np.float32)
        conv = only_producer(graph, node)
        axes = None if conv is None else OPS[conv.op].channel_axes
        if conv is None or axes is None or getattr(conv.attrs, "activation", None) is not None:
            own = replace(node, op="depthwise", attrs=Depthwise((1, 1)))
            graph = replace(graph, nodes=tuple(own if n is node else n for n in graph))
            arrays[node.weight_name("weight")] = scale[None, None]
            arrays[node.weight_name("bias")] = shift
            continue
        weight = np.asarray(arrays[conv.weight_name("weight")], np.float32)
        shaped = scale.reshape([-1 if axis == axes[0] else 1 for axis in range(weight.ndim)])
        arrays[conv.weight_name("weight")] = weight * shaped
        bias = np.asarray(arrays[conv.weight_name("bias")], np.float32)
        arrays[conv.weight_name("bias")] = bias * scale + shift
        graph = absorb(graph, node, conv, conv.attrs)
