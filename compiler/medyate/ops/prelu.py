# SPDX-License-Identifier: Apache-2.0
"""Parametric ReLU: what is below zero is multiplied by a slope of its channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.arithmetic.scheme import QMAX, QMIN, WEIGHT_MAX, Integers, fixed_point, pair_tensors
from medyate.errors import GraphError
from medyate.ir import Attrs, Shape, elements
from medyate.ops._spatial import same_rows
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, Values, no_workspace

SLOPE_MAX = 2.0**15
"""No network has steeper ones; with them, multipliers would leave their range."""
SLOPE_MIN = 2.0**-15
"""Of the steepest: smaller ones are no slopes."""
SLOPE_BITS = 14
"""Derivatives are stored relative to the steepest one, in units of 2^-14."""


@dataclass(frozen=True)
class PRelu(Attrs):
    """y = x where x >= 0, else slopes[channel] * x."""

    slopes: tuple[float, ...]
    step: float = 0.0
    """That all slopes are multiples of, at most 255 times; 0: quantising chooses one."""


def slope_steps(a: PRelu) -> tuple[list[int], float]:
    """(slopes in steps, the step)."""
    steepest = max(abs(slope) for slope in a.slopes)
    step = a.step or float(np.float32(max(steepest, SLOPE_MIN) / WEIGHT_MAX))
    return [round(slope / step) for slope in a.slopes], step


def _shape(a: PRelu, inputs: tuple[Shape, ...]) -> Shape:
    numbers = [*a.slopes, a.step]
    if len(a.slopes) != inputs[0][2] or not (np.abs(numbers) < SLOPE_MAX).all() or a.step < 0:
        raise GraphError(
            f"{len(a.slopes)} slopes do not fit a tensor of {inputs[0]}, or are too large.", "Give one per channel."
        )
    if a.step and max(abs(slope) for slope in a.slopes) > 255.5 * a.step:
        raise GraphError(f"slopes are more than 255 times {a.step:g}.", "Quantise the network again.")
    return inputs[0]


def _column(values: Any, like: Any) -> Any:
    import torch

    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def _real(a: PRelu, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    return torch.where(xs[0] >= 0, xs[0], xs[0] * _column(a.slopes, xs[0]))


def _integer(a: PRelu, xs: tuple[Any, ...], _: Arrays, facts: Integers) -> Any:
    """TFLite's reference PRELU: above zero one multiplier, below it the slope's steps and another."""
    import torch

    value = xs[0] - facts.inputs[0].zero
    steps = _column(slope_steps(a)[0], value)
    exact, sloped = value.detach().round().long(), (value * steps).detach().round().long()
    above, below = (pair_tensors((multiplier,), value.device) for multiplier in facts.multipliers)
    found = torch.where(exact >= 0, facts.rescale(exact, *above), facts.rescale(sloped, *below)) + facts.output.zero
    inside = (found >= QMIN) & (found <= QMAX)
    smooth = torch.where(value >= 0, value * facts.multipliers[0], value * steps * facts.multipliers[1]) * inside
    return found.clamp(QMIN, QMAX).to(value.dtype) + (smooth - smooth.detach())


def _constants(site: Site) -> Mapping[str, Any]:
    x, y = (np.float32(quant.scale) for quant in (site.facts.inputs[0], site.facts.output))
    step = np.float32(slope_steps(site.attrs)[1])
    return {"multiplier": np.array([float(x / y), float(x * step / y)])}  # in binary32, as TFLite's kernel


def _steepest(a: PRelu) -> float:
    """Of the slopes as they are computed, and 1, that of the part above zero."""
    steps, step = slope_steps(a)
    return max(1.0, max(map(abs, steps)) * step)


def _fields(site: Site) -> tuple[Field, ...]:
    facts, (steps, step), steepest = site.facts, slope_steps(site.attrs), _steepest(site.attrs)
    (mult, shift), (below_mult, below_shift) = map(fixed_point, facts.multipliers)
    derivatives = np.round(np.array(steps) * step / steepest * 2**SLOPE_BITS)
    return (
        ("slope", Values("int16_t", steps, f"slopes below zero, in steps of {step:.6g}")),
        ("derivative", Values("int16_t", derivatives, f"the same, in {steepest:.6g} * 2^-{SLOPE_BITS}")),
        ("above", str(round(2**SLOPE_BITS / steepest))),
        ("mult", str(mult)),
        ("shift", str(shift)),
        ("below_mult", str(below_mult)),
        ("below_shift", str(below_shift)),
        ("x_zero", str(facts.inputs[0].zero)),
        ("y_zero", str(facts.output.zero)),
    )


def _backward(site: Site) -> Backward:
    factor = _steepest(site.attrs) * site.facts.inputs[0].scale / site.facts.output.scale
    return Backward("mdy_back_prelu", "in_place", "inputs", (factor,))


PRELU = OpDef(
    name="prelu",
    attrs=PRelu,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
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
        header="mdy/ops/prelu.h",
        struct="mdy_prelu_t",
        run="mdy_run_prelu",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(
        Case(PRelu((0.125, 0.25, 0.0, -0.5, 1.0), 0.125), ((3, 4, 5),)),
        Case(PRelu((0.1875, 3.0, -2.5), 0.0625), ((5, 2, 3),)),
        Case(PRelu((0.0, 0.0), 1.0), ((2, 2, 2),)),
        Case(PRelu((0.5, -1.25, 2.0), 0.25), ((4, 3, 3),)),
    ),
)
