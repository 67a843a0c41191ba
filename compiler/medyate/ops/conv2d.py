# SPDX-License-Identifier: Apache-2.0
"""Dense 2-D convolution; a linear layer is the case whose kernel covers the whole input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medyate.ir import Activation, Shape
from medyate.ledger import ChannelCost
from medyate.ops._spatial import Pads, Pair, convolution_forms, pad_nchw, window_output
from medyate.ops.opdef import Attrs, Case, Kernel, OpDef


@dataclass(frozen=True)
class Conv2d(Attrs):
    """Weight layout (out, kernel_h, kernel_w, in)."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    activation: Activation = None


def _shape(a: Conv2d, inputs: tuple[Shape, ...]) -> Shape:
    return (*window_output(inputs[0], a.kernel, a.stride, a.dilation, a.pads), a.channels)


def _weights(a: Conv2d, inputs: tuple[Shape, ...]) -> Mapping[str, tuple[int, ...]]:
    return {"weight": (a.channels, *a.kernel, inputs[0][2]), "bias": (a.channels,)}


def _macs(a: Conv2d, inputs: tuple[Shape, ...]) -> int:
    height, width, channels = _shape(a, inputs)
    return height * width * channels * a.kernel[0] * a.kernel[1] * inputs[0][2]


def _channel_cost(a: Conv2d, inputs: tuple[Shape, ...]) -> ChannelCost:
    height, width, _ = inputs[0]
    return ChannelCost(a.channels * a.kernel[0] * a.kernel[1], height * width)


def _convolve(a: Conv2d, x: Any, weight: Any, bias: Any) -> Any:
    import torch

    return torch.nn.functional.conv2d(pad_nchw(x, a.pads), weight.permute(0, 3, 1, 2), bias, a.stride, 0, a.dilation)


_real, _integer = convolution_forms(_convolve)

CONV2D = OpDef(
    name="conv2d",
    attrs=Conv2d,
    shape=_shape,
    weights=_weights,
    channel_axes=(0, 3),
    fuses=True,
    macs=_macs,
    channel_cost=_channel_cost,
    real=_real,
    integer=_integer,
    kernel=Kernel(
        header="mdy/ops/conv2d.h",
        struct="mdy_conv_t",
        run="mdy_run_layer",
        back="mdy_back_layer",
        table="mdy_conv2d",
    ),
    cases=(
        Case(Conv2d(5, (1, 1)), ((4, 4, 6),)),
        Case(Conv2d(7, (3, 3), pads=(1, 1, 1, 1), activation=(0.0, 6.0)), ((6, 5, 3),)),
        Case(Conv2d(4, (3, 3), (2, 2), pads=(0, 0, 1, 1), activation=(0.0, 6.0)), ((8, 8, 4),)),
        Case(Conv2d(6, (5, 3), (2, 1), (1, 2), (2, 2, 2, 2)), ((9, 7, 4),)),
        Case(Conv2d(8, (4, 4)), ((4, 4, 3),)),
    ),
)
