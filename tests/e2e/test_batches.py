# SPDX-License-Identifier: Apache-2.0
"""One update of several samples: when it comes, what it is, what it takes, and the same bits everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_bit_identical import digitnet, trace

from conftest import DIGITNET, Cli
from medyate.export.trained import read_compiled
from medyate.ledger import ChannelCost, align
from medyate.recipe import RATE
from medyate.run.generation import Generation, newest
from medyate.run.link import Link
from medyate.run.session import Session, Training
from medyate.run.train import Compiled, measure
from medyate.run.transport import HostProgram
from shared_files import Samples, field_digits
from tiny import compile_tiny, samples_of

BATCH, CLASSES, FEATURES = 4, 4, 12
TRAINING = Training(1.0, 4, 8, "constant", 0.0, seed=4, clip=0.3)
STATE = 4
"""The array whose first part is the head."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Compiled]:
    """By batch; with alpha 1 every channel is trained."""
    return {
        batch: compile_tiny(
            tmp_path_factory.mktemp(f"batch{batch}"), flash=None, alpha=1.0, head_start="keep", batch=batch
        )
        for batch in (1, BATCH)
    }


def start(compiled: Compiled, flash: Path, training: Training = TRAINING) -> tuple[HostProgram, Session, Samples]:
    program = HostProgram(compiled.image, flash)
    session = Session(Link(program, 20.0))
    session.begin(training)
    return program, session, samples_of(compiled)


def learned(compiled: Compiled, flash: Path) -> Generation:
    found: Generation = newest(read_compiled(compiled)[2], flash.read_bytes())
    return found


def head(session: Session) -> bytes:
    return session.read(STATE)[: 2 * CLASSES * FEATURES + 4 * CLASSES]


def learn(session: Session, samples: Samples, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        session.train(samples.x[i], int(samples.y[i]))


def test_the_update_comes_with_the_last_sample_of_a_batch(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    program, session, samples = start(tiny[BATCH], tmp_path / "flash.bin")
    with program:
        for batch in range(3):
            before = session.digests().deltas, head(session)
            for i in range(BATCH - 1):
                learn(session, samples, 1, BATCH * batch + i)
                assert (session.digests().deltas, head(session)) == before
            learn(session, samples, 1, BATCH * batch + BATCH - 1)
            assert session.digests().deltas != before[0]
            assert head(session) != before[1]


def test_a_batch_that_the_epoch_leaves_short_is_not_lost(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    program, session, samples = start(tiny[BATCH], tmp_path / "flash.bin")
    with program:
        before = head(session)
        learn(session, samples, 2)
        session.commit()
        assert head(session) != before
    factory, moved = read_compiled(tiny[BATCH])[1], 0
    for layer, weights in learned(tiny[BATCH], tmp_path / "flash.bin").weights.items():
        moved += int(np.abs(weights.astype(int) - factory[f"{layer}.weight"]).sum())
    assert moved > 10


def test_the_head_learns_from_the_mean_gradient(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    program, session, samples = start(tiny[BATCH], tmp_path / "flash.bin", replace(TRAINING, head_only=True))
    compiled, expected = tiny[BATCH], np.zeros((CLASSES, FEATURES))
    quant = read_compiled(compiled)[0].quant[read_compiled(compiled)[0].graph.output]
    with program:
        for i in range(2 * BATCH):  # from the second on, the gradient depends on the head
            if i == BATCH:
                weight = np.frombuffer(head(session), "<i2", CLASSES * FEATURES).reshape(CLASSES, FEATURES)
                expected = weight * 2.0**-12
            session.infer(samples.x[i])
            logits, features = np.array(session.logits()) / 65536, np.array(session.output(), float).ravel()
            session.train(samples.x[i], int(samples.y[i]))
            shares = np.exp(logits) / np.exp(logits).sum() - np.eye(CLASSES)[samples.y[i]]
            expected = expected - TRAINING.rate / BATCH * np.outer(shares, (features - quant.zero) * quant.scale)
        found = np.frombuffer(head(session), "<i2", CLASSES * FEATURES).reshape(CLASSES, FEATURES)
    # Each sample is rounded by itself, by less than a step.
    assert np.abs(found - expected * 2.0**12).max() < BATCH + 0.5
    assert np.abs(expected * 2.0**12).max() > 50 * BATCH


def test_a_batch_of_one_sample_is_that_sample(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    """The same sample BATCH times has the mean gradient that it has once, and its norm."""
    found = {}
    for batch in (1, BATCH):
        program, session, samples = start(tiny[batch], tmp_path / f"{batch}.bin")
        with program:
            for i in (2, 3, 2, 3):
                for _ in range(batch):
                    learn(session, samples, 1, i)
            session.commit()
        found[batch] = learned(tiny[batch], tmp_path / f"{batch}.bin").weights
    factory, moved = read_compiled(tiny[1])[1], 0
    for layer, weights in found[1].items():
        single = weights.astype(int) - factory[f"{layer}.weight"]
        several = found[BATCH][layer].astype(int) - factory[f"{layer}.weight"]
        assert np.abs(single - several).max() <= 3, "rounded by themselves, in each of four updates"
        moved = max(moved, int(np.abs(single).max()))
    assert moved > 15


def test_memory_is_as_planned(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    plans = {batch: compiled.plan for batch, compiled in tiny.items()}
    held = align(2 * CLASSES * BATCH, 4) + align(FEATURES * BATCH, 4)
    assert plans[BATCH]["state_bytes"] == plans[1]["state_bytes"] + held
    for one, several in zip(plans[1]["candidates"], plans[BATCH]["candidates"], strict=True):
        cost = ChannelCost(one["channel_weights"], one["channel_activations"])
        assert one["record_bytes"] == cost.record_bytes
        assert several["record_bytes"] == cost.record_bytes + align(2 * cost.weights, 4)
    marks = measure(tiny[BATCH], "host", samples_of(tiny[BATCH]).x[0])
    beyond = marks.planned + marks.epoch + marks.state - plans[BATCH]["arena_planned_bytes"]
    assert 0 <= beyond <= plans[BATCH]["workspace_bytes"]


def test_an_emulated_board_ends_like_the_host(tmp_path: Path) -> None:
    traces = []
    for target in ("host", "qemu-m7"):
        compiled = digitnet(tmp_path / target, target, batch=8)
        traces.append(trace(compiled, field_digits(), tmp_path / f"{target}.bin", steps=28))
    assert traces[0] == traces[1]


def test_a_restart_goes_on_with_the_next_batch(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    kept = []
    for restarts in (False, True):
        flash = tmp_path / f"{restarts}.bin"
        program, session, samples = start(tiny[BATCH], flash)
        for epoch in range(3):
            for i in range(8 - epoch):  # the last batch of an epoch is short
                session.train(samples.x[i], int(samples.y[i]))
            session.commit()
            if restarts:
                session.exit()
                program.close()
                program, session, _ = start(tiny[BATCH], flash, replace(TRAINING, fresh=False))
        program.close()
        kept.append(flash.read_bytes())
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    "limits", [{"weights": "ram"}, {"head": "sampled"}, {"grad_bits": 16, "sample": "rows"}], ids=str
)
def test_batches_go_with_every_place_of_weights(limits: dict[str, object], tmp_path: Path) -> None:
    """Twice the same, and it learns."""
    compiled = compile_tiny(tmp_path, flash=None, alpha=1.0, head_start="keep", batch=BATCH, **limits)
    seen = []
    for flash in ("a.bin", "b.bin"):
        program, session, samples = start(compiled, tmp_path / flash)
        with program:
            losses = []
            for _ in range(3):
                losses += [session.train(samples.x[i], int(samples.y[i])).loss for i in range(6)]
                session.commit()
            seen.append((losses, session.digests()))
    assert seen[0] == seen[1]
    assert seen[0][0][-1] < seen[0][0][0]


def test_what_a_forced_selection_interrupts_is_lost(tiny: dict[int, Compiled], tmp_path: Path) -> None:
    program, session, samples = start(tiny[BATCH], tmp_path / "flash.bin")
    with program:
        before = head(session)
        learn(session, samples, 2)
        session.force([c["worst"] for c in tiny[BATCH].plan["candidates"]])
        session.commit()
        assert head(session) == before
    factory = read_compiled(tiny[BATCH])[1]
    for layer, weights in learned(tiny[BATCH], tmp_path / "flash.bin").weights.items():
        assert np.array_equal(weights, factory[f"{layer}.weight"])


def test_trials_need_a_whole_batch(run_cli: Cli, tmp_path: Path) -> None:
    compiled = compile_tiny(tmp_path, flash=None, batch=32)
    given = ("run", compiled.folder, "--data", tmp_path / "data.npz", "--limit", 20)
    given = (*given, "--no-measure", "--json", "--fresh")
    whole, short = run_cli(*given, "--epochs", 4), run_cli(*given, "--epochs", 1)
    assert (whole.code, short.code) == (0, 0)
    assert "trials of 64 steps" in whole.err and json.loads(whole.out)["rate_trials"] != []
    assert "too few samples to try others" in short.err and json.loads(short.out)["rate"] == RATE


@pytest.mark.parametrize("batch", [0, 3, 128])
def test_a_batch_that_the_device_does_not_know_is_refused(run_cli: Cli, batch: int) -> None:
    result = run_cli("plan", DIGITNET, "--data", "digits", "--batch", str(batch))
    assert result.code == 2
    assert "power of two" in result.err
