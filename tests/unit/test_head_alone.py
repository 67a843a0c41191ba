# SPDX-License-Identifier: Apache-2.0
"""Networks with no layer to train but the last, and the strategy that trains no other, from plan to a trained head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import DIGITNET, Cli

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "pool": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), (3, 8, 8)),
    "linear": (nn.Sequential(nn.Linear(16, 4)), (16,)),
    "flat": (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (3, 8, 8)),
    "clamped": (nn.Sequential(nn.ReLU(), nn.Linear(16, 4)), (16,)),
}


def files(name: str, folder: Path) -> tuple[Path, Path]:
    """The network, and four classes that it can tell apart."""
    module, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, samples = folder / f"{name}.pt2", folder / "data.npz"
    torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, *shape),)), model)
    y, rng = np.arange(80) % 4, np.random.default_rng(0)
    x = rng.normal(0, 0.2, (80, *(shape[1:] + shape[:1] if len(shape) == 3 else shape))).astype(np.float32)
    for sample, label in zip(x, y, strict=True):
        sample[..., label % 3] += 1 if label < 3 else 0
    np.savez(samples, x=x, y=y)
    return model, samples


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_is_a_head_plans_compiles_and_trains(name: str, tmp_path: Path, run_cli: Cli) -> None:
    model, samples = files(name, tmp_path)
    given = (model, "--data", samples, "--pixels", "raw", "--ram", "16KiB")
    planned = run_cli("plan", *given, "--json")
    assert planned.code == 0, planned.err
    assert "the head alone is trained" in planned.err
    content = json.loads(planned.out)
    assert (content["total_layers"], content["candidates"], content["depth"]) == (0, [], 0)
    assert run_cli("plan", *given).code == 0
    frontier = run_cli("plan", *given, "--frontier", "--json")
    assert frontier.code == 0, frontier.err
    least = json.loads(frontier.out)["smallest_ram_bytes"]
    assert run_cli("plan", *given[:-1], least).code == 0
    assert run_cli("plan", *given[:-1], least - 512).code == 2
    assert run_cli("compile", *given, "-o", tmp_path / "out").code == 0
    ran = run_cli("run", tmp_path / "out", "--data", samples, "--epochs", 8, "--rate", 0.1, "--json")
    assert ran.code == 0, ran.err
    log = json.loads(ran.out)
    assert log["accuracy_after"] > 0.9 > log["accuracy_before"]
    assert log["arena_measured_bytes"] <= log["arena_planned_bytes"]
    assert run_cli("report", tmp_path / "out").code == 0
    exported = run_cli("export", tmp_path / "out", "-o", tmp_path / "trained.onnx")
    assert exported.code == 0, exported.err


def test_the_head_strategy_says_the_least_ram_for_a_head(tmp_path: Path, small_digits: Path, run_cli: Cli) -> None:
    given = (DIGITNET, "--data", small_digits, "--strategy", "head")
    found = {}
    for strategy in ("head", "medyate"):
        frontier = run_cli("plan", *given[:-1], strategy, "--frontier", "--json")
        assert frontier.code == 0, frontier.err
        found[strategy] = json.loads(frontier.out)["smallest_ram_bytes"]
    assert found["head"] < found["medyate"]
    made = run_cli("compile", *given, "--ram", found["head"], "-o", tmp_path / "out", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["candidates"] == []
    ran = run_cli("run", tmp_path / "out", "--data", small_digits, "--epochs", 4, "--rate", 0.1, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["accuracy_after"] > 0.5


def test_elements_of_no_layer_cannot_be_asked_for(tmp_path: Path, run_cli: Cli) -> None:
    model, samples = files("linear", tmp_path)
    ended = run_cli("plan", model, "--data", samples, "--pixels", "raw", "--min-elements", 10)
    assert ended.code == 2 and "no layer to train but its last" in ended.err


def test_a_refused_plan_keeps_the_ranking_which_then_costs_nothing(
    tmp_path: Path, small_digits: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, out = (DIGITNET, "--data", small_digits), tmp_path / "out"
    assert run_cli("compile", *given, "--ram", "24KiB", "-o", tmp_path / "whole").code == 0
    for command in ("compile", "plan"):
        ended = run_cli(command, *given, "--ram", "8KiB", "-o", out)
        assert ended.code == 2 and str(out / "04_ranking.json") in ended.err
        names = {file.name for file in out.iterdir()}
        assert names >= {"01_import.json", "02_normalised.npz", "03_quantised.json", "04_ranking.json"}
        assert "05_plan.json" not in names and "model.json" not in names
    ranking = out / "04_ranking.json"
    assert ranking.read_bytes() == (tmp_path / "whole" / "04_ranking.json").read_bytes()

    def train(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be trained again")

    monkeypatch.setattr("medyate.stages.collect", train)
    again = run_cli("compile", *given, "--ram", "24KiB", "--ranking", ranking, "-o", tmp_path / "again")
    assert again.code == 0, again.err
    digests = [json.loads((tmp_path / name / "model.json").read_text())["digest"] for name in ("whole", "again")]
    assert digests[0] == digests[1]
    before = (tmp_path / "whole" / "model.json").read_bytes()
    assert run_cli("compile", *given, "--ram", "8KiB", "--ranking", ranking, "-o", tmp_path / "whole").code == 2
    assert (tmp_path / "whole" / "model.json").read_bytes() == before, "a compiled model is left alone"
