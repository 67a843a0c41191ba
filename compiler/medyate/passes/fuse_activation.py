# SPDX-License-Identifier: Apache-2.0
"""A clamp behind a convolution or a sum becomes its fused activation."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from medyate.errors import UnsupportedOpError
from medyate.ir import Graph, Weights
from medyate.ops import OPS
from medyate.ops.add import Add
from medyate.ops.before_quantisation import Clip
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.passes.rewrite import absorb, only_producer

FUSES = tuple(name for name, op in OPS.items() if op.fuses)


def fuse_activation(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Fuses every clamp. Raises UnsupportedOpError for one that nothing can take."""
    while True:
        node = next((n for n in graph if n.op == "clip"), None)
        if node is None:
            return graph, weights
        producer = only_producer(graph, node)
        if producer is None or producer.op not in FUSES:
            raise UnsupportedOpError(node.name, "clip", "nothing in front of it can take a fused activation", FUSES)
        clip = cast(Clip, node.attrs)
        attrs = cast(Conv2d | Depthwise | Add, producer.attrs)
        low, high = attrs.activation or (-float("inf"), float("inf"))
        fused = replace(attrs, activation=(max(low, clip.low), min(high, clip.high)))
        graph = absorb(graph, node, producer, fused)
