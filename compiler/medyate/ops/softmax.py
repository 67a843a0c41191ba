# SPDX-License-Identifier: Apache-2.0
"""Softmax over a vector, at the network's very end: inference prints it, training replaces it by the head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.errors import GraphError
from medyate.ir import Quant, Shape, elements
from medyate.ops.opdef import Arrays, Attrs, Case, Field, Kernel, OpDef, Site, Values
from medyate.quantize import tflite_kernels
from medyate.quantize.scheme import Integers

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
    """'table': exp(-beta s_x i) of 31 bits, i = 0 .. 255."""
    return {"table": tflite_kernels.softmax_table(site.facts.inputs[0].scale, site.attrs.beta)}


def _integer(_: Softmax, xs: tuple[Any, ...], __: Arrays, facts: Integers) -> Any:
    import torch

    x = xs[0].detach().numpy().astype(np.int64)
    shares = tflite_kernels.softmax(facts.arrays["table"], x.reshape(len(x), -1))
    return torch.from_numpy(shares.reshape(x.shape).astype(np.float64))


def _fields(site: Site) -> tuple[Field, ...]:
    return (("table", Values("int32_t", site.facts.arrays["table"], "exp(-beta s_x i), 31 bits")),)


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
