# SPDX-License-Identifier: Apache-2.0
"""MobileNets whose weights come as plain dicts of tensors; widths are read off the weights.

`MobileNetV1`: convolution, batch norm, ReLU6; where a stride is 2 the map is padded at the bottom and
right only, as Keras does. `MobileNetV2`: batch norm is already in the convolutions.
Input: pixels / 127.5 - 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

V1_INPUT, V2_INPUT = (1, 3, 224, 224), (1, 3, 128, 128)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
V2_STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
KERAS_EPSILON = 1e-3


class MobileNetV1(nn.Module):
    """Depthwise and pointwise convolutions in turn, with Keras's names."""

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 2, bias=False)
        self.conv1_bn = nn.BatchNorm2d(widths[0], KERAS_EPSILON)
        for k, stride in enumerate(V1_STRIDES, 1):
            inputs, outputs = widths[k - 1], widths[k]
            padding = 1 if stride == 1 else 0
            depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False)
            self.add_module(f"conv_dw_{k}", depthwise)
            self.add_module(f"conv_dw_{k}_bn", nn.BatchNorm2d(inputs, KERAS_EPSILON))
            self.add_module(f"conv_pw_{k}", nn.Conv2d(inputs, outputs, 1, bias=False))
            self.add_module(f"conv_pw_{k}_bn", nn.BatchNorm2d(outputs, KERAS_EPSILON))
        self.conv_preds = nn.Conv2d(widths[-1], classes, 1)

    def _layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        conv = self.get_submodule(name)
        if conv.stride == (2, 2):
            x = functional.pad(x, (0, 1, 0, 1))
        y: torch.Tensor = self.get_submodule(f"{name}_bn")(conv(x))
        return functional.relu6(y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self._layer("conv1", x)
        for k in range(1, len(V1_STRIDES) + 1):
            x = self._layer(f"conv_pw_{k}", self._layer(f"conv_dw_{k}", x))
        return self.conv_preds(x.mean((2, 3), keepdim=True)).flatten(1)


class Block(nn.Module):
    """Expand, depthwise, project; the sum where the extent and the width stay."""

    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, *, expands: bool) -> None:
        super().__init__()
        self.pointwise1 = nn.Conv2d(inputs, hidden, 1) if expands else None
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden)
        self.pointwise2 = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, outputs, H / stride, W / stride)."""
        y = x if self.pointwise1 is None else functional.relu6(self.pointwise1(x))
        y = self.pointwise2(functional.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """17 blocks; the classifier reads the mean over the last one's map."""

    def __init__(self, stem: int, blocks: list[Block], classes: int) -> None:
        super().__init__()
        self.first_conv = nn.Conv2d(3, stem, 3, 2, 1)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(blocks[-1].pointwise2.out_channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.blocks(functional.relu6(self.first_conv(x)))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits


def build_v1(state: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """The module of a state dict, without its weights; None if it is of another family."""
    names = ["conv1.weight", *(f"conv_pw_{k}.weight" for k in range(1, len(V1_STRIDES) + 1)), "conv_preds.weight"]
    if not set(names) <= set(state):
        return None
    return MobileNetV1(tuple(len(state[name]) for name in names[:-1]), len(state[names[-1]]))


def build_v2(state: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """The module of a state dict, without its weights; None if it is of another family."""
    count = len({match[1] for name in state if (match := re.match(r"blocks\.(\d+)\.depthwise\.", name))})
    if "first_conv.weight" not in state or "classifier.weight" not in state or count != len(V2_STRIDES):
        return None
    blocks, inputs = [], len(state["first_conv.weight"])
    for k, stride in enumerate(V2_STRIDES):
        depthwise, project = state[f"blocks.{k}.depthwise.weight"], state[f"blocks.{k}.pointwise2.weight"]
        expands = f"blocks.{k}.pointwise1.weight" in state
        blocks.append(Block(inputs, len(depthwise), len(project), depthwise.shape[-1], stride, expands=expands))
        inputs = len(project)
    return MobileNetV2(len(state["first_conv.weight"]), blocks, len(state["classifier.weight"]))
