# SPDX-License-Identifier: Apache-2.0
"""Average pooling; what padding adds does not count. The global pool's window is the whole map.

A pool between different scales rounds as TFLite's MEAN, one within a scale as its AVERAGE_POOL_2D; an array
'multiplier', s_x / s_y, says that it is the former. MEAN brings one along where the scales are equal too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.arithmetic.scheme import Integers, mean_pair
from medyate.ir import Shape, elements
from medyate.ops._pool import PoolAttrs, overlap, pool_fields, pool_rows, pool_shape
from medyate.ops._spatial import pad_nchw
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, no_workspace


@dataclass(frozen=True)
class AveragePool(PoolAttrs):
    """The mean over every window."""


def _area(a: AveragePool) -> int:
    return a.kernel[0] * a.kernel[1]


def _macs(a: AveragePool, inputs: tuple[Shape, ...]) -> int:
    return elements(pool_shape(a, inputs)) * _area(a)


def _sums(a: AveragePool, x: Any) -> tuple[Any, Any]:
    """(sum of every window, how many pixels it has)."""
    import torch

    ones = torch.ones_like(x[:1, :1])
    pooled = [torch.nn.functional.avg_pool2d(pad_nchw(t, a.pads), a.kernel, a.stride) * _area(a) for t in (x, ones)]
    return pooled[0], pooled[1].round()


def _real(a: AveragePool, xs: tuple[Any, ...], _: Arrays) -> Any:
    sums, counts = _sums(a, xs[0])
    return sums / counts


def _integer(a: AveragePool, xs: tuple[Any, ...], _: Arrays, facts: Integers) -> Any:
    if "multiplier" in facts.arrays:
        return facts.scaled_mean(_sums(a, xs[0] - facts.inputs[0].zero)[0], _area(a))
    origin = int(facts.arrays.get("origin", 0))
    return facts.mean(*_sums(a, xs[0] - origin), origin)


def _constants(site: Site) -> Mapping[str, Any]:
    x, y = site.facts.inputs[0], site.facts.output
    return {} if x == y else {"multiplier": np.array([x.scale / y.scale])}


def _fields(site: Site) -> tuple[Field, ...]:
    a, facts = site.attrs, site.facts
    mult, shift = mean_pair(facts.multipliers[0], _area(a)) if "multiplier" in facts.arrays else (0, 0)
    return (
        *pool_fields(a),
        ("mult", str(mult)),
        ("shift", str(shift)),
        ("x_zero", str(facts.inputs[0].zero)),
        ("y_zero", str(facts.output.zero)),
        ("origin", str(int(facts.arrays.get("origin", 0)))),
        ("overlap_bits", str(math.ceil(math.log2(overlap(a))))),
    )


def _backward(site: Site) -> Backward:
    a, facts = site.attrs, site.facts
    ratio = facts.inputs[0].scale / facts.output.scale
    if any(a.pads) or any(s < k for s, k in zip(a.stride, a.kernel, strict=True)):
        return Backward("mdy_back_pool_sum", "sink", "", (ratio,))
    return Backward("mdy_back_pool", "copy", "", (ratio / _area(a),))


AVERAGE_POOL = OpDef(
    name="average_pool",
    attrs=AveragePool,
    shape=pool_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda a: any(a.pads),
    fixed_output=lambda _: None,
    macs=_macs,
    rows=pool_rows,
    in_place=False,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=_constants,
    kernel=Kernel(
        header="mdy/ops/pool.h",
        struct="mdy_pool_t",
        run="mdy_run_pool",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(
        Case(AveragePool((4, 4), (4, 4)), ((4, 4, 6),)),
        Case(AveragePool((3, 5), (3, 5)), ((3, 5, 6),)),
        Case(AveragePool((2, 2), (2, 2)), ((6, 5, 4),)),
        Case(AveragePool((3, 3), (2, 2), (1, 1, 1, 1)), ((7, 6, 3),)),
        Case(AveragePool((3, 2), (1, 1)), ((5, 5, 4),)),
    ),
)
