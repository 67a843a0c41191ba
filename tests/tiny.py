# SPDX-License-Identifier: Apache-2.0
"""A network so small that a commit is some 100 operations of the flash, and what it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medyate import datasets
from medyate.build.project import APP
from medyate.plan.banks import BankFlash, Run
from medyate.plan.budget import Limits
from medyate.run.train import Compiled, int8_samples
from medyate.stages import Options, compile_model
from medyate.strategies.problem import Settings
from nets import conv_norm, randomise
from shared_files import Samples

FLASH = BankFlash((Run(3, 256), Run(1, 64), Run(2, 1024)), 4)
"""Unequal sectors: bank 0 takes two of 256 B, bank 1 one of each size, and one is left."""
WIDE = BankFlash((Run(2, 512), Run(4, 1024)), 32)
"""The program unit of an STM32H743."""


class Tiny(nn.Module):
    """Dense, depthwise and pointwise layers on 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(1, 6, 3, 2), nn.ReLU6(), conv_norm(6, 6, 3, 1, 6), nn.ReLU6(), conv_norm(6, 12, 1), nn.ReLU6()
        )
        self.classifier = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.classifier(self.layers(x).mean([2, 3]))
        return logits


def write_data(path: Path) -> Path:
    """Four classes, each a bright quarter in noise: 32 samples to train, 8 to test."""
    random = np.random.default_rng(8)
    y = np.arange(40) % 4
    x = random.integers(0, 120, (40, 8, 8, 1), np.uint8)
    for image, label in zip(x, y, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 100
    np.savez(path, x_train=x[:32], y_train=y[:32], x_test=x[32:], y_test=y[32:])
    return path


def compile_tiny(
    folder: Path,
    target: str = "host",
    flash: BankFlash | None = FLASH,
    strategy: str = "medyate",
    settings: Settings | None = None,
    head_start: str = "new",
    app: str = APP,
    **limits: Any,
) -> Compiled:
    """The network built for a target, with other limits; the data lie in folder/data.npz."""
    module = Tiny()
    randomise(module, torch.Generator().manual_seed(3))
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 1, 8, 8),)), folder / "tiny.pt2")
    dataset = datasets.load(str(write_data(folder / "data.npz")))
    allowed = Limits(**{"ram_bytes": 16 << 10, "alpha": 0.5, **limits})
    options = Options(
        target,
        allowed,
        head=head_start,
        rank_epochs=1,
        builder="make",
        flash=flash,
        strategy=strategy,
        settings=settings or Settings(),
        app=app,
    )
    compile_model(folder / "tiny.pt2", dataset, options, folder / "out")
    return Compiled.read(folder / "out")


def samples_of(compiled: Compiled) -> Samples:
    """The training samples as the device takes them."""
    dataset = datasets.load(str(compiled.folder.parent / "data.npz"))
    x, _ = int8_samples(compiled, dataset)
    return Samples(x, dataset.y_train)
