# SPDX-License-Identifier: Apache-2.0
"""A constant summand for each channel between integers, which has its own scale; with a fused activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.arithmetic.scheme import (
    ADD_LEFT_SHIFT,
    Integers,
    add_output_multiplier,
    fixed_point,
    pair_tensors,
    through,
)
from medyate.errors import GraphError
from medyate.ir import Activation, Attrs, Quant, Shape, elements
from medyate.ops._spatial import activate, same_rows
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, Values, no_workspace


@dataclass(frozen=True)
class Offset(Attrs):
    """y = x + steps[channel] * scale, or minus that."""

    steps: tuple[int, ...]
    scale: float
    minus: bool = False
    activation: Activation = None

    @property
    def real(self) -> tuple[float, ...]:
        """The summands as real numbers."""
        return tuple((-step if self.minus else step) * self.scale for step in self.steps)


def _shape(a: Offset, inputs: tuple[Shape, ...]) -> Shape:
    if len(a.steps) != inputs[0][2] or max(map(abs, a.steps)) > 255 or not 0 < a.scale < float("inf"):
        raise GraphError(f"{len(a.steps)} summands for a tensor of {inputs[0]}.", "Give one number per channel.")
    return inputs[0]


def _real(a: Offset, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    summands = torch.as_tensor(a.real, dtype=xs[0].dtype, device=xs[0].device).view(1, -1, 1, 1)
    return activate(xs[0] + summands, a.activation)


def _quants(a: Offset, facts: Integers) -> tuple[Quant, Quant]:
    return facts.inputs[0], Quant(a.scale, 0)


def _largest(a: Offset, facts: Integers) -> float:
    """What TFLite's ADD brings both sides to: twice the larger scale."""
    return 2 * max(quant.scale for quant in _quants(a, facts))


def _summands(a: Offset, facts: Integers) -> Any:
    """The constant in steps of the common scale, int64 (1, C, 1, 1)."""
    import torch

    steps = torch.from_numpy(np.array(a.steps, np.int64)).view(1, -1, 1, 1) << ADD_LEFT_SHIFT
    rescaled = facts.rescale(steps, *pair_tensors((a.scale / _largest(a, facts),), steps.device))
    return -rescaled if a.minus else rescaled


def _integer(a: Offset, xs: tuple[Any, ...], _: Arrays, facts: Integers) -> Any:
    """TFLite's reference ADD of a tensor and a constant."""
    x, quant = xs[0], facts.inputs[0]
    steps = (x.detach().round().long() - quant.zero) << ADD_LEFT_SHIFT
    exact = facts.rescale(steps, *pair_tensors((quant.scale / _largest(a, facts),), x.device)) + _summands(a, facts)
    mult, shift = pair_tensors((add_output_multiplier(_quants(a, facts), facts.output),), x.device)
    value = facts.rescale(exact, mult, shift) + facts.output.zero
    return through(value, (x - quant.zero) * (quant.scale / facts.output.scale), facts.bounds, masked=True)


def _fields(site: Site) -> tuple[Field, ...]:
    a, facts = site.attrs, site.facts
    x_pair = fixed_point(facts.inputs[0].scale / _largest(a, facts))
    y_pair = fixed_point(add_output_multiplier(_quants(a, facts), facts.output))
    summands = _summands(a, facts).reshape(-1).numpy()
    return (
        ("summand", Values("int32_t", summands, f"of {a.scale:.6g} each, in the common scale")),
        ("x_mult", str(x_pair[0])),
        ("y_mult", str(y_pair[0])),
        ("x_shift", str(x_pair[1])),
        ("y_shift", str(y_pair[1])),
        ("x_zero", str(facts.inputs[0].zero)),
        ("y_zero", str(facts.output.zero)),
        ("act_min", str(facts.bounds[0])),
        ("act_max", str(facts.bounds[1])),
    )


def _backward(site: Site) -> Backward:
    facts = site.facts
    return Backward("mdy_back_copy", "share", "", (facts.inputs[0].scale / facts.output.scale,))


OFFSET = OpDef(
    name="offset",
    attrs=Offset,
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
        header="mdy/ops/offset.h",
        struct="mdy_offset_t",
        run="mdy_run_offset",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(
        Case(Offset((3, -70, 180, 0, 12), 0.015625), ((3, 4, 5),)),
        Case(Offset((-5, 90), 0.0078125, True, (0.0, 6.0)), ((5, 3, 2),)),
    ),
)
