# SPDX-License-Identifier: Apache-2.0
"""Weights without a graph (a state dict in a .th or .pth file) to a .pt2 file that medyate reads.

    python models/checkpoints/to_pt2.py resnet20-12fca82f.th resnet20.pt2

The family is recognised by the weights' names. For another network, do the same with its own module:
load the weights, then torch.export.save(torch.export.export(module.eval(), (sample,)), "net.pt2").
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import mobilenet
import resnet_cifar
import torch
from torch import nn

Builder = Callable[[Mapping[str, torch.Tensor]], nn.Module | None]
FAMILIES: tuple[tuple[str, Builder, tuple[int, ...]], ...] = (
    ("CIFAR ResNet", resnet_cifar.build, resnet_cifar.INPUT),
    ("MobileNetV1", mobilenet.build_v1, mobilenet.V1_INPUT),
    ("MobileNetV2", mobilenet.build_v2, mobilenet.V2_INPUT),
)


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a file by name, without the prefix of DataParallel; no code in it is run."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    return {name.removeprefix("module."): value for name, value in state.items()}


def module(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
    """The module of a file with its weights, in evaluation mode, and the shape of its input."""
    state = state_dict(path)
    for _, build, shape in FAMILIES:
        network = build(state)
        if network is not None:
            found = network.load_state_dict(state, strict=False)
            missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
            if missing or found.unexpected_keys:
                raise SystemExit(f"{path}: lacks {missing[:3]}, or has {found.unexpected_keys[:3]} too many")
            return network.eval(), shape
    raise SystemExit(f"{path}: its weights are of none of {', '.join(name for name, _, _ in FAMILIES)}")


def convert(source: Path, target: Path) -> None:
    """Writes the network of `source` as a program for one image."""
    network, shape = module(source)
    torch.export.save(torch.export.export(network, (torch.zeros(shape),)), target)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="weights of a known network family to a .pt2 file")
    parser.add_argument("source", type=Path, help="a .th or .pth file")
    parser.add_argument("target", type=Path, help="the .pt2 file to write")
    given = parser.parse_args()
    convert(given.source, given.target)
    print(f"wrote {given.target}")


if __name__ == "__main__":
    main()
