# SPDX-License-Identifier: Apache-2.0
"""Trainings of digitnet that work give no warning; at absurd rates, and on labels that mean nothing, they do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import DIGITNET, Cli
from medyate.chance import chance
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.signs import Known, signs
from medyate.run.train import Compiled, RunOptions, run
from medyate.stages import Options, compile_model
from shared_files import field_digits

SAMPLES, TESTED = 200, 200


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """digitnet in its field condition, with a new head in 24 KiB."""
    out = tmp_path_factory.mktemp("field")
    compile_model(DIGITNET, field_digits(), Options("host", Limits(24 << 10), rank_epochs=1), out)
    return Compiled.read(out)


Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(field: Compiled, tmp_path: Path) -> Train:
    """A run of three epochs."""

    def call(rate: float, clip: float = 0.3, *, shuffled: bool = False, **more: Any) -> dict[str, Any]:
        data = field_digits()
        data = replace(data, x_test=data.x_test[:TESTED], y_test=data.y_test[:TESTED])
        if shuffled:
            data = replace(data, y_train=np.random.default_rng(1).permutation(data.y_train))
        training = Training(rate, 3, SAMPLES, clip=clip)
        options = RunOptions("host", training, tmp_path / "flash.bin", evaluate_each=False, measure=False, **more)
        return run(field, data, options, lambda _: None)

    return call


def keys(log: Mapping[str, Any]) -> set[str]:
    assert all(sign["text"] and set(sign) == {"key", "text"} for sign in log["warnings"])
    return {sign["key"] for sign in log["warnings"]}


@pytest.mark.parametrize(("rate", "clip"), [(0.03, 0.3), (0.1, 0.3), (0.03, 0.0)])
def test_a_training_that_works_gives_no_sign(train: Train, rate: float, clip: float) -> None:
    log = train(rate, clip, head_only_accuracy=0.6)
    assert keys(log) == set()
    assert log["accuracy_after"] > 0.7


@pytest.mark.parametrize(
    ("rate", "clip", "expected"),
    [
        (900.0, 0.3, {"high_loss", "guessing", "no_better", "clipped_gradients"}),
        (100.0, 0.0, {"high_loss", "guessing", "no_better", "clipped_gradients"}),
        (10.0, 0.3, {"high_loss", "guessing", "no_better", "clipped_gradients"}),
        (1e-6, 0.3, {"guessing", "no_better"}),
    ],
)
def test_absurd_rates(train: Train, rate: float, clip: float, expected: set[str]) -> None:
    assert keys(train(rate, clip)) == expected


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_labels_that_mean_nothing(train: Train, rate: float) -> None:
    assert {"guessing", "no_better"} <= keys(train(rate, shuffled=True))


def test_less_than_the_head_alone(train: Train) -> None:
    log = train(0.003, head_only_accuracy=0.95)
    assert keys(log) == {"below_head_only"}
    assert log["accuracy_head_only"] == 0.95
    text = log["warnings"][0]["text"]
    assert "0.9500" in text and f"{log['accuracy_after']:.4f}" in text


def test_vectors_that_are_not_learned() -> None:
    known = Known(4, True, 100, lambda _: 0, None)
    entry = {"epoch": 1, "loss": 2.0, "saturations": 0, "selected": []}
    log = {
        "accuracy_before": None,
        "accuracy_after": None,
        "accuracy_head_only": None,
        "loss_before": 1.0,
        "head_only": False,
        "epoch_samples": 10,
    }
    found = signs({**log, "loss_after": 1.2, "history": [entry]}, known)
    assert [sign.key for sign in found] == ["high_loss", "no_better"]
    assert signs({**log, "loss_after": 0.5, "history": [{**entry, "loss": 0.7}]}, known) == ()


def test_noise_is_two_deviations_of_a_difference() -> None:
    random = np.random.default_rng(0)
    differences = random.binomial(500, 0.8, 20000) / 500 - random.binomial(500, 0.8, 20000) / 500
    assert chance(0.8, 0.8, 500) == pytest.approx(2 * differences.std(), rel=0.02)


def test_a_network_that_nobody_trained_is_named_and_the_head_is_remembered(
    small_digits: Path, run_cli: Cli, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 16, 16),)), tmp_path / "fresh.pt2")
    out = tmp_path / "out"
    assert run_cli("compile", tmp_path / "fresh.pt2", "--data", small_digits, "-o", out).code == 0
    given = ("run", out, "--data", small_digits, "--rate", 0.01, "--epochs", 2, "--no-measure")
    ended = run_cli(*given, "--head-only")
    assert ended.code == 0, ended.err
    assert "warning: 100% of the network's weights look as if they had never been trained" in ended.out
    head = json.loads((out / "run.json").read_text())
    assert head["accuracy_head_only"] is None
    for rate in (0.01, 0.02):  # the second log knows it from the first
        ended = run_cli(*given, "--fresh", "--rate", rate, "--json")
        log = json.loads(ended.out)
        assert "untrained_weights" in keys(log)
        assert log["accuracy_head_only"] == head["accuracy_after"]
    shutil.rmtree(out)
