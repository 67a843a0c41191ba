# SPDX-License-Identifier: Apache-2.0
"""Instructions of inferences and training steps on emulated cores, of networks that others publish figures of.

    python tools/speed_table.py SHARED [qemu-m4 qemu-m7 qemu-m55 ...]

SHARED/models holds MLPerf Tiny's networks in int8, of which an inference is counted. Two small networks are given by
their shapes, and every weight of them is trained, one sample an update, with the default clip: an MLP 64-32-10 on 8 x 8
pixels, and a convolutional network on 128 samples of nine sensors. Samples are noise of a fixed seed: the counts hardly
depend on them. All in 192 KiB of RAM. Instructions are not cycles.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import medyate
from medyate.bench.measure import bench

RAM = "192KiB"
"""What the autoencoder needs to be trained; the others take less."""
TARGETS = ("qemu-m4", "qemu-m7", "qemu-m55")
TINY = {
    "ic": ("ic_resnet8_cifar10_int8.tflite", (32, 32, 3), 10),
    "vww": ("vww_mobilenetv1_025_96_int8.tflite", (96, 96, 3), 2),
    "kws": ("kws_dscnn_int8.tflite", (49, 10, 1), 12),
    "ad": ("ad_autoencoder_int8.tflite", (640,), 0),
}
"""File, shape of a sample, classes; 0: an autoencoder."""


def mlp() -> nn.Module:
    """2,410 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def har() -> nn.Module:
    """10,214 parameters, 496,000 multiply-adds."""
    return nn.Sequential(
        *(nn.Conv1d(9, 16, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1)),
        *(nn.Flatten(), nn.Linear(64, 6)),
    )


def arrays(samples: NDArray[Any], classes: int) -> dict[str, NDArray[Any]]:
    """The second half is for testing; without classes the samples are their own targets."""
    half = len(samples) // 2
    parts = {"x_train": samples[:half], "x_test": samples[half:]}
    if classes:
        parts |= {"y_train": np.arange(half) % classes, "y_test": np.arange(half) % classes}
    return parts


def counted(network: medyate.Network, data: Mapping[str, Any], target: str, **options: Any) -> dict[str, Any]:
    """Instructions by phase, and the RAM that is planned."""
    dataset = medyate.data(dict(data), name="noise")
    with tempfile.TemporaryDirectory() as folder:
        plan = network.plan(dataset, ram=RAM, target=target, builder="make", progress=lambda *_: None, **options)
        built = plan.compile(Path(folder) / "out", progress=lambda *_: None)
        result = bench(built.compiled, dataset)
    return {phase: result[phase]["instructions"] for phase in ("inference", "training_step")}


def main() -> None:
    """Prints one row for each network and target."""
    models, targets = Path(sys.argv[1]) / "models", sys.argv[2:] or TARGETS
    random = np.random.default_rng(0)
    print(f"{'network':<10}{'target':<12}{'inference':>14}{'training step':>16}   million instructions")
    for name, (file, shape, classes) in TINY.items():
        network = medyate.load(models / file)
        samples = random.integers(-128, 128, (4 * max(classes, 12), *shape)).astype(np.int8)
        for target in targets:
            found = counted(network, arrays(samples, classes), target)
            print(f"{name:<10}{target:<12}{found['inference'] / 1e6:>14.3f}{'':>16}", flush=True)
    torch.manual_seed(0)
    small = {
        "mlp": (medyate.load(mlp(), torch.zeros(1, 1, 8, 8)), random.integers(0, 17, (80, 8, 8, 1)) / 16, 10),
        "har": (medyate.load(har(), torch.zeros(1, 9, 128)), random.normal(size=(96, 128, 9)), 6),
    }
    for name, (network, samples, classes) in small.items():
        data = arrays(samples.astype(np.float32), classes)
        for target in targets:
            found = counted(network, data, target, pixels="raw", alpha=1.0)
            step = found["training_step"] / 1e6
            print(f"{name:<10}{target:<12}{found['inference'] / 1e6:>14.3f}{step:>16.3f}", flush=True)


if __name__ == "__main__":
    main()
