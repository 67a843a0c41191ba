# SPDX-License-Identifier: Apache-2.0
"""PyTorch functions and modules on maps, series and vectors: one for every operation that is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Program = torch.export.ExportedProgram
GENERATOR = torch.Generator().manual_seed(7)
IMAGE = torch.randn(1, 4, 8, 8, generator=GENERATOR)
SERIES = torch.randn(1, 4, 12, generator=GENERATOR)
VECTOR = torch.randn(1, 16, generator=GENERATOR)


class Body(nn.Module):
    """A function or module behind a layer that makes its input no graph input."""

    def __init__(self, body: Callable[[torch.Tensor], torch.Tensor], rank: int) -> None:
        super().__init__()
        self.first = (nn.Linear(16, 16), nn.Conv1d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))[rank - 2]
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.first(x))


@cache
def exported(body: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[Body, tuple[Program, Program]]:
    """The body with weights of its own, and its program as exported and decomposed. Tracing takes the most time."""
    module = Body(body, x.ndim).eval()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    program = torch.export.export(module, (x,))
    return module, (program, program.run_decompositions())


FUNCTIONS = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "elu": functional.elu,
    "selu": functional.selu,
    "softplus": functional.softplus,
    "mish": functional.mish,
    "abs": torch.abs,
    "exp": torch.exp,
    "square": torch.square,
    "hardtanh": functional.hardtanh,
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.25)),
    "minimum": lambda x: torch.minimum(torch.ones(1), x),
}
SPELLED: tuple[tuple[Any, str], ...] = (
    (lambda x: x * functional.relu6(x + 3) / 6, "hard_swish"),
    (lambda x: x * (functional.relu6(x + 3) / 6), "hard_swish"),
    (lambda x: x * functional.hardtanh(x * (1 / 6) + 0.5, 0.0, 1.0), "hard_swish"),
    (functional.hardswish, "hard_swish"),
    (lambda x: functional.relu6(x.add(3.0)) / 6, "hard_sigmoid"),
    (functional.hardsigmoid, "hard_sigmoid"),
    (lambda x: x * torch.sigmoid(x), "silu"),
    (lambda x: x / (1 + torch.exp(-x)), "silu"),
    (functional.silu, "silu"),
    (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "gelu"),
    (lambda x: torch.where(x > 0, x, 0.1 * x), "leaky_relu"),
    (nn.PReLU(init=0.3), "leaky_relu"),
    (lambda x: torch.where(x > 0, x, 0.0), "clip"),
    (lambda x: torch.where(x > 0, x, torch.exp(x) - 1), "elu"),
)
"""(several operations or one, the function that they are)."""
AS_EXPORTED: dict[str, Any] = {
    "slopes": nn.PReLU(4),
    "pixel shuffle": nn.Sequential(nn.Conv2d(4, 8, 1), nn.PixelShuffle(2)),
    "pixel unshuffle": nn.PixelUnshuffle(2),
}
"""Decomposed, they are comparisons and choices, or permutations of six axes, which are refused."""
MAPS: dict[str, Any] = {
    "grouped": nn.Conv2d(4, 8, 3, groups=2),
    "multiplier": nn.Conv2d(4, 8, 3, groups=4),
    "same": nn.Conv2d(4, 4, (4, 2), padding="same", dilation=(1, 2)),
    "row": nn.Conv2d(4, 4, (1, 5), padding=(0, 2)),
    "max": nn.MaxPool2d(2),
    "max, padded": nn.MaxPool2d(3, 2, 1),
    "max, rounded up": nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": nn.AvgPool2d(3, 1),
    "average, padding counted": nn.AvgPool2d(3, 2, 1),
    "average, padding not counted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average, rounded up": nn.AvgPool2d(3, 2, ceil_mode=True),
    "average, not square": nn.AvgPool2d((2, 4), (1, 2)),
    "adaptive": nn.AdaptiveAvgPool2d(2),
    "adaptive, one side": nn.AdaptiveAvgPool2d((None, 1)),
    "adaptive max": nn.AdaptiveMaxPool2d((1, 2)),
    "mean of one axis": lambda x: x.mean(3, keepdim=True),
    "mean of rows": lambda x: x.mean(2),
    "mean of channels": lambda x: x.mean(1, keepdim=True),
    "mean of everything": lambda x: x.mean((2, 3)).mean(1, keepdim=True),
    "sum": lambda x: x.sum((2, 3)),
    "sum of rows": lambda x: x.sum(2, keepdim=True),
    "transposed": nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1),
    "transposed without strides": nn.ConvTranspose2d(4, 1, 3),
    "larger of two": lambda x: torch.maximum(x, -x * 0.5),
    "smaller of two": lambda x: torch.minimum(x, x * 2 - 1),
    "average, padding counted and rounded up": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "largest": lambda x: x.amax((2, 3), keepdim=True),
    "largest of a row": lambda x: x.max(3)[0],
    "sum with itself": lambda x: x + x,
    "scaled sum": lambda x: torch.add(x, x.relu(), alpha=2),
    "difference": lambda x: x - x.relu(),
    "number minus": lambda x: 1 - x,
    "negative": lambda x: -x,
    "number, by a scalar operation": lambda x: torch.ops.aten.mul.Scalar(x, 1.5),
    "numbers": lambda x: (x * 2 + 1.5) / 4 - 0.25,
    "constants": lambda x: (x - torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1)) * torch.arange(1.0, 5).view(1, 4, 1, 1),
    "constant of a row": lambda x: x + torch.arange(8.0),
    "square": lambda x: x * x,
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "gate first": lambda x: torch.sigmoid(x.amax((2, 3), keepdim=True)) * x,
    "join": lambda x: torch.cat((x, x.relu(), x[:, :1]), 1),
    "join of rows": lambda x: torch.cat((x, x.relu()), 2),
    "join of columns": lambda x: torch.cat((x, x.relu()), -1),
    "padding": nn.ZeroPad2d((1, 2, 0, 3)),
    "padding of channels": lambda x: functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 1)),
    "crop": lambda x: functional.pad(x, (-1, 0, 0, -2)),
    "slice": lambda x: x[:, 1:3, 1:, ::3],
    "one channel": lambda x: x[:, 2:3] * 2,
    "one row": lambda x: x[:, :, 3],
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "chunk": lambda x: x.chunk(2, 2)[0] + x.chunk(2, 2)[1],
    "nearest": lambda x: functional.interpolate(x, scale_factor=2),
    "nearest by size": lambda x: functional.interpolate(x, size=(16, 24)),
    "nearest, exact": lambda x: functional.interpolate(x, scale_factor=(2, 3), mode="nearest-exact"),
    "transpose": lambda x: x.transpose(2, 3),
    "permute": lambda x: x.permute(0, 3, 1, 2) * 2,
    "regrouped": lambda x: x.view(1, 2, 2, 64).transpose(1, 2).reshape(1, 4, 64),
    "shuffle": nn.ChannelShuffle(2),
    "flatten and back": lambda x: x.flatten(1).view(1, 8, 4, 8).relu(),
    "cast": lambda x: x.float().type_as(x).contiguous(),
    "map as a sequence": lambda x: x.flatten(2).transpose(1, 2),
    "stack": lambda x: torch.stack((x.mean((2, 3)), x.amax((2, 3))), 2),
    "in place": lambda x: x.mul_(2).add_(1).relu_(),
    "softmax": lambda x: x.mean((2, 3)).softmax(1),
    "linear over the channels": lambda x: functional.linear(x.permute(0, 2, 3, 1), torch.ones(3, 4)).permute(
        0, 3, 1, 2
    ),
    "batch dropped": lambda x: x.mean((2, 3)).squeeze(),
}
SERIES_BODIES: dict[str, Any] = {
    "conv": nn.Conv1d(4, 6, 5, 2, 2),
    "grouped": nn.Conv1d(4, 4, 3, padding="same", groups=4),
    "transposed": nn.ConvTranspose1d(4, 3, 4, 2, 1),
    "norm": nn.BatchNorm1d(4),
    "max": nn.MaxPool1d(3, 2, 1),
    "average": nn.AvgPool1d(3, 1, 1),
    "adaptive": nn.AdaptiveAvgPool1d(4),
    "adaptive max": nn.AdaptiveMaxPool1d(1),
    "nearest": lambda x: functional.interpolate(x, scale_factor=3),
    "gate": lambda x: x * torch.sigmoid(x.mean(2, keepdim=True)),
    "join": lambda x: torch.cat((x, x * 2), 1),
    "join in time": lambda x: torch.cat((x, x * 2), 2),
    "padding": nn.ConstantPad1d((2, 1), 0.0),
    "last of the series": lambda x: x[:, :, -1],
    "largest": lambda x: x.max(dim=2).values,
    "linear at every position": nn.Linear(12, 5),
    "linear over sensors": lambda x: functional.linear(x.transpose(1, 2), torch.ones(3, 4)).relu().mean(1),
    "as an image": lambda x: functional.max_pool2d(x.unsqueeze(1), 2).flatten(1),
    "as a row": lambda x: functional.conv2d(x.unsqueeze(2), torch.ones(2, 4, 1, 3)).squeeze(2),
    "flattened": lambda x: functional.linear(x.flatten(1), torch.arange(96.0).view(2, 48)),
}
VECTOR_BODIES: dict[str, Any] = {
    "norm": nn.BatchNorm1d(16),
    "no bias": nn.Linear(16, 4, bias=False),
    "matmul": lambda x: x @ torch.arange(48.0).view(16, 3),
    "constants": lambda x: x * torch.arange(16.0) + 1,
    "join": lambda x: torch.cat((x, x.relu()), 1),
    "gate": lambda x: x * torch.sigmoid(x),
    "part": lambda x: x[:, 3:9],
    "padding": lambda x: functional.pad(x, (1, 2)),
    "as a map": lambda x: functional.conv2d(x.view(1, 4, 2, 2), torch.ones(3, 4, 2, 2)).flatten(1),
    "as a series": lambda x: functional.conv1d(x.unflatten(1, (2, 8)), torch.ones(3, 2, 3)).flatten(1),
    "softmax": lambda x: x.softmax(-1),
}
