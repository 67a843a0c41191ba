# SPDX-License-Identifier: Apache-2.0
"""The fixed-point numbers of every layer: forward, gradient, update and norm multipliers.

With s the scales, f the static factor of dy and S = sum(g_y (q_x - z_x)) (DESIGN.md, section 3):

    forward   M[o] = s_x s_w[o] / s_y                    in the record of the operation
    g_acc     g_y M[o] f
    update    dq = -lr S f s_x / (s_y s_w[o])           quantisation-aware: lr / s_w^2 of dL/dW_q
    norm      dL/dw = S f s_x / s_y                      the same for every output channel
    bias      dq = -lr sum(g_y) f / (s_y s_x s_w[o]), norm of sum(g_y) f / s_y
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import DELTA_MAX, NARROW, WEIGHT_MAX, dead_channels, mantissa15, products_max
from medyate.errors import GraphError
from medyate.ir import Node, QGraph, Weights
from medyate.ops import OPS
from medyate.ops._spatial import is_narrow
from medyate.plan.steps import Gradient
from medyate.quantize.apply import bias_limit, integers, site

NORM_BITS = 18
"""Norms are counted in units of 2^-18."""

CARRY_MAX = 2**28
"""What rounding a stored gradient may leave to the next pixel's sum."""


@dataclass(frozen=True)
class Backward:
    """Gradient, update and norm numbers of one layer."""

    grad_mult: tuple[int, ...]
    grad_exponent: int
    rate_mult: tuple[int, ...]
    rate_exponent: tuple[int, ...]
    norm_mult: int
    norm_exponent: int


@dataclass(frozen=True)
class BiasUpdate:
    """Update and norm numbers of a layer's biases."""

    rate_mult: tuple[int, ...]
    rate_exponent: tuple[int, ...]
    norm_mult: int
    norm_exponent: int
    most: int
    """Largest |bias|."""


def bias_parameters(qgraph: QGraph, weights: Weights, index: int, dy: Gradient) -> BiasUpdate:
    """The numbers of the index-th node's biases for the gradient that reaches it."""
    node, facts = qgraph.graph.nodes[index], integers(qgraph, weights, index)
    base = dy.factor / facts.output.scale
    weight, zero = facts.arrays["weight"], facts.weight_zero
    taps = int(weight.size) // qgraph.graph.shapes[node.output][2]
    narrow = is_narrow(site(qgraph, weights, index))
    norm_mult, norm_exponent = mantissa15(base)
    return BiasUpdate(
        *_rates(node, weights, base / facts.inputs[0].scale),
        norm_mult,
        norm_exponent + NORM_BITS,
        NARROW - 1 - products_max(taps, zero) if narrow else bias_limit(taps, zero),
    )


def _rates(node: Node, weights: Weights, base: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(mantissas, exponents) of base / s_w[o]; 0 for frozen outputs."""
    scales = np.asarray(weights[node.weight_name("scale")], np.float64)
    rates = [mantissa15(base / scale) for scale in scales]
    mults = tuple(0 if frozen else pair[0] for pair, frozen in zip(rates, dead_channels(scales), strict=True))
    return mults, tuple(_int8(pair[1], node) for pair in rates)


def backward_parameters(qgraph: QGraph, weights: Weights, index: int, dy: Gradient, grad_bits: int) -> Backward:
    """The numbers of the index-th node for the gradient that reaches it."""
    node = qgraph.graph.nodes[index]
    facts = integers(qgraph, weights, index)
    multipliers = np.array(facts.multipliers) * dy.factor
    base = dy.factor * facts.inputs[0].scale / facts.output.scale
    limit = _accumulator_limit(qgraph, node, facts.weight_zero)
    bits = math.floor(math.log2(limit / multipliers.max()))
    grad_mult = np.round(multipliers * 2.0**bits).astype(np.int64)
    norm_mult, norm_exponent = mantissa15(base)
    return Backward(
        tuple(int(m) for m in grad_mult),
        grad_bits - 1 - bits,
        *_rates(node, weights, base),
        norm_mult,
        norm_exponent + NORM_BITS,
    )


def _accumulator_limit(qgraph: QGraph, node: Node, weight_zero: int) -> int:
    """Largest |g_acc| such that no int32 sum of g_acc times weight and delta, and a carry, can overflow."""
    return int(min(2**15 - 1, (2**31 - 1 - CARRY_MAX) // input_gradient_steps(qgraph, node, weight_zero)))


def input_gradient_steps(qgraph: QGraph, node: Node, weight_zero: int) -> int:
    """What g_acc of 1 everywhere adds to one sum at most, weights and deltas being the largest."""
    kernel = node.attrs.kernel  # type: ignore[attr-defined]
    terms = int(kernel[0] * kernel[1] * outputs_per_input(qgraph, node))
    return terms * (WEIGHT_MAX + abs(weight_zero) + DELTA_MAX)


def _int8(exponent: int, node: Node) -> int:
    if not -128 <= exponent <= 127:
        raise GraphError(f"the scales of layer '{node.name}' span more than 2^127.", "Export a sounder network.")
    return exponent


def outputs_per_input(qgraph: QGraph, node: Node) -> int:
    """Output channels that read one input channel: all, those of its group, or depthwise its own."""
    axes = OPS[node.op].channel_axes
    assert axes is not None
    if axes[0] == axes[1]:
        return 1
    return qgraph.graph.shapes[node.output][2] // int(node.attrs.groups)  # type: ignore[attr-defined]


def eligible_channels(qgraph: QGraph, node: Node, weights: Weights, channels: int) -> NDArray[np.bool_]:
    """Input channels that may be drawn: those that frozen output channels alone read may not."""
    alive = ~dead_channels(np.asarray(weights[node.weight_name("scale")], np.float64))
    outputs = outputs_per_input(qgraph, node)
    groups = len(alive) // outputs
    eligible: NDArray[np.bool_] = alive.reshape(groups, outputs).any(axis=1).repeat(channels // groups)
    return eligible
