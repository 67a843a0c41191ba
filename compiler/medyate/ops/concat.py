# SPDX-License-Identifier: Apache-2.0
"""Tensors side by side along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.arithmetic.scheme import Integers
from medyate.errors import GraphError
from medyate.ir import Attrs, Shape
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Rows, Site, Values, no_workspace

INPUTS_MAX = 255


@dataclass(frozen=True)
class Concat(Attrs):
    """Axes are (height, width, channels)."""

    axis: int


def _shape(a: Concat, inputs: tuple[Shape, ...]) -> Shape:
    rest = {tuple(s for k, s in enumerate(shape) if k != a.axis) for shape in inputs}
    if a.axis not in (0, 1, 2) or len(rest) != 1 or len(inputs) > INPUTS_MAX:
        raise GraphError(f"tensors of {inputs} do not fit side by side.", "Export the model again.")
    size = list(inputs[0])
    size[a.axis] = sum(shape[a.axis] for shape in inputs)
    return size[0], size[1], size[2]


def _rows(a: Concat, inputs: tuple[Shape, ...], index: int) -> Rows:
    height, first = inputs[index][0], sum(shape[0] for shape in inputs[:index]) if a.axis == 0 else 0
    ends = [min(height, max(0, row + 1 - first)) for row in range(_shape(a, inputs)[0])]
    return tuple(zip([0, *ends], ends, strict=False))


def _real(a: Concat, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    return torch.cat(xs, (2, 3, 1)[a.axis])


def _integer(a: Concat, xs: tuple[Any, ...], w: Arrays, _: Integers) -> Any:
    return _real(a, xs, w)


def _fields(site: Site) -> tuple[Field, ...]:
    first, starts = 0, []
    for shape in site.inputs:
        starts.append(first)
        first += shape[site.attrs.axis]
    return (("axis", str(site.attrs.axis)), ("first", Values("uint16_t", starts, "first position of every input")))


CONCAT = OpDef(
    name="concat",
    attrs=Concat,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: True,
    fixed_output=lambda _: None,
    macs=lambda _, __: 0,
    rows=_rows,
    in_place=False,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=lambda _: {},
    kernel=Kernel(
        header="mdy/ops/concat.h",
        struct="mdy_concat_t",
        run="mdy_run_concat",
        per_input=True,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=lambda site: Backward("mdy_back_concat", "copy", "", (1.0,) * len(site.inputs)),
    cases=(
        Case(Concat(2), ((3, 4, 5), (3, 4, 2))),
        Case(Concat(0), ((3, 4, 5), (1, 4, 5), (2, 4, 5))),
        Case(Concat(1), ((2, 2, 3), (2, 3, 3))),
    ),
)
