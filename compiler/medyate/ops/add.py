# SPDX-License-Identifier: Apache-2.0
"""Element-wise sum of two tensors of one shape, with a fused activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.errors import GraphError
from medyate.ir import Activation, Shape, elements
from medyate.ops._spatial import activate
from medyate.ops.opdef import Arrays, Attrs, Case, Kernel, OpDef
from medyate.quantize.scheme import Integers


@dataclass(frozen=True)
class Add(Attrs):
    """y = a + b."""

    activation: Activation = None


def _shape(_: Add, inputs: tuple[Shape, ...]) -> Shape:
    if inputs[0] != inputs[1]:
        raise GraphError(
            f"a sum of {inputs[0]} and {inputs[1]} would need broadcasting.",
            "Expand the smaller input before the sum.",
        )
    return inputs[0]


def _real(a: Add, xs: tuple[Any, ...], _: Arrays) -> Any:
    return activate(xs[0] + xs[1], a.activation)


def _integer(_: Add, xs: tuple[Any, ...], __: Arrays, facts: Integers) -> Any:
    return facts.add(xs[0], xs[1])


ADD = OpDef(
    name="add",
    attrs=Add,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=True,
    macs=lambda _, inputs: elements(inputs[0]),
    channel_cost=None,
    real=_real,
    integer=_integer,
    kernel=Kernel(
        header="mdy/ops/add.h",
        struct="mdy_add_t",
        run="mdy_run_add",
        back="mdy_back_add",
        table=None,
    ),
    cases=(
        Case(Add(), ((4, 4, 6), (4, 4, 6))),
        Case(Add((0.0, 6.0)), ((3, 5, 4), (3, 5, 4))),
    ),
)
