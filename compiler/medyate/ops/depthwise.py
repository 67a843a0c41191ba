# SPDX-License-Identifier: Apache-2.0
"""Depthwise 2-D convolution: one filter per channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medyate import kernel_room
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
from medyate.ops.opdef import Case, Kernel, OpDef


@dataclass(frozen=True)
class Depthwise(Attrs):
    """Weight layout (kernel_h, kernel_w, channels)."""

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    activation: Activation = None


def _shape(a: Depthwise, inputs: tuple[Shape, ...]) -> Shape:
    return (*window_output(inputs[0], a.kernel, a.stride, a.dilation, a.pads), inputs[0][2])


def _weights(a: Depthwise, inputs: tuple[Shape, ...]) -> Mapping[str, tuple[int, ...]]:
    return {"weight": (*a.kernel, inputs[0][2]), "bias": (inputs[0][2],)}


def _macs(a: Depthwise, inputs: tuple[Shape, ...]) -> int:
    height, width, channels = _shape(a, inputs)
    return height * width * channels * a.kernel[0] * a.kernel[1]


def _channel_cost(a: Depthwise, inputs: tuple[Shape, ...]) -> ChannelCost:
    height, width, _ = inputs[0]
    return ChannelCost(a.kernel[0] * a.kernel[1], height * width)


def _convolve(a: Depthwise, x: Any, weight: Any, bias: Any) -> Any:
    import torch

    filters = weight.permute(2, 0, 1).unsqueeze(1)
    return torch.nn.functional.conv2d(pad_nchw(x, a.pads), filters, bias, a.stride, 0, a.dilation, filters.shape[0])


def _dsp_workspace(a: Depthwise, inputs: tuple[Shape, ...], kind: str) -> int:
    if kind == "input":
        return kernel_room.gradient_ring_bytes(a.kernel, a.stride, min(inputs[0][0], kernel_room.BAND), inputs[0][1])
    if a.stride[1] > 2:  # the portable kernel's
        return 0
    height, width, _ = _shape(a, inputs)
    return kernel_room.ring_bytes(a.kernel, a.stride, min(height, kernel_room.BAND), width)


def _mve_workspace(a: Depthwise, inputs: tuple[Shape, ...], kind: str) -> int:
    if kind == "input":
        return _dsp_workspace(a, inputs, kind)
    height, width, channels = _shape(a, inputs)
    if channels < 4 or a.dilation != (1, 1):  # the portable kernel's
        return 0
    return kernel_room.pixel_bytes(a.kernel, a.stride, min(height, kernel_room.BAND), width)


WORKSPACES = {"dsp": _dsp_workspace, "mve": _mve_workspace}
"""Of each family."""


def _workspace(a: Depthwise, inputs: tuple[Shape, ...], kind: str) -> int:
    return max(workspace(a, inputs, kind) for workspace in WORKSPACES.values())


_real, _integer = convolution_forms(_convolve)

DEPTHWISE = OpDef(
    name="depthwise",
    attrs=Depthwise,
    shape=_shape,
    weights=_weights,
    channel_axes=(2, 2),
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
        header="mdy/ops/depthwise.h",
        struct="mdy_conv_t",
        run="mdy_run_layer",
        per_input=False,
        workspace=_workspace,
        table="mdy_depthwise",
        fields=lambda site: convolution_fields(site, 1, 1),
    ),
    backward=None,
    cases=(
        Case(Depthwise((3, 3), pads=(1, 1, 1, 1), activation=(0.0, 6.0)), ((6, 6, 5),)),
        Case(Depthwise((3, 3), (2, 2), pads=(1, 1, 1, 1), activation=(0.0, 6.0)), ((7, 8, 4),)),
        Case(Depthwise((5, 5), (2, 2), (1, 1), (2, 2, 2, 2)), ((9, 9, 3),)),
        Case(Depthwise((7, 7), (1, 1), (1, 1), (3, 3, 3, 3)), ((4, 4, 6),)),
    ),
)
