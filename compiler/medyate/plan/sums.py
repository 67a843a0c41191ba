# SPDX-License-Identifier: Apache-2.0
"""Sums over pixels and windows whose length the network decides: each has to fit where the runtime keeps it.

Forward sums fit by themselves: biases leave room for their layer's products (`bias_limit`), windows have at most
255 x 255 pixels. What is bounded here grows with maps, windows, copies and features on the way back.
"""

from __future__ import annotations

from collections.abc import Collection

from medyate.errors import GraphError
from medyate.ir import Node, QGraph, Weights, elements
from medyate.ops._pool import PoolAttrs, overlap
from medyate.ops._spatial import STEPS_MAX
from medyate.ops.move import Move
from medyate.plan.parameters import CARRY_MAX, input_gradient_steps
from medyate.plan.steps import BackStep, Pass
from medyate.quantize.apply import integers

INT32_MAX = 2**31 - 1
FACTOR_PIXELS_MAX = 2**24
"""MDY_MUL_PIXELS of the runtime."""
FEATURES_MAX = 2**24
"""Of the head: 64 bits hold so many products of 16, 8 and 15 bits."""


def gradient_max(grad_bits: int) -> int:
    """Largest stored gradient."""
    return int(2 ** (grad_bits - 1)) - 1


def pixels_max(grad_bits: int) -> int:
    """Output pixels over which a layer's gradients times inputs can be summed: 32 bits, of 16-bit gradients 64."""
    return (INT32_MAX if grad_bits == 8 else 2**63 - 1) // (gradient_max(grad_bits) * STEPS_MAX)


def biases_pixels_max(grad_bits: int) -> int:
    """Output pixels over which a layer's gradients alone can be summed."""
    return (INT32_MAX if grad_bits == 8 else 2**63 - 1) // gradient_max(grad_bits)


def check_sums(
    qgraph: QGraph,
    weights: Weights,
    steps: Pass,
    candidates: Collection[str],
    biases: Collection[str],
    grad_bits: int,
) -> None:
    """Raises GraphError, with the node and its numbers, where a sum of a training pass would not fit."""
    graph = qgraph.graph
    _fits("the head", "features", elements(graph.shapes[graph.output]), FEATURES_MAX)
    nodes = {node.name: node for node in graph}
    for name in (name for name in nodes if name in candidates or name in biases):
        height, width, _ = graph.shapes[nodes[name].output]
        most = pixels_max(grad_bits) if name in candidates else biases_pixels_max(grad_bits)
        _fits(f"layer '{name}'", "output pixels whose gradients are summed", height * width, most)
    for step in steps.back:
        if step.kind == "layer":
            zero = integers(qgraph, weights, steps.orders[step.node]).weight_zero
            most = input_gradient_steps(qgraph, nodes[step.node], zero)
            _fits(f"layer '{step.node}'", "weight steps in one gradient", most, INT32_MAX - CARRY_MAX)
        if step.kind == "sink" and step.dy is not None and any(step.dx):
            _check_sink(qgraph, nodes[step.node], step, grad_bits)


def _check_sink(qgraph: QGraph, node: Node, step: BackStep, grad_bits: int) -> None:
    """Of an operation without weights that sums."""
    shapes, what = qgraph.graph.shapes, f"'{node.name}' ({node.op})"
    most = (INT32_MAX - CARRY_MAX) // gradient_max(grad_bits)
    height, width, _ = shapes[node.output]
    if node.op == "mul" and any(
        dx is not None and shapes[name][:2] != (height, width) for dx, name in zip(step.dx, node.inputs, strict=True)
    ):
        _fits(what, "pixels that share a factor", height * width, FACTOR_PIXELS_MAX)
    if isinstance(node.attrs, Move):
        down, right, deep = node.attrs.repeat
        _fits(what, "copies of a value", down * right * deep, most)
    if isinstance(node.attrs, PoolAttrs):
        windows = min(overlap(node.attrs), height * width)
        _fits(what, "windows that read one pixel", windows, most)
        if node.op == "average_pool":  # each takes the share 1 / pixels, in whole steps of 2^-bits
            bits = 31 - grad_bits - (overlap(node.attrs) - 1).bit_length()
            pixels = node.attrs.kernel[0] * node.attrs.kernel[1]
            _fits(what, "pixels of overlapping windows", pixels, 2 ** (min(bits, 15) + 1) if bits >= 0 else 0)


def _fits(what: str, unit: str, count: int, most: int) -> None:
    if count > most:
        raise GraphError(
            f"{what} has {count:,} {unit}; a sum holds {most:,}.",
            "Train on smaller images, with --grad-bits 8, or fewer layers, so that no gradient passes there.",
        )
