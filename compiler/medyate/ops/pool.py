# SPDX-License-Identifier: Apache-2.0
"""Average pooling over windows that do not overlap; the global pool's window is the whole map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medyate.errors import GraphError
from medyate.ir import Shape, elements
from medyate.ops._spatial import Pair, window_output
from medyate.ops.opdef import Arrays, Attrs, Case, Kernel, OpDef
from medyate.quantize.scheme import Integers


@dataclass(frozen=True)
class AveragePool(Attrs):
    """Without padding."""

    kernel: Pair
    stride: Pair


def _shape(a: AveragePool, inputs: tuple[Shape, ...]) -> Shape:
    height, width = window_output(inputs[0], a.kernel, a.stride, (1, 1), (0, 0, 0, 0))
    overlaps = (a.stride[0] < a.kernel[0] and height > 1) or (a.stride[1] < a.kernel[1] and width > 1)
    if overlaps:
        raise GraphError(
            f"average pooling with windows of {a.kernel} every {a.stride} pixels overlaps.",
            "Use a stride of at least the window.",
        )
    return height, width, inputs[0][2]


def _macs(a: AveragePool, inputs: tuple[Shape, ...]) -> int:
    return elements(_shape(a, inputs)) * a.kernel[0] * a.kernel[1]


def _real(a: AveragePool, xs: tuple[Any, ...], _: Arrays) -> Any:
    import torch

    return torch.nn.functional.avg_pool2d(xs[0], a.kernel, a.stride)


def _integer(a: AveragePool, xs: tuple[Any, ...], _: Arrays, facts: Integers) -> Any:
    import torch

    count = a.kernel[0] * a.kernel[1]
    mean = torch.nn.functional.avg_pool2d(xs[0] - facts.inputs[0].zero, a.kernel, a.stride)
    return facts.requantize(mean * count, masked=False)


AVERAGE_POOL = OpDef(
    name="average_pool",
    attrs=AveragePool,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    macs=_macs,
    channel_cost=None,
    real=_real,
    integer=_integer,
    kernel=Kernel(
        header="mdy/ops/pool.h",
        struct="mdy_pool_t",
        run="mdy_run_pool",
        back="mdy_back_pool",
        table=None,
    ),
    cases=(
        Case(AveragePool((4, 4), (4, 4)), ((4, 4, 6),)),
        Case(AveragePool((2, 2), (2, 2)), ((6, 5, 4),)),
    ),
)
