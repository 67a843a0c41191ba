# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10's ResNets (He et al. 2015, section 4.2), with the names that public checkpoints use.

6n + 2 layers: a stem, three groups of n blocks with 16, 32 and 64 channels, a classifier. A group's
first shortcut is option A: every other pixel, with zero channels around, and no parameters.
Input: (1, 3, 32, 32), pixels / 255, less MEAN, over DEVIATION.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

INPUT = (1, 3, 32, 32)
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.added:
            half = self.added // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.added - half))
        return functional.relu(x + y)


class ResNet(nn.Module):
    """A stem, three groups, the mean over the map, a linear classifier."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = self._group(WIDTHS[0], WIDTHS[0], blocks)
        self.layer2 = self._group(WIDTHS[0], WIDTHS[1], blocks)
        self.layer3 = self._group(WIDTHS[1], WIDTHS[2], blocks)
        self.linear = nn.Linear(WIDTHS[2], classes)

    @staticmethod
    def _group(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, 1 if inputs == outputs else 2)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


def build(state: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """The module of a state dict, without its weights; None if it is of another family."""
    if not {"layer3.0.conv1.weight", "linear.weight"} <= set(state):
        return None
    blocks = len({match[1] for name in state if (match := re.match(r"layer1\.(\d+)\.", name))})
    return ResNet(blocks, len(state["linear.weight"]))
