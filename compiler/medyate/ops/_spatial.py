# SPDX-License-Identifier: Apache-2.0
"""Window arithmetic that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.arithmetic.scheme import DELTA_MAX, NARROW, WEIGHT_MAX, Integers, dead_channels, fixed_point, products_max
from medyate.errors import GraphError
from medyate.ir import Activation, Shape
from medyate.ops.opdef import Arrays, Field, Rows, Site, Values

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Pixels added at top, left, bottom, right."""

Convolve = Callable[[Any, Any, Any, Any], Any]
"""(attributes, x, weight, bias) to the convolution without activation."""

STEPS_MAX = 255
"""Largest |q - z| of int8 values."""
MARGIN = 0.01
"""Output steps that the rounding of multipliers and sums may take."""
KERNEL_MAX = 16
"""MDY_KERNEL_MAX of the runtime."""


def window_output(extent: Shape, kernel: Pair, stride: Pair, dilation: Pair, pads: Pads) -> Pair:
    """Height and width of the output of a sliding window. Raises GraphError when none fits."""
    height = (extent[0] + pads[0] + pads[2] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    width = (extent[1] + pads[1] + pads[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    if height < 1 or width < 1:
        raise GraphError(
            f"a window of {kernel} does not fit an input of {extent[:2]}.",
            "Check the input size that the model was exported with.",
        )
    return height, width


def window_rows(height: int, count: int, kernel: int, stride: int, dilation: int, pad: int) -> Rows:
    """Input rows that each of `count` output rows reads; a row that no window covers belongs to the next one."""
    ends = [0]
    for row in range(count):
        ends.append(min(height, max(ends[-1], row * stride - pad + (kernel - 1) * dilation + 1)))
    ends[-1] = height
    return tuple((max(0, min(row * stride - pad, ends[row])), ends[row + 1]) for row in range(count))


def convolution_rows(a: Any, inputs: tuple[Shape, ...], _: int) -> Rows:
    """Of a convolution."""
    height = inputs[0][0]
    count = window_output(inputs[0], a.kernel, a.stride, a.dilation, a.pads)[0]
    return window_rows(height, count, a.kernel[0], a.stride[0], a.dilation[0], a.pads[0])


def same_rows(_: Any, inputs: tuple[Shape, ...], index: int) -> Rows:
    """Row by row; an input of one row is read by all."""
    height, own = inputs[0][0], inputs[index][0]
    return tuple((0, 1) if own == 1 else (row, row + 1) for row in range(height))


def convolution_forms(convolve: Convolve) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(real, integer) forward of an operation that is a convolution and a fused activation."""

    def real(a: Any, xs: tuple[Any, ...], w: Arrays) -> Any:
        return activate(convolve(a, xs[0], w["weight"], w["bias"]), a.activation)

    def integer(a: Any, xs: tuple[Any, ...], w: Arrays, facts: Integers) -> Any:
        weight = w["weight"] - facts.weight_zero
        return facts.requantize(convolve(a, xs[0] - facts.inputs[0].zero, weight, w["bias"]))

    return real, integer


def convolution_constants(site: Site) -> Mapping[str, Any]:
    """'multiplier': s_x s_w[o] / s_y of every output channel."""
    facts = site.facts
    return {"multiplier": facts.inputs[0].scale * facts.arrays["scale"] / facts.output.scale}


def convolution_fields(site: Site, group_in: int, group_out: int) -> tuple[Field, ...]:
    """The members of mdy_conv_t that forward reads."""
    a, facts = site.attrs, site.facts
    pairs, zero = _outputs(site), facts.weight_zero
    return (
        ("in", shape_fields(site.inputs[0])),
        ("out", shape_fields(site.output)),
        ("kernel_h", str(a.kernel[0])),
        ("kernel_w", str(a.kernel[1])),
        ("stride_h", str(a.stride[0])),
        ("stride_w", str(a.stride[1])),
        ("dilation_h", str(a.dilation[0])),
        ("dilation_w", str(a.dilation[1])),
        ("pad_top", str(a.pads[0])),
        ("pad_left", str(a.pads[1])),
        ("group_in", str(group_in)),
        ("group_out", str(group_out)),
        ("x_zero", str(facts.inputs[0].zero)),
        ("y_zero", str(facts.output.zero)),
        ("w_zero", str(zero)),
        ("w_min", str(-DELTA_MAX if zero else -WEIGHT_MAX)),
        ("act_min", str(facts.bounds[0])),
        ("act_max", str(facts.bounds[1])),
        ("narrow", str(int(is_narrow(site, np.array([mult != 0 for mult, _ in pairs]))))),
        ("bias", Values("int32_t", facts.arrays["bias"], "bias")),
        ("mult", Values("int32_t", [p[0] for p in pairs], "forward multipliers")),
        ("shift", Values("int8_t", [p[1] for p in pairs], "forward shifts")),
    )


def _outputs(site: Site) -> list[tuple[int, int]]:
    """(mult, shift) of every output channel; of one that is always the same, 0 and its value.

    A frozen channel is, if all of its sums become the same step: its bias decides, and no input matters.
    """
    facts = site.facts
    multipliers = np.array(facts.multipliers)
    weights = np.abs(np.asarray(facts.arrays["weight"], np.int64))
    # (out, h, w, in) of a dense layer, (h, w, out) of a depthwise one
    spread = (weights.reshape(site.output[2], -1).sum(1) if weights.ndim == 4 else weights.sum((0, 1))) * STEPS_MAX
    bias = np.asarray(facts.arrays["bias"], np.int64)
    low, high = (np.floor((bias + sign * spread) * multipliers + 0.5 + sign * MARGIN) for sign in (-1, 1))
    frozen = dead_channels(np.asarray(facts.arrays["scale"], np.float64))
    same = (low == high) & frozen & (facts.weight_zero == 0)
    pairs = []
    for multiplier, value, is_same in zip(facts.multipliers, low, same, strict=True):
        mult, shift = fixed_point(multiplier)
        if is_same or mult == 0:
            least, most = facts.bounds
            mult, shift = 0, int(min(max(facts.output.zero + (value if is_same else 0), least), most))
        pairs.append((mult, shift))
    return pairs


def is_narrow(site: Site, counts: NDArray[np.bool_] | None = None) -> bool:
    """Whether no sum of the outputs that count reaches NARROW, whatever deltas become. None: all of them."""
    bias = np.abs(np.asarray(site.facts.arrays["bias"], np.int64))[... if counts is None else counts]
    return int(bias.max(initial=0)) + products_max(_taps(site), site.facts.weight_zero) < NARROW


def _taps(site: Site) -> int:
    """Products in one accumulator."""
    return int(site.facts.arrays["weight"].size) // site.output[2]


def shape_fields(shape: Shape) -> str:
    """A shape as C prints it."""
    return f"{{{shape[0]}, {shape[1]}, {shape[2]}}}"


def pad_nchw(x: Any, pads: Pads, value: float = 0.0) -> Any:
    """X with `value` around it; x is a PyTorch tensor (N, C, H, W)."""
    if not any(pads):
        return x  # padding by nothing would copy

    import torch

    top, left, bottom, right = pads
    return torch.nn.functional.pad(x, (left, right, top, bottom), value=value)


def activate(y: Any, activation: Activation) -> Any:
    """Y clamped to the fused activation's range."""
    if activation is None:
        return y
    return y.clamp(activation[0], activation[1])
