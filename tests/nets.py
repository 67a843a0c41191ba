# SPDX-License-Identifier: Apache-2.0
"""Small networks with the traits of those that people bring, made from a seed.

Batch norms hold statistics that are far from 0 and 1, so that a wrong folding shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

Shape = tuple[int, int, int]
"""(C, H, W) of an input."""


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the extent at stride 1, with its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, and the sum where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [conv_norm(inputs, hidden, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        layers += [conv_norm(hidden, hidden, kernel, stride, hidden), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, conv_norm(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, outputs, H / stride, W / stride)."""
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Residual blocks, adaptive pooling, dropout in front of the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_norm(3, 8, 3, 2),
            nn.ReLU6(inplace=True),
            InvertedResidual(8, 8, 3, 1, 1),
            InvertedResidual(8, 12, 3, 2, 4),
            InvertedResidual(12, 12, 3, 1, 4),
            InvertedResidual(12, 16, 3, 2, 4),
            conv_norm(16, 24, 1),
            nn.ReLU6(inplace=True),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


class McuNet(nn.Module):
    """ProxylessNAS's traits: depthwise windows of 5 x 5 and 7 x 7, the mean as pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv_norm(3, 8, 3, 2), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(
            InvertedResidual(8, 8, 5, 1, 3),
            InvertedResidual(8, 12, 7, 2, 3),
            InvertedResidual(12, 12, 7, 1, 4),
            InvertedResidual(12, 16, 5, 2, 3),
        )
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        features = self.blocks(self.first(x)).mean([2, 3])
        logits: torch.Tensor = self.classifier(features)
        return logits


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.first, self.second = conv_norm(inputs, outputs, 3, stride), conv_norm(outputs, outputs, 3)
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, outputs, H / stride, W / stride)."""
        y: torch.Tensor = self.second(functional.relu(self.first(x)))
        y += self.shortcut(x)
        return functional.relu(y, inplace=True)


class ResNet8(nn.Module):
    """MLPerf Tiny's: shortcuts are 1 x 1 convolutions with a stride; a pool with a window; a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 8, 3), nn.ReLU())
        self.blocks = nn.Sequential(
            BasicBlock(8, 8, 1, nn.Identity()),
            BasicBlock(8, 12, 2, nn.Conv2d(8, 12, 1, 2)),
            BasicBlock(12, 16, 2, nn.Conv2d(12, 16, 1, 2)),
        )
        self.pool = nn.AvgPool2d(4)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        x = self.pool(self.blocks(self.stem(x)))
        return functional.softmax(self.classifier(x.view(x.size(0), -1)), dim=1)


class OptionA(nn.Module):
    """Every other pixel, with zero channels around: no parameters."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C + added, H / 2, W / 2)."""
        half = self.added // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.added - half))


class ResNet20(nn.Module):
    """CIFAR's ResNet-20 with narrow layers: three groups of three blocks, option A between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 8, 3), nn.ReLU())
        blocks, width = [], 8
        for outputs in (8, 12, 16):
            for position in range(3):
                strided = position == 0 and outputs != width
                shortcut = OptionA(outputs - width) if strided else nn.Identity()
                blocks.append(BasicBlock(width, outputs, 2 if strided else 1, shortcut))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.blocks(self.stem(x))
        x = functional.avg_pool2d(x, x.size()[3])
        logits: torch.Tensor = self.classifier(x.view(x.size(0), -1))
        return logits


class DsCnn(nn.Module):
    """Keyword spotting: a first window of 10 x 4, biases in front of batch norm, a map that is no square."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 16, (10, 4), 2, (5, 1)), nn.BatchNorm2d(16), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(16, 16, 3, padding="same", groups=16), nn.BatchNorm2d(16), nn.ReLU()]
            layers += [nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Dropout(0.4), nn.AvgPool2d((25, 5)), nn.Flatten())
        self.classifier = nn.Linear(16, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.classifier(self.layers(x))
        return logits


class FlatHead(nn.Module):
    """The classifier reads a map of 4 x 3 pixels, in channel-first order."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_norm(2, 6, 3, 2), nn.Hardtanh(-1.0, 4.0), nn.AvgPool2d(2))
        self.classifier = nn.Linear(6 * 4 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.classifier(self.layers(x).flatten(1))
        return logits


NETS: Mapping[str, tuple[Callable[[], nn.Module], Shape]] = {
    "mobilenet_v2": (MobileNetV2, (3, 32, 32)),
    "mcunet": (McuNet, (3, 32, 32)),
    "resnet8": (ResNet8, (3, 16, 16)),
    "resnet20": (ResNet20, (3, 16, 16)),
    "ds_cnn": (DsCnn, (1, 49, 10)),
    "flat_head": (FlatHead, (2, 16, 12)),
}


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Fills every parameter and running statistic; activations stay in the order of 1."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            width = layer.num_features
            layer.weight.data = 0.5 + torch.rand(width, generator=generator)
            layer.bias.data = 0.3 * torch.randn(width, generator=generator)
            layer.running_mean = 0.3 * torch.randn(width, generator=generator)
            layer.running_var = 0.3 + torch.rand(width, generator=generator)
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            fan_in = layer.weight[0].numel()
            weight = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = weight * (1.5 / fan_in) ** 0.5
            if layer.bias is not None:
                layer.bias.data = 0.1 * torch.randn(layer.bias.shape, generator=generator)


def build(name: str, seed: int = 1) -> tuple[nn.Module, torch.Tensor]:
    """A network in evaluation mode and one input (1, C, H, W) for it; equal for equal seeds."""
    factory, shape = NETS[name]
    generator = torch.Generator().manual_seed(seed)
    module = factory()
    randomise(module, generator)
    return module.eval(), torch.randn(1, *shape, generator=generator)
