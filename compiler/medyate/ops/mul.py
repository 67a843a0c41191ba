# SPDX-License-Identifier: Apache-2.0
"""Element-wise product; the second factor may be one value per channel, as in squeeze-excite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.arithmetic.scheme import Integers, fixed_point
from medyate.errors import GraphError
from medyate.ir import Activation, Attrs, Shape, elements
from medyate.ops._spatial import activate, same_rows
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, no_workspace


@dataclass(frozen=True)
class Mul(Attrs):
    """y = a * b."""

    activation: Activation = None


def _shape(_: Mul, inputs: tuple[Shape, ...]) -> Shape:
    a, b = inputs
    if b not in (a, (1, 1, a[2])):
        raise GraphError(
            f"a product of {a} and {b} is neither element by element nor one factor per channel.",
            "Expand the smaller input before the product.",
        )
    return a


def _real(a: Mul, xs: tuple[Any, ...], _: Arrays) -> Any:
    return activate(xs[0] * xs[1], a.activation)


def _integer(_: Mul, xs: tuple[Any, ...], __: Arrays, facts: Integers) -> Any:
    return facts.requantize((xs[0] - facts.inputs[0].zero) * (xs[1] - facts.inputs[1].zero))


def _constants(site: Site) -> Mapping[str, Any]:
    a, b, y = (np.float32(quant.scale) for quant in (*site.facts.inputs, site.facts.output))
    return {"multiplier": np.array([float(a * b / y)])}  # in binary32, as TFLite's kernel


def _fields(site: Site) -> tuple[Field, ...]:
    facts = site.facts
    mult, shift = fixed_point(facts.multipliers[0])
    return (
        ("mult", str(mult)),
        ("shift", str(shift)),
        ("a_zero", str(facts.inputs[0].zero)),
        ("b_zero", str(facts.inputs[1].zero)),
        ("y_zero", str(facts.output.zero)),
        ("act_min", str(facts.bounds[0])),
        ("act_max", str(facts.bounds[1])),
    )


def _backward(site: Site) -> Backward:
    multiplier = site.facts.multipliers[0]
    return Backward("mdy_back_mul", "sink", "inputs", (multiplier, multiplier))


MUL = OpDef(
    name="mul",
    attrs=Mul,
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
    constants=_constants,
    kernel=Kernel(
        header="mdy/ops/mul.h",
        struct="mdy_mul_t",
        run="mdy_run_mul",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(
        Case(Mul(), ((4, 4, 6), (4, 4, 6))),
        Case(Mul(), ((4, 3, 5), (1, 1, 5))),
        Case(Mul((0.0, 6.0)), ((3, 5, 4), (1, 1, 4))),
    ),
)
