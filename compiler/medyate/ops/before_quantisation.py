# SPDX-License-Identifier: Apache-2.0
"""Operations that normalising removes: they have no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medyate.ir import Attrs, Shape, elements
from medyate.ops.opdef import Arrays, Case, OpDef


@dataclass(frozen=True)
class BatchNorm(Attrs):
    """y = x * scale + shift per channel; the frontend works both out of the running statistics."""


def _per_channel(_: Attrs, inputs: tuple[Shape, ...]) -> Mapping[str, tuple[int, ...]]:
    return {"scale": (inputs[0][2],), "shift": (inputs[0][2],)}


def _norm(_: BatchNorm, xs: tuple[Any, ...], w: Arrays) -> Any:
    return xs[0] * w["scale"].view(1, -1, 1, 1) + w["shift"].view(1, -1, 1, 1)


BATCH_NORM = OpDef(
    name="batch_norm",
    attrs=BatchNorm,
    shape=lambda _, inputs: inputs[0],
    weights=_per_channel,
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: False,
    fixed_output=lambda _: None,
    macs=lambda _, inputs: elements(inputs[0]),
    rows=lambda _, __, ___: None,
    in_place=False,
    channel_cost=None,
    real=_norm,
    integer=None,
    constants=lambda _: {},
    kernel=None,
    backward=None,
    cases=(Case(BatchNorm(), ((3, 3, 2),)),),
)
