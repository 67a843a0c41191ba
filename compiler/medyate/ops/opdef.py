# SPDX-License-Identifier: Apache-2.0
"""The contract of an operation: a frozen record of facts and functions, with no default values.

An operation that exists before quantisation only (batch_norm, clip, softmax) has no kernel: the
normalising passes remove it. Tensors given to `real` and `integer` are PyTorch, (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medyate.ir import Shape

if TYPE_CHECKING:
    from medyate.ledger import ChannelCost
    from medyate.quantize.scheme import Integers


@dataclass(frozen=True)
class Attrs:
    """Base of the attribute records; each operation has its own."""


Arrays = Mapping[str, Any]
"""A node's weights by role, as PyTorch tensors in the IR's layout."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The C side of an operation, as data."""

    header: str
    struct: str
    run: str
    back: str
    table: str | None
    """Symbol of the mdy_weighted_op_t, for operations with weights."""


@dataclass(frozen=True, slots=True)
class Case:
    """One example for the contract tests."""

    attrs: Attrs
    inputs: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class OpDef:
    """One operation."""

    name: str
    attrs: type[Attrs]
    shape: Callable[[Any, tuple[Shape, ...]], Shape]
    """Shape of the output. Raises GraphError when the inputs do not fit."""
    weights: Callable[[Any, tuple[Shape, ...]], Mapping[str, tuple[int, ...]]]
    """Shapes of the arrays by role."""
    channel_axes: tuple[int, int] | None
    """Axes of the output and of the input channels in the weight; None: no weights. Equal: depthwise."""
    fuses: bool
    """Whether an activation can be fused into it; its output then has a clamp mask."""
    macs: Callable[[Any, tuple[Shape, ...]], int]
    """Multiply-adds of one forward pass."""
    channel_cost: Callable[[Any, tuple[Shape, ...]], ChannelCost] | None
    """Cost of one selected input channel; None: nothing to train."""
    real: Callable[[Any, tuple[Any, ...], Arrays], Any]
    """Forward in real numbers."""
    integer: Callable[[Any, tuple[Any, ...], Arrays, Integers], Any] | None
    """Forward in the device's integers, differentiable with DESIGN's mask convention."""
    kernel: Kernel | None
    cases: tuple[Case, ...]
