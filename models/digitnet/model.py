"""The network of the demonstration: a MobileNetV2-like classifier for 16x16 grey images.

It has the parts of its larger relatives (3x3 stem, inverted residual blocks of expand 1x1,
depthwise 3x3 and project 1x1, ReLU6, batch normalisation, residual additions, a last 1x1
convolution, global average pooling, a linear classifier), small enough to be trained one
sample at a time on a microcontroller: most of its weights sit at a resolution of 2x2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

INPUT_SHAPE = (1, 16, 16)
NUM_CLASSES = 10


class Block(NamedTuple):
    """One inverted residual block."""

    expanded: int
    out: int
    stride: int


STEM_CHANNELS = 16
BLOCKS = (
    Block(expanded=32, out=24, stride=2),
    Block(expanded=72, out=24, stride=1),
    Block(expanded=96, out=40, stride=2),
    Block(expanded=160, out=40, stride=1),
    Block(expanded=128, out=40, stride=1),
)
LAST_CHANNELS = 128


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """A convolution without bias, batch normalisation and, if `act`, a ReLU6."""
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    if act:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; input added where the shapes match."""

    def __init__(self, cin: int, block: Block) -> None:
        super().__init__()
        self.expand = conv_bn(cin, block.expanded, 1)
        self.depthwise = conv_bn(block.expanded, block.expanded, 3, block.stride, groups=block.expanded)
        self.project = conv_bn(block.expanded, block.out, 1, act=False)
        self.residual = block.stride == 1 and cin == block.out

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class DigitNet(nn.Module):
    """The whole network: float images [N, 1, 16, 16] in -1..1 to logits [N, 10]."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.stem = conv_bn(INPUT_SHAPE[0], STEM_CHANNELS, 3, stride=2)
        blocks: list[nn.Module] = []
        cin = STEM_CHANNELS
        for block in BLOCKS:
            blocks.append(InvertedResidual(cin, block))
            cin = block.out
        self.blocks = nn.Sequential(*blocks)
        self.last = conv_bn(cin, LAST_CHANNELS, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(LAST_CHANNELS, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        y = self.pool(self.last(self.blocks(self.stem(x))))
        logits: Tensor = self.classifier(torch.flatten(y, 1))
        return logits


def build_model(num_classes: int = NUM_CLASSES) -> DigitNet:
    """Return the network with fresh random weights (seed torch for a reproducible start)."""
    return DigitNet(num_classes)


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Fold, in place, every batch normalisation into the convolution before it.

    The model is put into evaluation mode; the convolutions gain a bias and the batch
    normalisations become identities, so the function computed stays the same.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                module[1] = nn.Identity()
    return model


@dataclass(frozen=True)
class LayerInfo:
    """Shape and cost of one convolution or linear layer for one sample."""

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    weights: int
    macs: int


def describe(model: nn.Module) -> list[LayerInfo]:
    """Return the convolutions and linear layers in the order in which they run.

    Multiply-accumulates are counted with the zero padding, as a plain kernel without
    border handling would run them.
    """
    rows: list[LayerInfo] = []
    hooks = []

    def watch(name: str, layer: nn.Conv2d | nn.Linear) -> None:
        def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            weights = layer.weight.numel()
            macs = weights
            kind = "linear"
            if isinstance(layer, nn.Conv2d):
                macs *= out.shape[2] * out.shape[3]
                depthwise = "depthwise " if layer.groups > 1 else ""
                kind = f"{depthwise}{layer.kernel_size[0]}x{layer.kernel_size[1]}"
                kind += f" s{layer.stride[0]}"
            shapes = tuple(args[0].shape[1:]), tuple(out.shape[1:])
            rows.append(LayerInfo(name, kind, *shapes, weights, macs))

        hooks.append(layer.register_forward_hook(hook))

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            watch(name, module)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, *INPUT_SHAPE))
    model.train(was_training)
    for handle in hooks:
        handle.remove()
    return rows
