# SPDX-License-Identifier: Apache-2.0
"""Biases trained on the device: alone, with channels, over epochs, after a restart, in an exported network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import DIGITNET, Cli
from medyate import datasets
from medyate.export.trained import read_compiled
from medyate.ledger import align
from medyate.plan.budget import Limits
from medyate.quantize.apply import reference
from medyate.run.generation import newest
from medyate.run.session import Training
from medyate.run.train import Compiled, connect, int8_samples, measure
from medyate.stages import Options, compile_model
from medyate.strategies.problem import Settings
from tiny import compile_tiny, samples_of

TRAINING = Training(0.05, 4, 32, "constant", 0.0, seed=3)
STRATEGIES = ("bias", "full", "last-k")


@pytest.fixture(scope="module", params=[(name, bits) for name in STRATEGIES for bits in (8, 16)], ids=str)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A network that trains biases."""
    name, bits = request.param
    settings = Settings(k=1) if name == "last-k" else None
    folder = tmp_path_factory.mktemp("biases")
    return compile_tiny(folder, flash=None, strategy=name, settings=settings, head_start="keep", grad_bits=bits)


def trained(compiled: Compiled, flash: Path, epochs: int = 3, restarts: bool = False, on: str = "host") -> list[float]:
    """Mean losses of some epochs."""
    samples, losses, done = samples_of(compiled), [], 0
    while done < epochs:
        with connect(compiled, on, flash) as session:
            session.begin(replace(TRAINING, fresh=done == 0))
            for _ in range(1 if restarts else epochs):
                results = [session.train(samples.x[i], int(samples.y[i])) for i in range(32)]
                losses.append(float(np.mean([result.loss for result in results])))
                session.commit()
                done += 1
    return losses


def test_training_moves_the_biases_that_the_strategy_names(compiled: Compiled, tmp_path: Path) -> None:
    losses = trained(compiled, tmp_path / "flash.bin")
    assert losses[-1] < losses[0]
    _, weights, facts = read_compiled(compiled)
    found = newest(facts, (tmp_path / "flash.bin").read_bytes())
    layers = [node.name for node in read_compiled(compiled)[0].graph if f"{node.name}.bias" in weights]
    named = {"bias": layers, "full": layers, "last-k": layers[-1:]}[compiled.model["strategy"]]
    assert list(found.biases) == named
    assert all((found.biases[layer] != weights[f"{layer}.bias"]).any() for layer in named)
    assert bool(found.weights) == (compiled.model["strategy"] != "bias")


def test_the_device_computes_with_what_it_has_stored(compiled: Compiled, tmp_path: Path) -> None:
    trained(compiled, tmp_path / "flash.bin")
    qgraph, weights, facts = read_compiled(compiled)
    found = newest(facts, (tmp_path / "flash.bin").read_bytes())
    learned = {f"{layer}.weight": array for layer, array in found.weights.items()}
    learned |= {f"{layer}.bias": array for layer, array in found.biases.items()}
    samples = samples_of(compiled).x[:8]
    with connect(compiled, "host", tmp_path / "flash.bin") as session:
        session.begin(replace(TRAINING, fresh=False))
        outputs = []
        for sample in samples:
            session.infer(sample)
            outputs.append(session.output().ravel())
    expected = reference(qgraph, {**weights, **learned}, samples).reshape(len(samples), -1)
    assert np.array_equal(np.stack(outputs), expected)
    assert not np.array_equal(expected, reference(qgraph, weights, samples).reshape(len(samples), -1))


def test_a_restart_between_epochs_changes_nothing(compiled: Compiled, tmp_path: Path) -> None:
    assert trained(compiled, tmp_path / "a.bin") == trained(compiled, tmp_path / "b.bin", restarts=True)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_head_only_leaves_them(compiled: Compiled, tmp_path: Path) -> None:
    samples = samples_of(compiled)
    with connect(compiled, "host", tmp_path / "flash.bin") as session:
        session.begin(replace(TRAINING, head_only=True))
        for i in range(8):
            session.train(samples.x[i], int(samples.y[i]))
        session.commit()
    _, weights, facts = read_compiled(compiled)
    found = newest(facts, (tmp_path / "flash.bin").read_bytes())
    assert all(np.array_equal(array, weights[f"{layer}.bias"]) for layer, array in found.biases.items())


def test_memory_is_as_planned(compiled: Compiled) -> None:
    marks = measure(compiled, "host", samples_of(compiled).x[0])
    beyond = marks.planned + marks.epoch + marks.state - compiled.plan["arena_planned_bytes"]
    assert 0 <= beyond <= compiled.plan["workspace_bytes"]
    count = sum(entry["count"] for entry in compiled.plan["biases"])
    assert count == {"bias": 24, "full": 24, "last-k": 12}[compiled.model["strategy"]]
    assert compiled.plan["state_bytes"] >= align(4 * count, 4)


@pytest.mark.parametrize("schedule", ["layer", "stream"])
def test_an_emulated_board_ends_like_the_host_whatever_the_schedule(schedule: str, tmp_path: Path) -> None:
    dataset, seen = datasets.load("digits"), []
    for target, on, order in (("host", "host", "layer"), ("qemu-m7", "qemu", schedule)):
        out = tmp_path / target
        limits = Limits(128 << 10, schedule=order)
        options = Options(target, limits, rank_epochs=1, head="keep", builder="make", strategy="full")
        compile_model(DIGITNET, dataset, options, out)
        compiled = Compiled.read(out)
        samples, _ = int8_samples(compiled, dataset)
        with connect(compiled, on, tmp_path / f"{target}.bin") as session:
            session.begin(replace(TRAINING, epoch_samples=24))
            losses = [session.train(samples[i], int(dataset.y_train[i])).loss for i in range(24)]
            session.commit()
            digests = session.digests()
            seen.append((losses, digests.losses, digests.state, digests.deltas))
    assert seen[0] == seen[1]


def test_a_plan_of_biases_alone_is_printed(run_cli: Cli, small_digits: Path, tmp_path: Path) -> None:
    given = (DIGITNET, "--data", small_digits, "--strategy", "bias", "--ram", "64KiB")
    assert run_cli("plan", *given, "-o", tmp_path / "plan").code == 0
    assert (tmp_path / "plan" / "memory.png").exists()
    assert run_cli("plan", *given, "--frontier").code == 0
    out = tmp_path / "out"
    assert run_cli("compile", *given, "-o", out).code == 0
    assert run_cli("run", out, "--data", small_digits, "--rate", 0.01, "--epochs", 1).code == 0
    assert run_cli("export", out, "-o", tmp_path / "trained.tflite").code == 0
    assert run_cli("verify", tmp_path / "trained.tflite").code == 0
    assert run_cli("report", out).code == 0
