# SPDX-License-Identifier: Apache-2.0
"""A clamp behind a convolution or a sum becomes its fused activation."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from medyate.arithmetic.functions import Function
from medyate.ir import Graph, Node, Weights
from medyate.ops import OPS
from medyate.ops.add import Add
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.ops.mul import Mul
from medyate.passes.rewrite import absorb, only_producer


def _fusible(node: Node) -> bool:
    return isinstance(node.attrs, Function) and node.attrs.kind == "clip" and node.attrs.low <= 0 <= node.attrs.high


def _taker(graph: Graph, node: Node) -> Node | None:
    producer = only_producer(graph, node)
    return producer if producer is not None and OPS[producer.op].fuses else None


def fuse_activation(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Fuses every clamp that an operation in front of it can take; the others stay."""
    while True:
        found = next(((n, p) for n in graph if _fusible(n) and (p := _taker(graph, n))), None)
        if found is None:
            return graph, weights
        node, producer = found
        clip = cast(Function, node.attrs)
        attrs = cast(Conv2d | Depthwise | Add | Mul, producer.attrs)
        low, high = attrs.activation or (-float("inf"), float("inf"))
        fused = replace(attrs, activation=(max(low, clip.low), min(high, clip.high)))
        graph = absorb(graph, node, producer, fused)
