# SPDX-License-Identifier: Apache-2.0
"""Softmax over the channels. At the network's very end training replaces it by the head, which has its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medyate.arithmetic import tflite_kernels
from medyate.arithmetic.scheme import Integers
from medyate.errors import GraphError
from medyate.ir import Attrs, Quant, Shape, elements
from medyate.ops._spatial import same_rows
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, Values, no_workspace

OUTPUT = Quant(1 / 256, -128)
CHANNELS_MAX = 4095


@dataclass(frozen=True)
class Softmax(Attrs):
    """exp(beta x) / sum of exp(beta x) over the channels."""

    beta: float = 1.0


def _shape(_: Softmax, inputs: tuple[Shape, ...]) -> Shape:
    if inputs[0][2] > CHANNELS_MAX:
        raise GraphError(f"a softmax over {inputs[0][2]:,} channels.", f"Its sum has room for {CHANNELS_MAX:,}.")
    return inputs[0]


def _real(a: Softmax, xs: tuple[Any, ...], _: Arrays) -> Any:
    return (xs[0] * a.beta).softmax(1)


def _constants(site: Site) -> Mapping[str, Any]:
    """'table': exp(-beta s_x i) of 31 bits, i = 0 .. 255."""
    return {"table": tflite_kernels.softmax_table(site.facts.inputs[0].scale, site.attrs.beta)}


def _integer(a: Softmax, xs: tuple[Any, ...], __: Arrays, facts: Integers) -> Any:
    import torch

    rows = xs[0].movedim(1, -1)
    x = rows.detach().numpy().astype(np.int64)
    found = tflite_kernels.softmax(facts.arrays["table"], x.reshape(-1, x.shape[-1]))
    exact = torch.from_numpy(found.reshape(x.shape).astype(np.float64))
    shares = (exact - OUTPUT.zero) * OUTPUT.scale
    logits = rows * (a.beta * facts.inputs[0].scale)
    smooth = shares * (logits - (shares * logits).sum(-1, keepdim=True)) / OUTPUT.scale
    return (exact + (smooth - smooth.detach())).movedim(-1, 1)


def _fields(site: Site) -> tuple[Field, ...]:
    return (("table", Values("int32_t", site.facts.arrays["table"], "exp(-beta s_x i), 31 bits")),)


def _backward(site: Site) -> Backward:
    """The kernel's products are 256 times too large for shares, and dL/dq_y is 256 times too small."""
    return Backward("mdy_back_softmax", "sink", "output", (site.attrs.beta * site.facts.inputs[0].scale / 256,))


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
    rows=same_rows,
    in_place=False,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=_constants,
    kernel=Kernel(
        header="mdy/ops/softmax.h",
        struct="mdy_softmax_t",
        run="mdy_run_softmax",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=_backward,
    cases=(Case(Softmax(), ((1, 1, 5),)), Case(Softmax(0.5), ((4, 3, 6),))),
)
