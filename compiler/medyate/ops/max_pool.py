# SPDX-License-Identifier: Apache-2.0
"""Max pooling; the gradient goes to the first of a window's largest values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import Integers
from medyate.ir import Shape, elements
from medyate.ops._pool import PoolAttrs, pool_fields, pool_rows, pool_shape
from medyate.ops._spatial import pad_nchw
from medyate.ops.opdef import Arrays, Backward, Case, Kernel, OpDef, no_workspace


@dataclass(frozen=True)
class MaxPool(PoolAttrs):
    """The largest value of every window."""


def _macs(a: MaxPool, inputs: tuple[Shape, ...]) -> int:
    return elements(pool_shape(a, inputs)) * a.kernel[0] * a.kernel[1]


def _real(a: MaxPool, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    padded = pad_nchw(xs[0], a.pads, -float("inf"))
    return torch.nn.functional.max_pool2d(padded, a.kernel, a.stride)


def _integer(a: MaxPool, xs: tuple[Any, ...], w: Arrays, _: Integers) -> Any:
    return _real(a, xs, w)


MAX_POOL = OpDef(
    name="max_pool",
    attrs=MaxPool,
    shape=pool_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: True,
    fixed_output=lambda _: None,
    macs=_macs,
    rows=pool_rows,
    in_place=False,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=lambda _: {},
    kernel=Kernel(
        header="mdy/ops/max_pool.h",
        struct="mdy_max_pool_t",
        run="mdy_run_max_pool",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=lambda site: pool_fields(site.attrs),
    ),
    backward=lambda _: Backward("mdy_back_max_pool", "sink", "inputs", (1.0,)),
    cases=(
        Case(MaxPool((2, 2), (2, 2)), ((6, 5, 4),)),
        Case(MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), ((7, 6, 3),)),
        Case(MaxPool((3, 1), (1, 1)), ((6, 1, 4),)),
    ),
)
