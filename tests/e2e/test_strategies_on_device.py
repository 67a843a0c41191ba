# SPDX-License-Identifier: Apache-2.0
"""The device selects as each strategy says: anew by norms that stay, or always the same channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from conftest import DIGITNET, Cli
from medyate.run.link import Link
from medyate.run.session import NORMS, WEIGHTS, Session, Training
from medyate.run.train import Compiled
from medyate.run.transport import HostProgram
from medyate.sample.policy import draw_selection
from medyate.strategies.problem import Settings
from tiny import compile_tiny, samples_of

EPOCHS, SEED = 4, 9


@dataclass(frozen=True)
class Seen:
    """What a training selected and left."""

    selections: list[tuple[int, ...]]
    norms: bytes
    weights: bytes


def trained(compiled: Compiled, flash: Path) -> Seen:
    samples, selections = samples_of(compiled), []
    with HostProgram(compiled.image, flash) as program:
        session = Session(Link(program, 20.0))
        session.begin(Training(0.05, EPOCHS, 8, "constant", seed=SEED))
        for epoch in range(EPOCHS):
            selections.append(tuple(int(c) for c in np.flatnonzero(session.selection())))
            for i in range(8 * epoch, 8 * (epoch + 1)):
                session.train(samples.x[i], int(samples.y[i]))
            session.commit()
        return Seen(selections, session.read(NORMS), session.read(WEIGHTS))


def costs(compiled: Compiled) -> list[int]:
    return [entry["record_bytes"] for entry in compiled.plan["candidates"] for _ in range(entry["channels"])]


@pytest.mark.parametrize("name", ["lara-trady", "trady", "d-full-random"])
def test_uniform_strategies_draw_anew_by_norms_that_stay(name: str, tmp_path: Path) -> None:
    compiled = compile_tiny(tmp_path, flash=None, strategy=name, ram_bytes=4600)
    plan, seen = compiled.plan, trained(compiled, tmp_path / "flash.bin")
    assert plan["selection"] == "uniform"
    if name == "d-full-random":
        assert len(plan["candidates"]) == plan["total_layers"]
    count = len(costs(compiled))
    wanted = [draw_selection([1] * count, costs(compiled), plan["epoch_bytes"], SEED, e) for e in range(EPOCHS)]
    assert seen.selections == wanted
    assert len(set(wanted)) == EPOCHS
    assert seen.norms == b""


@pytest.mark.parametrize("name", ["last-k", "s-full-random", "s-topk-random"])
def test_static_strategies_train_the_same_channels_in_every_epoch(name: str, tmp_path: Path) -> None:
    compiled = compile_tiny(tmp_path, flash=None, strategy=name, min_elements=200)
    plan, seen = compiled.plan, trained(compiled, tmp_path / "flash.bin")
    assert plan["selection"] == "fixed"
    assert set(seen.selections) == {seen.selections[0]}
    assert len(seen.selections[0]) == sum(entry["worst"] for entry in plan["candidates"])
    assert sum(costs(compiled)[c] for c in seen.selections[0]) == plan["epoch_bytes"] == plan["b_mem_bytes"]
    assert 0 < plan["b_mem_elements"] <= 200
    assert seen.norms == b""
    assert len(seen.weights) == plan["bank_weight_bytes"]


def test_what_is_given_is_part_of_the_digest(tmp_path: Path) -> None:
    digests = set()
    for number, boost in enumerate(("none", "lara", "softmax(0.5)")):
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = Settings(boost=boost)
        digests.add(compile_tiny(folder, flash=None, strategy="d-full-random", settings=settings).model["digest"])
    assert len(digests) == 3


def test_the_command_line_refuses_what_the_device_cannot_do(small_digits: Path, run_cli: Cli) -> None:
    given = ("plan", DIGITNET, "--data", small_digits, "--strategy")
    for arguments, word in {
        ("det-raw",): "does not run on the device",
        ("head", "--budget", "100"): "'head' already says",
        ("last-k",): "--min-elements",
        ("trady", "--set", "scheme=49kb"): "'trady' has no setting 'scheme=49kb'",
        ("trady", "--set", "k=none"): "above zero",
        ("trady", "--alpha", "0.5"): "does not use alpha",
        ("lara-trady", "--set", "boost=rank"): "k=N",
        ("su", "--set", "scheme=49"): "no schemes are published",
        ("su", "--set", "scheme=49kb", "--min-elements", "9"): "already says",
        ("medyate", "--head", "new,keep"): "contradicts itself",
        ("d-full-random", "--min-elements", "999999999"): "fewer elements",
        ("su", "--set", "scheme=49kb"): "no schemes are published",
        ("nobody",): "no strategy",
        ("bias", "--ram", "3KiB"): "Give about",
        ("bias", "--max-step-instructions", "1"): "too few for a step",
        ("full", "--budget", "100"): "'full' already says",
        ("bias", "--min-elements", "100"): "'bias' already says",
    }.items():
        ended = run_cli(*given, *arguments)
        assert ended.code == 2, arguments
        assert word in ended.err
        assert "Traceback" not in ended.err
