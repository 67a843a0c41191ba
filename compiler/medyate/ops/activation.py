# SPDX-License-Identifier: Apache-2.0
"""Functions of one value: with int8 on both sides, each is a table of 256 entries.

A clamp that a convolution, sum or product can take is fused there and leaves no operation behind.
'identity' changes scale and zero point only: requantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from medyate.arithmetic import tflite_kernels
from medyate.arithmetic.functions import KINDS, Function
from medyate.arithmetic.scheme import QMAX, QMIN, Integers
from medyate.errors import GraphError
from medyate.ir import Shape, elements
from medyate.ops._spatial import same_rows
from medyate.ops.opdef import Arrays, Backward, Case, Field, Kernel, OpDef, Site, Values, no_workspace

SLOPE_BITS = 14
"""Slopes are stored relative to the steepest one, in units of 2^-14."""


def _functions() -> Mapping[str, Callable[[Function, Any], Any]]:
    import torch
    from torch.nn import functional

    return {
        "identity": lambda _, x: x,
        "clip": lambda a, x: x.clamp(a.low, a.high),
        "leaky_relu": lambda a, x: functional.leaky_relu(x, a.low),
        "hard_swish": lambda _, x: functional.hardswish(x),
        "hard_sigmoid": lambda _, x: functional.hardsigmoid(x),
        "sigmoid": lambda _, x: torch.sigmoid(x),
        "tanh": lambda _, x: torch.tanh(x),
        "silu": lambda _, x: functional.silu(x),
        "gelu": lambda _, x: functional.gelu(x),
        "gelu_tanh": lambda _, x: functional.gelu(x, approximate="tanh"),
        "elu": lambda _, x: functional.elu(x),
        "selu": lambda _, x: functional.selu(x),
        "softplus": lambda _, x: functional.softplus(x),
        "mish": lambda _, x: functional.mish(x),
        "abs": lambda _, x: x.abs(),
        "neg": lambda _, x: -x,
        "exp": lambda _, x: x.exp(),
        "square": lambda _, x: x.square(),
    }


def _shape(a: Function, inputs: tuple[Shape, ...]) -> Shape:
    if a.kind not in KINDS or not a.low <= max(a.low, a.high):
        raise GraphError(
            f"there is no function '{a.kind}' with {a.low} and {a.high}.", f"There are {', '.join(KINDS)}."
        )
    return inputs[0]


def _real(a: Function, xs: tuple[Any, ...], _: Arrays) -> Any:
    return _functions()[a.kind](a, xs[0])


def _constants(site: Site) -> Mapping[str, Any]:
    """'table': output of every input from -128; 'slope': its derivative, zero where the output saturates.

    The table is TFLite's where TFLite has the function, so that a network can go there and back.
    """
    import torch

    x, y = site.facts.inputs[0], site.facts.output
    real = torch.from_numpy((np.arange(QMIN, QMAX + 1) - x.zero) * x.scale).requires_grad_()
    value = _functions()[site.attrs.kind](site.attrs, real)
    value.sum().backward()
    assert real.grad is not None
    steps = value.detach().numpy() / y.scale
    rounded = np.sign(steps) * np.floor(np.abs(steps) + 0.5) + y.zero
    inside = (rounded >= QMIN) & (rounded <= QMAX)
    slope = real.grad.numpy() * (x.scale / y.scale) * inside
    theirs = None if site.facts.rounds_once else tflite_kernels.table(site.attrs, x, y)
    plain = np.clip(rounded, QMIN, QMAX).astype(np.int8)
    return {"table": plain if theirs is None else theirs, "slope": slope}


def _integer(_: Function, xs: tuple[Any, ...], __: Arrays, facts: Integers) -> Any:
    return facts.look_up(xs[0])


def _steepest(facts: Integers) -> float:
    return float(np.abs(facts.arrays["slope"]).max()) or 1.0


def _fields(site: Site) -> tuple[Field, ...]:
    slope = np.round(site.facts.arrays["slope"] / _steepest(site.facts) * 2**SLOPE_BITS)
    kind = site.attrs.kind
    return (
        ("table", Values("int8_t", site.facts.arrays["table"], f"{kind} of -128 .. 127")),
        ("slope", Values("int16_t", slope, f"its derivative, times {_steepest(site.facts):.6g} * 2^-{SLOPE_BITS}")),
    )


ACTIVATION = OpDef(
    name="activation",
    attrs=Function,
    shape=_shape,
    weights=lambda _, __: {},
    channel_axes=None,
    fuses=False,
    keeps_scale=lambda _: False,
    fixed_output=lambda a: tflite_kernels.RESULTS.get(a.kind),
    macs=lambda _, inputs: elements(inputs[0]),
    rows=same_rows,
    in_place=True,
    channel_cost=None,
    real=_real,
    integer=_integer,
    constants=_constants,
    kernel=Kernel(
        header="mdy/ops/activation.h",
        struct="mdy_activation_t",
        run="mdy_run_activation",
        per_input=False,
        workspace=no_workspace,
        table=None,
        fields=_fields,
    ),
    backward=lambda site: Backward("mdy_back_activation", "in_place", "inputs", (_steepest(site.facts),)),
    cases=(
        *(Case(Function(kind), ((3, 4, 5),)) for kind in KINDS if kind not in ("clip", "leaky_relu")),
        Case(Function("clip", -1.0, 2.0), ((3, 4, 5),)),
        Case(Function("leaky_relu", 0.1), ((3, 4, 5),)),
    ),
)
