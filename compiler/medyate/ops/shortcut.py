# SPDX-License-Identifier: Apache-2.0
"""Every stride-th pixel with zero channels around: the parameter-free shortcut of CIFAR ResNets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.ir import Shape
from medyate.ops._spatial import Pair
from medyate.ops.opdef import Arrays, Attrs, Case, Kernel, OpDef
from medyate.quantize.scheme import Integers


@dataclass(frozen=True)
class Shortcut(Attrs):
    """Takes pixels 0, stride, 2 stride ... and adds channels of zeros before and behind."""

    stride: Pair
    before: int
    behind: int


def _shape(a: Shortcut, inputs: tuple[Shape, ...]) -> Shape:
    height, width, channels = inputs[0]
    rows = -(-height // a.stride[0])
    columns = -(-width // a.stride[1])
    return rows, columns, channels + a.before + a.behind


def _real(a: Shortcut, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    taken = xs[0][:, :, :: a.stride[0], :: a.stride[1]]
    return torch.nn.functional.pad(taken, (0, 0, 0, 0, a.before, a.behind))


def _integer(a: Shortcut, xs: tuple[Any, ...], _: Arrays, facts: Integers) -> Any:
    zero = facts.inputs[0].zero
    return _real(a, (xs[0] - zero,), {}) + zero


SHORTCUT = OpDef(
    name="shortcut",
    attrs=Shortcut,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    macs=lambda _, __: 0,
    channel_cost=None,
    real=_real,
    integer=_integer,
    kernel=Kernel(
        header="mdy/ops/shortcut.h",
        struct="mdy_shortcut_t",
        run="mdy_run_shortcut",
        back="mdy_back_shortcut",
        table=None,
    ),
    cases=(
        Case(Shortcut((2, 2), 2, 2), ((6, 6, 4),)),
        Case(Shortcut((1, 1), 0, 3), ((3, 4, 5),)),
    ),
)
