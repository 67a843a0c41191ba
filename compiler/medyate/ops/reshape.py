# SPDX-License-Identifier: Apache-2.0
"""The same values in the same order under another shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import Integers
from medyate.errors import GraphError
from medyate.ir import Attrs, Shape, elements
from medyate.ops.opdef import Arrays, Backward, Case, Kernel, OpDef, no_workspace


@dataclass(frozen=True)
class Reshape(Attrs):
    """Values run by height, width, channels on both sides."""

    size: Shape


def _shape(a: Reshape, inputs: tuple[Shape, ...]) -> Shape:
    if elements(a.size) != elements(inputs[0]):
        raise GraphError(f"{inputs[0]} and {a.size} hold different numbers of values.", "Export the model again.")
    return a.size


def _real(a: Reshape, xs: tuple[Any, ...], _: Arrays) -> Any:
    return xs[0].permute(0, 2, 3, 1).reshape(len(xs[0]), *a.size).permute(0, 3, 1, 2)


def _integer(a: Reshape, xs: tuple[Any, ...], w: Arrays, _: Integers) -> Any:
    return _real(a, xs, w)


RESHAPE = OpDef(
    name="reshape",
    attrs=Reshape,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: True,
    fixed_output=lambda _: None,
    macs=lambda _, __: 0,
    rows=lambda _, __, ___: None,
    in_place=True,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=lambda _: {},
    kernel=Kernel(
        header="mdy/ops/reshape.h",
        struct="mdy_reshape_t",
        run="mdy_run_reshape",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=lambda _: (),
    ),
    backward=lambda _: Backward("mdy_back_reshape", "copy", "", (1.0,)),
    cases=(
        Case(Reshape((6, 2, 5)), ((3, 4, 5),)),
        Case(Reshape((1, 1, 60)), ((3, 4, 5),)),
    ),
)
