# SPDX-License-Identifier: Apache-2.0
"""One small network for every structure that people bring, in each format that has it, made by independent routes.

PyTorch files come from torch.export, ONNX files from torch.onnx, quantised ones from onnxruntime's quantiser,
TFLite files from a flatbuffers writer.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medyate.export.flatfile import Options, Steps
from onnx_files import quantise
from tflite_nets import SHARES, Net, tail

CLASSES = 3
EXTENT = (8, 8, 3)
IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
Body = Callable[[torch.Tensor], torch.Tensor]


class Around(nn.Module):
    """A convolution, the structure, the mean over the map, a classifier."""

    def __init__(self, body: Body, channels: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.body = body
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.head(self.body(self.first(x)).mean((2, 3)))
        return logits


class Branches(Around):
    """The structure of two branches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        both: Callable[..., torch.Tensor] = self.body
        logits: torch.Tensor = self.head(both(self.first(x), self.second(x)).mean((2, 3)))
        return logits


class Ends(nn.Module):
    """A network that ends as the structure says."""

    def __init__(self, end: Body, classes: int = CLASSES) -> None:
        super().__init__()
        self.first, self.head, self.end = nn.Conv2d(3, 6, 3), nn.Linear(6, classes), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What stands behind the logits."""
        return self.end(self.head(self.first(x).relu().mean((2, 3))))


MODULES: Mapping[str, Callable[[], nn.Module]] = {
    "softmax": lambda: Ends(lambda z: z.softmax(1)),
    "log-softmax": lambda: Ends(lambda z: functional.log_softmax(z, 1)),
    "sigmoid, one output": lambda: Ends(torch.sigmoid, 1),
    "sigmoids": lambda: Ends(torch.sigmoid),
    "clamp behind the classifier": lambda: Ends(torch.relu),
    "1x1 convolution, mean": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "1x1 convolution, clamp, mean, softmax": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1)
    ),
    "an answer for each cell": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, CLASSES, 1)),
    "features": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "mean of one axis at a time": lambda: Around(lambda x: x.mean(3, keepdim=True).mean(2, keepdim=True)),
    "factors and summands": lambda: Around(lambda x: (x * torch.arange(1.0, 7).view(6, 1, 1) + 0.5).relu()),
    "difference": lambda: Branches(lambda a, b=None: a - b),
    "larger and smaller": lambda: Branches(lambda a, b=None: torch.minimum(torch.maximum(a, b), b + b)),
    "largest of a map": lambda: Around(lambda x: x.amax((2, 3), keepdim=True)),
    "sum over a map": lambda: Around(lambda x: x.sum((2, 3), keepdim=True)),
    "blocks of pixels": lambda: Around(nn.PixelUnshuffle(2), 24),
    "transposed convolution": lambda: Around(nn.ConvTranspose2d(6, 4, 4, 2, 1), 4),
    "dilation": lambda: Around(nn.Conv2d(6, 5, 3, padding=2, dilation=2), 5),
    "gelu": lambda: Around(nn.GELU()),
    "elu": lambda: Around(nn.ELU()),
    "selu": lambda: Around(nn.SELU()),
    "mish": lambda: Around(nn.Mish()),
    "softplus": lambda: Around(nn.Softplus()),
    "absolute value": lambda: Around(torch.abs),
    "slopes": lambda: Around(nn.PReLU(6)),
}
REDUCE = Options("ReducerOptions", {})


def _with(net: Net) -> Net:
    return net.mean().linear(CLASSES).softmax()


def _kept(net: Net, kind: str, axis: int, *shape: int) -> Net:
    return net.op(kind, shape, net.whole(axis), options=REDUCE)


def _two(kind: str) -> Net:
    net = Net().conv(6)
    first = net.last
    net.conv(6)
    options = Options("SubOptions", {}) if kind == "SUB" else Options("MaximumMinimumOptions", {})
    return _with(net.op(kind, net.shape(), options=options, inputs=(first, net.last)))


def _transposed() -> Net:
    net = Net().conv(6)
    weight, _ = net.weights(4, 4, 4, 4, 6)
    options = Options("TransposeConvOptions", {"StrideH": 2, "StrideW": 2, "Padding": 0})
    size = (1, 16, 16, 4)
    return _with(net.op("TRANSPOSE_CONV", size, options=options, inputs=(net.whole(*size), weight, net.last)))


def _function(kind: str, options: Options | None = None) -> Net:
    net = Net().conv(6)
    return _with(net.op(kind, net.shape(), options=options))


def _slopes() -> Net:
    net = Net().conv(6)
    slopes = net.number(np.array([[[-20, 10, 30, 50, 0, 90]]], np.int8), Steps((0.01,), (0,)))
    return _with(net.op("PRELU", net.shape(), slopes))


def _logarithms() -> Net:
    net = tail()
    net.op("DEQUANTIZE", (1, 3), steps=None, dtype="float32")
    return net.op("LOG_SOFTMAX", (1, 3), options=Options("LogSoftmaxOptions", {}), steps=None, dtype="float32")


TFLITE: Mapping[str, Callable[[], Net]] = {
    "softmax": lambda: tail().softmax(),
    "softmax, then another type": lambda: (
        tail().softmax().op("QUANTIZE", (1, 3), steps=Steps((1 / 256,), (0,)), dtype="uint8")
    ),
    "log-softmax": _logarithms,
    "sigmoid, one output": lambda: tail(1).op("LOGISTIC", (1, 1), steps=SHARES),
    "sigmoids": lambda: tail().op("LOGISTIC", (1, 3), steps=SHARES),
    "clamp behind the classifier": lambda: Net().conv(6, activation=1).mean().linear(3, activation=1),
    "1x1 convolution, mean": lambda: Net().conv(6, activation=1).conv(3, 1).mean(),
    "1x1 convolution, clamp, mean, softmax": lambda: Net().conv(6).conv(3, 1, activation=1).mean().softmax(),
    "an answer for each cell": lambda: Net().conv(6, activation=1).conv(3, 1).softmax(),
    "features": lambda: Net().conv(6, activation=1).mean(),
    "mean of one axis at a time": lambda: (
        _kept(_kept(Net().conv(6), "MEAN", 2, 1, 8, 6), "MEAN", 1, 1, 6).linear(CLASSES).softmax()
    ),
    "factors and summands": lambda: _with(
        Net()
        .conv(6)
        .scaled("MUL", np.array([-100, 0, 50, 90, 127, -128], np.int8), -100)
        .scaled("ADD", np.array([-100, 0, 50, 90, 127, -90], np.int8), 4)
    ),
    "difference": lambda: _two("SUB"),
    "larger and smaller": lambda: _two("MAXIMUM"),
    "largest of a map": lambda: (
        _kept(_kept(Net().conv(6), "REDUCE_MAX", 2, 1, 8, 6), "REDUCE_MAX", 1, 1, 6).linear(CLASSES).softmax()
    ),
    "blocks of pixels": lambda: _with(
        Net().conv(6).op("SPACE_TO_DEPTH", (1, 4, 4, 24), options=Options("SpaceToDepthOptions", {"BlockSize": 2}))
    ),
    "transposed convolution": _transposed,
    "gelu": lambda: _function("GELU", Options("GeluOptions", {"Approximate": False})),
    "absolute value": lambda: _function("ABS"),
    "slopes": _slopes,
}
FORMS = ("TFLite", "PyTorch", "ONNX", "ONNX int8")
NAMES = tuple(dict.fromkeys((*MODULES, *TFLITE)))


def build(name: str, form: str, folder: Path) -> Path | None:
    """The file; None where the format has no such structure here."""
    if form == "TFLite":
        return TFLITE[name]().save(folder / "net.tflite") if name in TFLITE else None
    if name not in MODULES:
        return None
    torch.manual_seed(4)
    module = copy.deepcopy(MODULES[name]()).eval()
    if form == "PyTorch":
        torch.export.save(torch.export.export(module, (IMAGE,)), folder / "net.pt2")
        return folder / "net.pt2"
    path = folder / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its end at every call
        torch.onnx.export(module, (IMAGE,), str(path), dynamo=False, opset_version=18 if name == "mish" else 13)
    if form == "ONNX":
        return path
    samples = np.random.default_rng(5).normal(size=(16, 3, 8, 8)).astype(np.float32)
    return quantise(path, samples, "QDQ", per_channel=True, unsigned=False)
