# SPDX-License-Identifier: Apache-2.0
"""However a network ends, its head is found, trained, and what stood behind it comes out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Cli
from medyate import frontends
from medyate.check import check
from medyate.export.flatfile import Steps
from medyate.frontends import torch as torch_frontend
from medyate.passes.pipeline import normalise
from medyate.real import Network, channels_last
from medyate.stages import silent
from tflite_nets import SHARES, Net, tail

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
ENDS: dict[str, tuple[Callable[[], Net], str]] = {
    "uint8 behind softmax": (
        lambda: tail().softmax().op("QUANTIZE", (1, 3), steps=Steps((1 / 256,), (0,)), dtype="uint8"),
        "softmax",
    ),
    "sigmoid": (lambda: tail(1).op("LOGISTIC", (1, 1), steps=SHARES), "sigmoid"),
    "sigmoids": (lambda: tail(3).op("LOGISTIC", (1, 3), steps=SHARES), "softmax"),
    "clamp": (lambda: Net().conv(6).mean().linear(3, activation=1), ""),
    "convolution, clamp, mean": (lambda: Net().conv(6).conv(3, 1, activation=1).mean().softmax(), "softmax"),
    "cells": (lambda: Net().conv(6).conv(3, 1).softmax(), "softmax"),
    "features": (lambda: Net().conv(6).mean(), ""),
    "map": (lambda: Net().conv(6), ""),
}


def dataset(path: Path, classes: int) -> Path:
    """Classes that differ by brightness."""
    random = np.random.default_rng(2)
    y = np.arange(96) % classes
    x = np.clip(random.integers(0, 60, (96, 8, 8, 3)) + 60 * y[:, None, None, None], 0, 255).astype(np.uint8)
    np.savez(path, x_train=x[:72], y_train=y[:72], x_test=x[72:], y_test=y[72:])
    return path


def trained(model: Path, classes: int, head: str, run_cli: Cli, folder: Path) -> Path:
    """Compiled and trained for a few epochs: the loss has fallen."""
    source = dataset(folder / "data.npz", classes)
    made = run_cli("compile", model, "--data", source, "--ram", "64KiB", "--head", head, "-o", folder / "out")
    assert made.code == 0, made.err
    ran = run_cli("run", folder / "out", "--data", source, "--epochs", 2, "--no-measure", "--evaluate-at-end", "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["loss_after"] < result["loss_before"]
    return folder / "out"


@pytest.mark.parametrize("name", ENDS)
def test_a_network_is_trained_and_comes_out_again(name: str, run_cli: Cli, tmp_path: Path) -> None:
    build, link = ENDS[name]
    model = build().save(tmp_path / "net.tflite")
    assert check(model, "host", 20, None, "auto", 0, silent).match
    out = trained(model, 2 if name == "sigmoid" else 3, "new", run_cli, tmp_path)
    for suffix in (".tflite", ".onnx"):
        path = tmp_path / f"trained{suffix}"
        ended = run_cli("export", out, "-o", path)
        assert ended.code == 0, ended.err
        assert check(path, "host", 20, None, "auto", 0, silent).match
        graph = frontends.load(path).graph
        last = graph.nodes[-1]
        assert link == (getattr(last.attrs, "kind", last.op) if link else "")
        assert graph.shapes[graph.output] == (1, 1, 1 if name == "sigmoid" else 3)


def test_a_binary_classifier_is_kept_as_two_classes(run_cli: Cli, tmp_path: Path) -> None:
    model = ENDS["sigmoid"][0]().save(tmp_path / "net.tflite")
    out = trained(model, 2, "keep", run_cli, tmp_path)
    back = tmp_path / "back.tflite"
    assert run_cli("export", out, "-o", back).code == 0
    found = normalise(frontends.load(back))
    assert found.ending.link == "sigmoid" and found.classifier is not None and len(found.classifier[1]) == 1


@pytest.mark.parametrize("name", ["cells", "features", "convolution, clamp, mean"])
def test_what_cannot_be_kept_is_said(name: str, run_cli: Cli, tmp_path: Path) -> None:
    model = ENDS[name][0]().save(tmp_path / "net.tflite")
    source = dataset(tmp_path / "data.npz", 3)
    ended = run_cli("compile", model, "--data", source, "--ram", "64KiB", "--head", "keep", "-o", tmp_path / "out")
    assert ended.code == 2
    assert normalise(frontends.load(model)).ending.keeps in " ".join(ended.err.split())
    assert "--head new" in ended.err


BEHIND: dict[str, tuple[nn.Module, str]] = {
    "mean": (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "",
    ),
    "factors": (nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 6), nn.BatchNorm2d(4), nn.Flatten()), ""),
    "sigmoid": (nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4), nn.Sigmoid()), "sigmoid"),
}


@pytest.mark.parametrize("name", BEHIND)
def test_backbone_classifier_and_link_are_the_network(name: str) -> None:
    module, link = BEHIND[name]
    found = normalise(torch_frontend.from_module(module, IMAGE, "net"))
    assert found.ending.link == link and found.classifier is not None
    features = channels_last(Network(found.graph, found.weights)(IMAGE))
    weight, bias = map(torch.tensor, found.classifier)
    logits = features @ weight.T + bias
    outputs = logits.sigmoid() if link else logits
    assert torch.allclose(outputs, module.eval()(IMAGE).flatten(1), atol=1e-5)
