# SPDX-License-Identifier: Apache-2.0
"""2-D convolution, in groups or not; a linear layer is the case whose kernel covers the whole input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medyate import kernel_room
from medyate.errors import GraphError
from medyate.ir import Activation, Attrs, Shape
from medyate.ledger import ChannelCost
from medyate.ops._spatial import (
    Pads,
    Pair,
    convolution_constants,
    convolution_fields,
    convolution_forms,
    convolution_rows,
    pad_nchw,
    window_output,
)
from medyate.ops.opdef import Case, Field, Kernel, OpDef, Site


@dataclass(frozen=True)
class Conv2d(Attrs):
    """Weight layout (out, kernel_h, kernel_w, in / groups)."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    activation: Activation = None
    groups: int = 1
    """Output channels in so many equal parts, each of which reads its part of the input channels."""


def _shape(a: Conv2d, inputs: tuple[Shape, ...]) -> Shape:
    if a.groups < 1 or a.channels % a.groups or inputs[0][2] % a.groups:
        raise GraphError(
            f"{a.groups} groups do not divide {inputs[0][2]} input and {a.channels} output channels.",
            "Export the model again.",
        )
    return (*window_output(inputs[0], a.kernel, a.stride, a.dilation, a.pads), a.channels)


def _weights(a: Conv2d, inputs: tuple[Shape, ...]) -> Mapping[str, tuple[int, ...]]:
    return {"weight": (a.channels, *a.kernel, inputs[0][2] // a.groups), "bias": (a.channels,)}


def _macs(a: Conv2d, inputs: tuple[Shape, ...]) -> int:
    height, width, channels = _shape(a, inputs)
    return height * width * channels * a.kernel[0] * a.kernel[1] * inputs[0][2] // a.groups


def _channel_cost(a: Conv2d, inputs: tuple[Shape, ...]) -> ChannelCost:
    height, width, _ = inputs[0]
    return ChannelCost(a.channels // a.groups * a.kernel[0] * a.kernel[1], height * width)


def _dsp_workspace(a: Conv2d, inputs: tuple[Shape, ...], kind: str) -> int:
    height, width, _ = _shape(a, inputs)
    taps, gathered = a.kernel[0] * a.kernel[1] * inputs[0][2], a.kernel != (1, 1) or any(a.pads)
    if a.groups > 1:
        return 0
    if kind == "input":
        _, columns, channels = inputs[0]
        by_blocks = not gathered and a.stride == (1, 1) and columns > 2 and channels % 2 == 0
        return kernel_room.gradient_block_bytes(a.channels) if by_blocks else 0
    if height * width < 3 and taps % 4 == 0 and a.channels % 4 == 0:  # a pixel or two need no block
        return taps if gathered else 0
    return kernel_room.block_bytes(taps, gathered=gathered)


def _mve_workspace(a: Conv2d, inputs: tuple[Shape, ...], kind: str) -> int:
    if kind == "input":
        return 0
    height, width, _ = _shape(a, inputs)
    is_portable = a.groups > 1 or a.dilation != (1, 1) or a.channels < 4
    if is_portable or (a.kernel == (1, 1) and not any(a.pads)):
        return 0
    taps = a.kernel[0] * a.kernel[1] * inputs[0][2]
    return kernel_room.window_bytes(taps, a.channels, min(height, kernel_room.BAND) * width)


WORKSPACES = {"dsp": _dsp_workspace, "mve": _mve_workspace}
"""Of each family."""


def _workspace(a: Conv2d, inputs: tuple[Shape, ...], kind: str) -> int:
    return max(workspace(a, inputs, kind) for workspace in WORKSPACES.values())


def _convolve(a: Conv2d, x: Any, weight: Any, bias: Any) -> Any:
    import torch

    filters = weight.permute(0, 3, 1, 2)
    return torch.nn.functional.conv2d(pad_nchw(x, a.pads), filters, bias, a.stride, 0, a.dilation, a.groups)


def _fields(site: Site) -> tuple[Field, ...]:
    groups = site.attrs.groups
    return convolution_fields(site, site.inputs[0][2] // groups, site.output[2] // groups)


_real, _integer = convolution_forms(_convolve)

CONV2D = OpDef(
    name="conv2d",
    attrs=Conv2d,
    shape=_shape,
    weights=_weights,
    channel_axes=(0, 3),
    fuses=True,
    keeps_scale=lambda _: False,
    fixed_output=lambda _: None,
    macs=_macs,
    rows=convolution_rows,
    in_place=False,
    channel_cost=_channel_cost,
    real=_real,
    integer=_integer,
    constants=convolution_constants,
    kernel=Kernel(
        header="mdy/ops/conv2d.h",
        struct="mdy_conv_t",
        run="mdy_run_layer",
        per_input=False,
        workspace=_workspace,
        table="mdy_conv2d",
        fields=_fields,
    ),
    backward=None,
    cases=(
        Case(Conv2d(5, (1, 1)), ((4, 4, 6),)),
        Case(Conv2d(7, (3, 3), pads=(1, 1, 1, 1), activation=(0.0, 6.0)), ((6, 5, 3),)),
        Case(Conv2d(4, (3, 3), (2, 2), pads=(0, 0, 1, 1), activation=(0.0, 6.0)), ((8, 8, 4),)),
        Case(Conv2d(6, (5, 3), (2, 1), (1, 2), (2, 2, 2, 2)), ((9, 7, 4),)),
        Case(Conv2d(8, (4, 4)), ((4, 4, 3),)),
        Case(Conv2d(6, (3, 3), pads=(1, 1, 1, 1), groups=2), ((5, 5, 4),)),
        Case(Conv2d(8, (3, 2), (2, 1), activation=(0.0, 6.0), groups=2), ((7, 6, 2),)),
        Case(Conv2d(5, (5, 1), (2, 1), pads=(2, 0, 2, 0)), ((12, 1, 3),)),
    ),
)
