# SPDX-License-Identifier: Apache-2.0
"""Softmax over a vector, at the network's very end: inference prints it, training replaces it by the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.errors import GraphError
from medyate.ir import Quant, Shape, elements
from medyate.ops.opdef import Arrays, Attrs, Case, Field, Kernel, OpDef, Site, Values
from medyate.quantize.scheme import QMAX, QMIN, Integers

OUTPUT = Quant(1 / 256, -128)


@dataclass(frozen=True)
class Softmax(Attrs):
    """exp(beta x) / sum of exp(beta x) over the channels."""

    beta: float = 1.0


def _shape(_: Softmax, inputs: tuple[Shape, ...]) -> Shape:
    if inputs[0][:2] != (1, 1):
        raise GraphError(f"a softmax over a map of {inputs[0]}.", "It runs over a vector, at the network's end.")
    return inputs[0]


def _real(a: Softmax, xs: tuple[Any, ...], _: Arrays) -> Any:
    return (xs[0] * a.beta).softmax(1)


def _constants(site: Site) -> Mapping[str, Any]:
    """'table': exp(-beta s_x i) in binary32, i = 0 .. 255: TFLite's kernel sums such values in binary32."""
    scale = np.float32(-np.float32(site.facts.inputs[0].scale) * np.float32(site.attrs.beta))
    arguments = (scale * np.arange(256, dtype=np.float32)).astype(np.float64)
    return {"table": np.exp(arguments).astype(np.float32)}


def _integer(_: Softmax, xs: tuple[Any, ...], __: Arrays, facts: Integers) -> Any:
    import torch

    x = xs[0].detach().numpy().astype(np.int64)
    table = np.asarray(facts.arrays["table"], np.float32)
    terms = table[x.max(axis=1, keepdims=True) - x]
    total = np.add.accumulate(terms, axis=1, dtype=np.float32)[:, -1:]
    return torch.from_numpy(_quantised(terms, total, facts.output))


def _quantised(terms: NDArray[np.float32], total: NDArray[np.float32], output: Quant) -> NDArray[np.float64]:
    inverse = np.float32(1.0) / (total * np.float32(output.scale))
    rounded = np.floor((terms * inverse).astype(np.float64) + 0.5)
    clipped: NDArray[np.float64] = np.clip(rounded + output.zero, QMIN, QMAX)
    return clipped


def _fields(site: Site) -> tuple[Field, ...]:
    patterns = np.asarray(site.facts.arrays["table"], np.float32).view(np.uint32)
    return (
        ("table", Values("uint32_t", patterns, "exp(-beta s_x i) as binary32")),
        ("y_zero", str(site.facts.output.zero)),
    )


SOFTMAX = OpDef(
    name="softmax",
    attrs=Softmax,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: False,
    fixed_output=lambda _: OUTPUT,
    macs=lambda _, inputs: elements(inputs[0]),
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=_constants,
    kernel=Kernel(
        header="mdy/ops/softmax.h",
        struct="mdy_softmax_t",
        run="mdy_run_softmax",
        per_input=False,
        table=None,
        fields=_fields,
    ),
    backward=None,
    cases=(Case(Softmax(), ((1, 1, 5),)),),
)
