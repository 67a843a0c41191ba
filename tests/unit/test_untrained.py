# SPDX-License-Identifier: Apache-2.0
"""Weights that nobody has trained are told from those of pretrained networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import DIGITNET
from medyate import frontends
from medyate.ir import Imported
from medyate.run.signs import UNTRAINED
from medyate.run.untrained import untrained_share
from nets import DsCnn, McuNet, MobileNetV2, ResNet8, ResNet20
from shared_files import shared

MARGIN = 0.25
"""From the bound, on either side."""


def plain() -> nn.Sequential:
    """As in a first tutorial."""
    first = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (plain, (1, 16, 16)),
    "mobilenet": (MobileNetV2, (3, 32, 32)),
    "mcunet": (McuNet, (3, 32, 32)),
    "resnet8": (ResNet8, (3, 16, 16)),
    "resnet20": (ResNet20, (3, 32, 32)),
    "dscnn": (DsCnn, (1, 49, 10)),
}
INITIALISATIONS: dict[str, Callable[[torch.Tensor], Any] | None] = {
    "torch": None,
    "kaiming": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out"),
    "glorot": nn.init.xavier_uniform_,
    "cut": lambda weight: nn.init.trunc_normal_(weight, std=0.02),
    "orthogonal": nn.init.orthogonal_,
}


def made(name: str, initialise: Callable[[torch.Tensor], Any] | None, folder: Path) -> Imported:
    """A module as it is made, with another initialisation, exported and read."""
    torch.manual_seed(3)
    make, shape = NETWORKS[name]
    module = make().eval()
    for layer in module.modules():
        if initialise is not None and isinstance(layer, nn.Conv2d | nn.Linear):
            initialise(layer.weight)
    torch.export.save(torch.export.export(module, (torch.zeros(1, *shape),)), folder / "made.pt2")
    return frontends.load(folder / "made.pt2")


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_modules_as_they_are_made(name: str, initialisation: str, tmp_path: Path) -> None:
    network = made(name, INITIALISATIONS[initialisation], tmp_path)
    share = untrained_share(network.graph, network.weights)
    assert share is not None and share > UNTRAINED + MARGIN


def test_the_demonstration_network() -> None:
    network = frontends.load(DIGITNET)
    share = untrained_share(network.graph, network.weights)
    assert share is not None and share < UNTRAINED - MARGIN


@pytest.mark.parametrize(
    "name",
    [
        "ad_autoencoder_float.tflite",
        "ad_autoencoder_int8.tflite",
        "hello_world_float.tflite",
        "ic_resnet8_cifar10_float.onnx",
        "ic_resnet8_cifar10_int8.tflite",
        "kws_dscnn_int8.tflite",
        "mbv2-w0.35.pkl",
        "mcunet-5fps.pkl",
        "proxyless-w0.3.pkl",
        "micro_speech_int8.tflite",
        "mobilenet_v1_0.25_128_quant_uint8.tflite",
        "person_detect_int8.tflite",
        "vww_mobilenetv1_025_96_float.tflite",
        "vww_mobilenetv1_025_96_int8.tflite",
        "derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx",
        "derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx",
    ],
)
def test_networks_that_were_trained(name: str) -> None:
    network = frontends.load(shared(f"models/{name}"))
    share = untrained_share(network.graph, network.weights)
    assert share is None or share < UNTRAINED - MARGIN


def test_a_network_without_a_layer_that_tells(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 4),)), tmp_path / "made.pt2")
    network = frontends.load(tmp_path / "made.pt2")
    assert untrained_share(network.graph, network.weights) is None
    assert untrained_share(network.graph, {k: np.zeros_like(v) for k, v in network.weights.items()}) is None
