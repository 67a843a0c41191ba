# SPDX-License-Identifier: Apache-2.0
"""More small networks with the traits of those that people bring: gates, joins, series and vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

from nets import conv_norm


class HandWrittenSwish(nn.Module):
    """Hard-swish as it was written before PyTorch had it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * functional.relu6(x + 3, inplace=True) / 6


class SqueezeExcite(nn.Module):
    """MobileNetV3's gate: convolutions over one pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)), inplace=True)
        return functional.hardsigmoid(self.expand(gate), inplace=True) * x


class Bottleneck(nn.Module):
    """MobileNetV3's block: expand, depthwise, gate, project."""

    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, act: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(inputs, hidden, 1),
            act,
            conv_norm(hidden, hidden, kernel, stride, hidden),
            SqueezeExcite(hidden),
            act,
            conv_norm(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """Hard-swish in all its spellings, squeeze-excite, two linear layers at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_norm(3, 8, 3, 2),
            nn.Hardswish(inplace=True),
            Bottleneck(8, 16, 8, 3, 1, nn.ReLU(inplace=True)),
            Bottleneck(8, 24, 12, 5, 2, nn.Hardswish(inplace=True)),
            Bottleneck(12, 24, 12, 5, 1, HandWrittenSwish()),
            conv_norm(12, 24, 1),
            nn.Hardswish(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )
        self.classifier = nn.Sequential(
            nn.Linear(24, 32), nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True), nn.Linear(32, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


class Gated(nn.Module):
    """SE-ResNet: the gate is two linear layers, viewed as a map and expanded; SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 12, 3), nn.SiLU())
        self.conv = conv_norm(12, 12, 3)
        self.gate = nn.Sequential(nn.Linear(12, 4, bias=False), nn.ReLU(), nn.Linear(4, 12, bias=False), nn.Sigmoid())
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.conv(x)
        batch, channels, _, _ = y.size()
        gate = self.gate(functional.adaptive_avg_pool2d(y, 1).view(batch, channels)).view(batch, channels, 1, 1)
        x = functional.relu(x + y * gate.expand_as(y))
        logits: torch.Tensor = self.classifier(x.mean([2, 3]))
        return logits


class Fire(nn.Module):
    """SqueezeNet's block: two convolutions side by side."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.ones, self.threes = nn.Conv2d(squeezed, outputs, 1), nn.Conv2d(squeezed, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.ones(x)), functional.relu(self.threes(x))], 1)


class SqueezeNet(nn.Module):
    """Joins, max pools that round up, a convolution as classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(8, 4, 6),
            nn.MaxPool2d(3, 2, 1),
            Fire(12, 6, 8),
        )
        self.classifier = nn.Conv2d(16, 7, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.adaptive_avg_pool2d(self.layers(x), (1, 1))
        logits: torch.Tensor = torch.flatten(self.classifier(x), 1)
        return logits


class Shuffled(nn.Module):
    """ShuffleNet: half of the channels goes on unchanged, then the halves mix."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 12, 3, 2), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(conv_norm(6, 6, 1), nn.ReLU(inplace=True), conv_norm(6, 6, 3, 1, 6))
        self.grouped = nn.Conv2d(12, 8, 3, groups=2, bias=False)
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        x = functional.leaky_relu(self.grouped(x.view(batch, -1, height, width)), 0.1)
        logits: torch.Tensor = self.classifier(x.mean(-1).mean(-1))
        return logits


class SeriesNet(nn.Module):
    """A 1-D network for sensors, residual, with every kind of pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(6, 12, 7, 2, 3, bias=False), nn.BatchNorm1d(12), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv1d(12, 12, 5, padding=4, dilation=2, groups=12), nn.BatchNorm1d(12))
        self.last = nn.Sequential(nn.MaxPool1d(2), nn.Conv1d(12, 16, 3), nn.ELU(), nn.AvgPool1d(2, padding=1))
        self.classifier = nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Linear(12, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.last(torch.tanh(self.conv(x)) + x)
        logits: torch.Tensor = self.classifier(functional.adaptive_avg_pool1d(x, 1).squeeze(-1))
        return logits


class ChannelsLastSeries(nn.Module):
    """Samples come as (time, sensor), the way they are recorded; the classifier reads all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(3, 8, 3, padding="same"), nn.ReLU(), nn.MaxPool1d(4))
        self.classifier = nn.Linear(8 * 10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.layers(x.permute(0, 2, 1)).flatten(1))
        return logits


class OneSensor(nn.Module):
    """A vector that becomes a series; a linear layer at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.each = nn.Conv1d(1, 6, 5, 2), nn.Linear(6, 5)
        self.classifier = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv(x.unsqueeze(1))).transpose(1, 2)
        logits: torch.Tensor = self.classifier(functional.relu(self.each(x)).mean(1))
        return logits


class Perceptron(nn.Module):
    """Vectors only; inputs are normalised inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(-1, 1, 20))
        self.register_buffer("deviation", torch.linspace(0.5, 2, 20))
        self.layers = nn.Sequential(nn.Linear(20, 16), nn.PReLU(), nn.Linear(16, 16, bias=False), nn.LeakyReLU(0.2))
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers((x - self.mean) / self.deviation)
        return functional.softmax(self.classifier(x), dim=-1)


class Normalising(nn.Module):
    """Pixels 0 .. 255 come in; mean and deviation of every channel are constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2)
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x / 255 - self.mean) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
        x = functional.interpolate(functional.relu(self.conv(self.pad(x))), scale_factor=2)
        x = functional.avg_pool2d(1 - x, 3, 2, 1, count_include_pad=False)
        logits: torch.Tensor = self.classifier(functional.avg_pool2d(x, 3, 2, 1).amax((2, 3)))
        return logits


NETS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mobilenet_v3": (MobileNetV3, (3, 32, 32)),
    "gated": (Gated, (3, 12, 12)),
    "squeezenet": (SqueezeNet, (3, 32, 32)),
    "shuffled": (Shuffled, (3, 16, 16)),
    "series": (SeriesNet, (6, 100)),
    "channels_last_series": (ChannelsLastSeries, (40, 3)),
    "one_sensor": (OneSensor, (150,)),
    "perceptron": (Perceptron, (20,)),
    "normalising": (Normalising, (3, 16, 16)),
}


def build(name: str, seed: int = 1) -> tuple[nn.Module, torch.Tensor]:
    """A network in evaluation mode and one input for it; equal for equal seeds."""
    factory, shape = NETS[name]
    generator = torch.Generator().manual_seed(seed)
    module = factory()
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            width = layer.num_features
            layer.weight.data = 0.5 + torch.rand(width, generator=generator)
            layer.bias.data = 0.3 * torch.randn(width, generator=generator)
            layer.running_mean = 0.3 * torch.randn(width, generator=generator)
            layer.running_var = 0.3 + torch.rand(width, generator=generator)
        elif isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            weight = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data = weight * (1.5 / layer.weight[0].numel()) ** 0.5
            if layer.bias is not None:
                layer.bias.data = 0.1 * torch.randn(layer.bias.shape, generator=generator)
    return module.eval(), torch.randn(1, *shape, generator=generator)
