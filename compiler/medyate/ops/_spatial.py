# SPDX-License-Identifier: Apache-2.0
"""Window arithmetic that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medyate.errors import GraphError
from medyate.ir import Activation, Shape
from medyate.ops.opdef import Arrays
from medyate.quantize.scheme import Integers

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Pixels added at top, left, bottom, right."""

Convolve = Callable[[Any, Any, Any, Any], Any]
"""(attributes, x, weight, bias) to the convolution without activation."""

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


def convolution_forms(convolve: Convolve) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(real, integer) forward of an operation that is a convolution and a fused activation."""

    def real(a: Any, xs: tuple[Any, ...], w: Arrays) -> Any:
        return activate(convolve(a, xs[0], w["weight"], w["bias"]), a.activation)

    def integer(a: Any, xs: tuple[Any, ...], w: Arrays, facts: Integers) -> Any:
        return facts.requantize(convolve(a, xs[0] - facts.inputs[0].zero, w["weight"], w["bias"]))

    return real, integer


def pad_nchw(x: Any, pads: Pads) -> Any:
    """X with zeros around it; x is a PyTorch tensor (N, C, H, W)."""
    import torch

    top, left, bottom, right = pads
    return torch.nn.functional.pad(x, (left, right, top, bottom))


def activate(y: Any, activation: Activation) -> Any:
    """Y clamped to the fused activation's range."""
    if activation is None:
        return y
    return y.clamp(activation[0], activation[1])
