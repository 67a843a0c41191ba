# SPDX-License-Identifier: Apache-2.0
"""PReLU from PyTorch to the device: slopes that no grid was given for, in a network that is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Cli
from medyate.errors import GraphError
from medyate.ops.prelu import PRELU, PRelu, slope_steps
from nets import conv_norm, randomise


@pytest.mark.parametrize("slopes", [(0.1, 0.25, -0.03), (5.0, 0.001, 0.2), (0.0, 0.0, 0.0), (1e-43, 0.0, -1e-40)])
def test_slopes_are_within_half_a_step_of_what_they_are(slopes: tuple[float, ...]) -> None:
    steps, step = slope_steps(PRelu(slopes))
    assert max(map(abs, steps)) <= 127 and np.float32(step) == step > 0
    np.testing.assert_allclose(np.array(steps) * step, slopes, rtol=0, atol=step / 2 * 1.0001)


@pytest.mark.parametrize(
    "attrs",
    [
        PRelu((0.1, 0.2)),
        PRelu((0.1, np.nan, 0.2)),
        PRelu((0.1, 1e300, 0.2)),
        PRelu((0.1, 0.2, 300.0), 1.0),
        PRelu((0.1, 0.2, 0.3), -1.0),
    ],
)
def test_slopes_that_do_not_fit_are_refused(attrs: PRelu) -> None:
    with pytest.raises(GraphError, match="slopes"):
        PRELU.shape(attrs, ((4, 4, 3),))


class Sloped(nn.Module):
    """Slopes for every channel, steep and flat ones, below zero too."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_norm(1, 6, 3, 2), nn.PReLU(6), conv_norm(6, 8, 1), nn.PReLU(8))
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.classifier(self.layers(x).mean([2, 3]))
        return logits


def test_a_network_with_slopes_is_verified_and_learns_the_same_everywhere(run_cli: Cli, tmp_path: Path) -> None:
    network = Sloped()
    randomise(network, torch.Generator().manual_seed(2))
    for layer in network.modules():
        if isinstance(layer, nn.PReLU):
            layer.weight.data = torch.linspace(-0.3, 1.4, layer.num_parameters)
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(1, 1, 8, 8),)), tmp_path / "net.pt2")
    random = np.random.default_rng(8)
    y = np.arange(96) % 4
    x = random.integers(0, 120, (96, 8, 8, 1), np.uint8)
    for image, label in zip(x, y, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 100
    data = tmp_path / "data.npz"
    np.savez(data, x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    model = (tmp_path / "net.pt2", "--data", data)
    verified = run_cli("verify", *model)
    assert verified.code == 0, verified.out + verified.err
    logs = []
    for target, on in (("host", "host"), ("qemu-m7", "qemu")):
        out = tmp_path / target
        made = run_cli("compile", *model, "--target", target, "--ram", "24KiB", "-o", out)
        assert made.code == 0, made.err
        ran = run_cli("run", out, "--data", data, "--on", on, "--epochs", 4, "--rate", 0.1, "--no-measure")
        assert ran.code == 0, ran.err
        logs.append(json.loads((out / "run.json").read_text()))
    assert logs[0]["digest"] == logs[1]["digest"]
    assert logs[0]["accuracy_after"] > logs[0]["accuracy_before"]
