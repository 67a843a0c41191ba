# SPDX-License-Identifier: Apache-2.0
"""Weights in RAM train the same integers as weights in flash, and nothing is written to flash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import DIGITNET, Cli
from medyate import datasets
from medyate.errors import DataError, LinkError
from medyate.ledger import align
from medyate.plan.budget import Limits
from medyate.run.link import Link
from medyate.run.session import BANK, NORMS, SELECTION, STATE, WEIGHTS, Session, Training
from medyate.run.train import Compiled, RunOptions, measure, run
from medyate.run.transport import HostProgram
from medyate.stages import Options, compile_model
from shared_files import Samples
from tiny import compile_tiny, samples_of

EPOCH_SAMPLES = 20
TRAINING = Training(0.02, 4, EPOCH_SAMPLES, "cosine", seed=6, flip=True)
ENOUGH = Limits(256 << 10)
"""So much that the weights do not change what is trained."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    compiled = {}
    for weights in ("flash", "ram"):
        folder = tmp_path_factory.mktemp(weights)
        limits = Limits(ENOUGH.ram_bytes, weights=weights)
        compile_model(DIGITNET, datasets.load("digits"), Options("host", limits, rank_epochs=1), folder)
        compiled[weights] = Compiled.read(folder)
    return compiled


def trace(session: Session, samples: Samples) -> list[object]:
    """All that an epoch leaves, epoch by epoch."""
    session.begin(TRAINING)
    found: list[object] = []
    for epoch in range(TRAINING.epochs):
        for i in range(EPOCH_SAMPLES * epoch, EPOCH_SAMPLES * (epoch + 1)):
            result = session.train(samples.x[i], int(samples.y[i]))
            found.append((result.loss, result.prediction))
        found.append(session.digests().deltas)
        session.commit()
        found += [session.read(kind) for kind in (STATE, SELECTION, NORMS, WEIGHTS)]
        digests = session.digests()
        found.append((digests.losses, digests.selections, digests.state))
    return found


def test_the_same_integers_without_flash(both: dict[str, Compiled], samples: Samples, tmp_path: Path) -> None:
    traces = {}
    for weights, compiled in both.items():
        with HostProgram(compiled.image, tmp_path / weights) as program:
            session = Session(Link(program, 20.0))
            traces[weights] = trace(session, samples)
            flash = session.digests().flash
            assert (flash == 0) == (weights == "ram")
    assert traces["flash"] == traces["ram"]
    assert len({bytes(w) for w in traces["ram"] if isinstance(w, bytes)}) > 3 * TRAINING.epochs  # they do change
    assert (tmp_path / "flash").exists() and not (tmp_path / "ram").exists()


def test_the_ledger_counts_them(both: dict[str, Compiled]) -> None:
    flash, ram = both["flash"].plan, both["ram"].plan
    assert [c["layer"] for c in flash["candidates"]] == [c["layer"] for c in ram["candidates"]]
    assert ram["bank_weight_bytes"] == flash["bank_weight_bytes"] > 40000
    assert ram["state_bytes"] - flash["state_bytes"] == align(ram["bank_weight_bytes"], 4)
    assert ram["arena_bytes"] - flash["arena_bytes"] == align(ram["bank_weight_bytes"], 4)
    assert ram["table"][-1]["left_bytes"] < flash["table"][-1]["left_bytes"]


def test_what_was_learned_ends_with_the_program(both: dict[str, Compiled], samples: Samples, tmp_path: Path) -> None:
    with HostProgram(both["ram"].image, tmp_path / "flash.bin") as program:
        session = Session(Link(program, 20.0))
        session.begin(TRAINING)
        factory = session.read(STATE), session.read(WEIGHTS)
        assert session.read(BANK) == b""

        def learn() -> None:
            for i in range(8):
                session.train(samples.x[i], int(samples.y[i]))
            assert session.commit().epochs == 1
            assert (session.read(STATE), session.read(WEIGHTS)) != factory
            assert session.read(BANK) == b""

        for forget in (session.roll_back, session.reset, lambda: None):
            learn()
            if forget == session.roll_back:
                with pytest.raises(LinkError, match="no valid generation"):
                    forget()
            else:
                forget()
            position = session.begin(Training(0.02, 4, EPOCH_SAMPLES, seed=6, fresh=False))
            assert (position.generation, position.epochs) == (0, 0)
            assert (session.read(STATE), session.read(WEIGHTS)) == factory


def test_a_target_needs_the_memory_that_was_planned(tmp_path: Path) -> None:
    compiled = compile_tiny(tmp_path, "qemu-m7", weights="ram", flash=None)
    marks = measure(compiled, "qemu", samples_of(compiled).x[0])
    beyond = marks.planned + marks.epoch + marks.state - compiled.plan["arena_planned_bytes"]
    assert 0 <= beyond <= compiled.plan["workspace_bytes"]
    assert marks.state == compiled.plan["state_bytes"]


def test_the_command_line_says_what_it_costs_and_refuses_what_cannot_be(
    both: dict[str, Compiled], small_digits: Path, run_cli: Cli, tmp_path: Path
) -> None:
    plan = ("plan", DIGITNET, "--data", small_digits, "--ram", "96KiB", "--weights")
    ended = run_cli(*plan, "ram")
    assert ended.code == 0 and "weights of the candidate layers in RAM: " in ended.out, ended.err
    costs = {w: json.loads(run_cli(*plan, w, "--json").out) for w in ("ram", "flash")}
    assert costs["ram"]["weights"] == "ram"
    assert costs["ram"]["bank_weight_bytes"] < costs["ram"]["state_bytes"]
    assert run_cli(*plan, "moon").code == 2
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--ram", "6KiB", "--weights", "ram")
    assert ended.code == 2 and "head, norms and weights" in ended.err

    folder = both["ram"].folder
    ended = run_cli("run", folder, "--data", small_digits, "--rate", 0.01, "--epochs", 1, "--no-measure")
    assert ended.code == 0, ended.err
    assert json.loads((folder / "run.json").read_text())["flash"] is None
    ended = run_cli("run", folder, "--data", small_digits, "--resume")
    assert ended.code == 2 and "no training outlives its program" in ended.err
    ended = run_cli("export", folder, "-o", tmp_path / "a.onnx")
    assert ended.code == 2 and "keeps its weights in RAM" in ended.err
    training = Training(0.02, 4, EPOCH_SAMPLES, fresh=False)
    with pytest.raises(DataError, match="weights in RAM"):
        run(both["ram"], datasets.load(str(small_digits)), RunOptions("host", training, tmp_path / "f"), lambda _: None)


@pytest.mark.parametrize("strategy", ["head", "bias"])
def test_a_model_without_candidates_writes_to_no_flash_either(strategy: str, run_cli: Cli, tmp_path: Path) -> None:
    """There are no weights to keep in RAM, and no banks."""
    out = tmp_path / "out"
    common = ("--data", "digits")
    made = run_cli(
        "compile", DIGITNET, *common, "--ram", "64KiB", "--weights", "ram", "--strategy", strategy, "-o", out
    )
    assert made.code == 0, made.err
    for options in ((), ("--no-guard",)):
        limited = ("--epochs", 2, "--limit", 60, "--rate", 0.05, "--no-measure", "--json", *options)
        ran = run_cli("run", out, *common, *limited)
        assert ran.code == 0, ran.err
        log = json.loads(ran.out)
        assert log["flash"] is None and log["epochs"] == 2
        assert log["accuracy_after"] > log["accuracy_before"]
    assert not (out / "flash.bin").exists() or set((out / "flash.bin").read_bytes()[:4096]) == {0xFF}
