# SPDX-License-Identifier: Apache-2.0
"""Operations that normalising removes: they are folded, fused or dropped, and have no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medyate.ir import Shape, elements
from medyate.ops.opdef import Arrays, Attrs, Case, OpDef


@dataclass(frozen=True)
class Clip(Attrs):
    """relu is (0, inf), relu6 is (0, 6)."""

    low: float
    high: float


@dataclass(frozen=True)
class BatchNorm(Attrs):
    """y = x * scale + shift per channel; the frontend works both out of the running statistics."""


@dataclass(frozen=True)
class Softmax(Attrs):
    """Over the channels; allowed at the very end only, where the head replaces it."""


def _same(_: Attrs, inputs: tuple[Shape, ...]) -> Shape:
    return inputs[0]


def _cost(_: Attrs, inputs: tuple[Shape, ...]) -> int:
    return elements(inputs[0])


def _per_channel(_: Attrs, inputs: tuple[Shape, ...]) -> Mapping[str, tuple[int, ...]]:
    return {"scale": (inputs[0][2],), "shift": (inputs[0][2],)}


def _clip(a: Clip, xs: tuple[Any, ...], _: Arrays) -> Any:
    return xs[0].clamp(a.low, a.high)


def _norm(_: BatchNorm, xs: tuple[Any, ...], w: Arrays) -> Any:
    return xs[0] * w["scale"].view(1, -1, 1, 1) + w["shift"].view(1, -1, 1, 1)


def _softmax(_: Softmax, xs: tuple[Any, ...], __: Arrays) -> Any:
    return xs[0].softmax(1)


CLIP = OpDef(
    name="clip",
    attrs=Clip,
    shape=_same,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    macs=_cost,
    channel_cost=None,
    real=_clip,
    integer=None,
    kernel=None,
    cases=(Case(Clip(0.0, 6.0), ((3, 3, 2),)),),
)
BATCH_NORM = OpDef(
    name="batch_norm",
    attrs=BatchNorm,
    shape=_same,
    weights=_per_channel,
    channel_axes=None,
    fuses=False,
    macs=_cost,
    channel_cost=None,
    real=_norm,
    integer=None,
    kernel=None,
    cases=(Case(BatchNorm(), ((3, 3, 2),)),),
)
SOFTMAX = OpDef(
    name="softmax",
    attrs=Softmax,
    shape=_same,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    macs=_cost,
    channel_cost=None,
    real=_softmax,
    integer=None,
    kernel=None,
    cases=(Case(Softmax(), ((1, 1, 5),)),),
)
