# SPDX-License-Identifier: Apache-2.0
"""The contract of an operation: a frozen record of facts and functions, with no default values.

An operation that exists before quantisation only (batch_norm, clip) has no kernel: the normalising
passes remove it. Tensors given to `real` and `integer` are PyTorch, (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import Integers
from medyate.ir import Attrs, Node, Quant, Shape
from medyate.ledger import ChannelCost

Arrays = Mapping[str, Any]
"""A node's weights by role, as PyTorch tensors in the IR's layout."""


@dataclass(frozen=True, slots=True)
class Values:
    """An array of constants in flash, as a field of a parameter table."""

    ctype: str
    numbers: Any
    comment: str


Rows = tuple[tuple[int, int], ...]
"""For every output row, the rows [begin, end) of another tensor; both ascend."""

Field = tuple[str, "str | Values"]
"""(member of the C struct, its initialiser)."""


@dataclass(frozen=True, slots=True)
class Site:
    """One node as its kernel sees it: what a parameter table is made from."""

    attrs: Any
    inputs: tuple[Shape, ...]
    output: Shape
    facts: Integers


@dataclass(frozen=True, slots=True)
class Kernel:
    """The C side of an operation, as data."""

    header: str
    struct: str
    run: str
    """Called with the table and the tensors; `per_input`: once for each input, with its number."""
    per_input: bool
    workspace: Callable[[Any, tuple[Shape, ...], str], int]
    """Bytes to work in with which no family is slower for lack of room: in a step 'run', or 'input' on the way back."""
    table: str | None
    """Symbol of the mdy_weighted_op_t, for operations with weights."""
    fields: Callable[[Site], tuple[Field, ...]]


def no_workspace(_: Any, __: tuple[Shape, ...], ___: str) -> int:
    """Of an operation whose kernels take no room."""
    return 0


@dataclass(frozen=True, slots=True)
class Backward:
    """How a gradient passes an operation without weights; the C function and what it is given."""

    function: str
    style: str
    """
    'share'     the buffer itself serves every input; only static factors change
    'copy'      values move into a new buffer under the same exponent
    'in_place'  values change in their buffer under the same exponent
    'sink'      32-bit sums become a new gradient with an exponent of its own; joins are taken along
    """
    reads: str
    """Tensors of the forward pass that are read again: '', 'inputs' or 'output'."""
    factors: tuple[float, ...]
    """Per input: dL/dq_x = factor * (what the function computes from dL/dq_y)."""

    def tensors(self, node: Node) -> tuple[str, ...]:
        """The tensors of a node that are read again."""
        return {"": (), "inputs": node.inputs, "output": (node.output,)}[self.reads]


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
    keeps_scale: Callable[[Any], bool]
    """Whether its values move unchanged, so that inputs and output share one scale and zero point."""
    fixed_output: Callable[[Any], Quant | None]
    """Scale and zero point of its output, where the operation itself decides them."""
    macs: Callable[[Any, tuple[Shape, ...]], int]
    """Multiply-adds of one forward pass."""
    rows: Callable[[Any, tuple[Shape, ...], int], Rows | None]
    """Rows of an input, by its number, that every output row reads; None: an output row may need all of them."""
    in_place: bool
    """Whether an output value may take the place of the one input value that it is made from."""
    channel_cost: Callable[[Any, tuple[Shape, ...]], ChannelCost] | None
    """Cost of one selected input channel; None: nothing to train."""
    real: Callable[[Any, tuple[Any, ...], Arrays], Any]
    """Forward in real numbers."""
    integer: Callable[[Any, tuple[Any, ...], Arrays, Integers], Any] | None
    """Forward in the device's integers, differentiable with DESIGN's mask convention."""
    constants: Callable[[Site], Mapping[str, Any]]
    """Arrays that quantising adds, by role: 'multiplier', 'table', 'slope' ..."""
    kernel: Kernel | None
    backward: Callable[[Site], Backward] | None
    """None: a weighted layer, or an operation that no gradient passes."""
    cases: tuple[Case, ...]
