# SPDX-License-Identifier: Apache-2.0
"""A head of sampled inputs: the whole head's integers where all are sampled, and only some columns where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import DIGITNET, Cli
from medyate import rng
from medyate.export.trained import read_compiled
from medyate.ledger import align
from medyate.run.generation import newest
from medyate.run.link import Link
from medyate.run.session import LOGITS, Session, Training
from medyate.run.train import Compiled, measure
from medyate.run.transport import HostProgram
from tiny import compile_tiny, samples_of

EPOCHS, STEPS, CLASSES, FEATURES = 4, 10, 4, 12
TRAINING = Training(0.05, EPOCHS, STEPS, "constant", seed=4)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    """With alpha 1 every channel is trained, whatever the head takes, and every column of a sampled head."""
    kinds = {"full": ("full", 1.0), "all": ("sampled", 1.0), "some": ("sampled", 0.25)}
    return {
        kind: compile_tiny(tmp_path_factory.mktemp(kind), flash=None, head=head, alpha=alpha)
        for kind, (head, alpha) in kinds.items()
    }


def head_in(compiled: Compiled, flash: Path) -> np.ndarray:
    """(classes, features) of the newest generation."""
    return newest(read_compiled(compiled)[2], flash.read_bytes()).head_weight


def one_epoch(session: Session, compiled: Compiled, epoch: int) -> list[object]:
    """All that was computed."""
    samples, seen = samples_of(compiled), []
    for i in range(epoch * STEPS, (epoch + 1) * STEPS):
        result = session.train(samples.x[i % 32], int(samples.y[i % 32]))
        seen += [result.loss, result.prediction, session.read(LOGITS)]
    session.commit()
    return [*seen, session.selection().tolist()]


def trained(compiled: Compiled, flash: Path) -> tuple[list[object], list[np.ndarray]]:
    """(all that was computed, heads after each epoch)."""
    seen, heads = [], []
    with HostProgram(compiled.image, flash) as program:
        session = Session(Link(program, 20.0))
        session.begin(TRAINING)
        for epoch in range(EPOCHS):
            seen += one_epoch(session, compiled, epoch)
            heads.append(head_in(compiled, flash))
    return seen, heads


def columns(epoch: int, count: int) -> list[int]:
    """Which features an epoch trains."""
    key, found = rng.key(TRAINING.seed, rng.COLUMNS, epoch, 0), []
    for k in range(FEATURES):
        if rng.draw(key, k) * (FEATURES - k) >> 32 < count - len(found):
            found.append(k)
    return found


def test_all_columns_train_as_the_whole_head_does(heads: dict[str, Compiled], tmp_path: Path) -> None:
    full = trained(heads["full"], tmp_path / "full.bin")
    sampled = trained(heads["all"], tmp_path / "sampled.bin")
    assert heads["all"].plan["head_columns"] == FEATURES
    assert full[0] == sampled[0]
    assert all(np.array_equal(a, b) for a, b in zip(full[1], sampled[1], strict=True))
    assert all(head.any() for head in full[1])


def test_only_the_drawn_columns_change(heads: dict[str, Compiled], tmp_path: Path) -> None:
    _, found = trained(heads["some"], tmp_path / "flash.bin")
    before, moved = np.zeros((CLASSES, FEATURES), np.int16), set()
    for epoch, head in enumerate(found):
        changed = set(np.flatnonzero((head != before).any(axis=0)).tolist())
        drawn = columns(epoch, 3)
        assert len(drawn) == 3
        assert changed <= set(drawn)
        moved |= changed
        before = head
    assert len(moved) > 3


def test_a_resumed_training_goes_on_with_the_same_columns(heads: dict[str, Compiled], tmp_path: Path) -> None:
    compiled = heads["some"]
    _, whole = trained(compiled, tmp_path / "whole.bin")
    for epoch in range(EPOCHS):
        with HostProgram(compiled.image, tmp_path / "parts.bin") as program:
            session = Session(Link(program, 20.0))
            session.begin(Training(0.05, EPOCHS, STEPS, "constant", seed=4, fresh=epoch == 0))
            one_epoch(session, compiled, epoch)
    assert np.array_equal(head_in(compiled, tmp_path / "parts.bin"), whole[-1])


def test_the_ledger_and_the_target_agree(heads: dict[str, Compiled], tmp_path: Path) -> None:
    full, some = heads["full"].plan, heads["some"].plan
    assert (full["head_columns"], some["head_columns"]) == (0, 3)
    head = align(2 * CLASSES * FEATURES, 4)
    assert some["bank_weight_bytes"] - full["bank_weight_bytes"] == head
    assert full["state_bytes"] - some["state_bytes"] == head - align(2 * 3, 4) - 2 * 3 * CLASSES
    compiled = compile_tiny(tmp_path, "qemu-m7", head="sampled", flash=None)
    marks = measure(compiled, "qemu", samples_of(compiled).x[0])
    assert marks.state == compiled.plan["state_bytes"]
    beyond = marks.planned + marks.epoch + marks.state - compiled.plan["arena_planned_bytes"]
    assert 0 <= beyond <= compiled.plan["workspace_bytes"]


def test_the_command_line_takes_both_choices(small_digits: Path, run_cli: Cli) -> None:
    given = ("plan", DIGITNET, "--data", small_digits, "--ram", "24KiB", "--json", "--head")
    plans = {}
    for head in ("new", "sampled"):
        ended = run_cli(*given, head)
        assert ended.code == 0, ended.err
        plans[head] = ended.out
    assert '"head_columns": 0' in plans["new"]
    assert '"head_columns": 0' not in plans["sampled"]
    assert run_cli(*given, "new,half").code == 2
    ended = run_cli(*given, "sampled", "--weights", "ram")
    assert ended.code == 2
    assert "a sampled head" in ended.err
