# SPDX-License-Identifier: Apache-2.0
"""Functions of one value, by name."""

from __future__ import annotations

from dataclasses import dataclass

from medyate.ir import Attrs

KINDS = (
    *("identity", "clip", "leaky_relu", "hard_swish", "hard_sigmoid", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh"),
    *("elu", "selu", "softplus", "mish", "abs", "neg", "exp", "square"),
)


@dataclass(frozen=True)
class Function(Attrs):
    """A function by name; only clip (low, high) and leaky_relu (low: slope below zero) have parameters."""

    kind: str
    low: float = 0.0
    high: float = 0.0
