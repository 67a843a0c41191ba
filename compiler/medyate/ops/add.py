# SPDX-License-Identifier: Apache-2.0
"""Element-wise sum of two tensors of one shape, with a fused activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import ADD_LEFT_SHIFT, Integers, add_output_multiplier, fixed_point
from medyate.errors import GraphError
from medyate.ir import Activation, Attrs, Shape, elements
from medyate.ops._spatial import activate, same_rows
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, no_workspace


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


def _fields(site: Site) -> tuple[Field, ...]:
    facts = site.facts
    largest = 2 * max(facts.inputs[0].scale, facts.inputs[1].scale)
    assert ADD_LEFT_SHIFT == 20
    a_pair, b_pair = (fixed_point(q.scale / largest) for q in facts.inputs)
    y_pair = fixed_point(add_output_multiplier(facts.inputs, facts.output))
    return (
        ("a_mult", str(a_pair[0])),
        ("b_mult", str(b_pair[0])),
        ("y_mult", str(y_pair[0])),
        ("a_shift", str(a_pair[1])),
        ("b_shift", str(b_pair[1])),
        ("y_shift", str(y_pair[1])),
        ("a_zero", str(facts.inputs[0].zero)),
        ("b_zero", str(facts.inputs[1].zero)),
        ("y_zero", str(facts.output.zero)),
        ("act_min", str(facts.bounds[0])),
        ("act_max", str(facts.bounds[1])),
    )


def _backward(site: Site) -> Backward:
    facts = site.facts
    return Backward("mdy_back_copy", "share", "", tuple(q.scale / facts.output.scale for q in facts.inputs))


ADD = OpDef(
    name="add",
    attrs=Add,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=True,
    keeps_scale=lambda _: False,
    fixed_output=lambda _: None,
    macs=lambda _, inputs: elements(inputs[0]),
    rows=same_rows,
    in_place=True,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=lambda _: {},
    kernel=Kernel(
        header="mdy/ops/add.h",
        struct="mdy_add_t",
        run="mdy_run_add",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(
        Case(Add(), ((4, 4, 6), (4, 4, 6))),
        Case(Add((0.0, 6.0)), ((3, 5, 4), (3, 5, 4))),
    ),
)
