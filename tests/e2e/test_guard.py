# SPDX-License-Identifier: Apache-2.0
"""An epoch that makes the network worse is never committed: on the host's judgement, and on an application's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DIGITNET, Cli
from medyate import datasets
from medyate.plan.budget import Limits
from medyate.run import feed, held, train
from medyate.run.guard import Guard, Outcome, fall
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, int8_samples
from medyate.stages import Options, compile_model, gather, silent
from probe import Probe

LIMIT = 150


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """digitnet with its own head, on the digits that it knows."""
    out = tmp_path_factory.mktemp("pretrained")
    options = Options("host", Limits(64 << 10), head="keep", rank_epochs=1, builder="make")
    compile_model(DIGITNET, datasets.load("digits"), options, out)
    return Compiled.read(out)


@pytest.fixture
def compiled(pretrained: Compiled, tmp_path: Path) -> Compiled:
    shutil.copytree(pretrained.folder, tmp_path / "out")
    return Compiled.read(tmp_path / "out")


def test_a_rate_that_destroys_the_network_commits_nothing(compiled: Compiled, run_cli: Cli) -> None:
    common = ("run", compiled.folder, "--data", "digits", "--rate", 900, "--limit", LIMIT, "--no-measure")
    ended = run_cli(*common, "--epochs", 3, "--json")
    log = json.loads(ended.out)
    assert ended.code == 1
    assert "epoch 1 is not accepted" in ended.err and "the factory weights stay" in ended.err
    assert log["rejected"]["epoch"] == 1
    assert log["accuracy_after"] == log["accuracy_before"] > 0.9
    assert log["history"] == [] and log["epochs"] == 0
    assert log["flash"]["bank_erases"] == [0, 0]
    assert not held.find((compiled.folder / "flash.bin").read_bytes())
    ended = run_cli(*common, "--epochs", 3, "--fresh", "--no-guard", "--json")
    log = json.loads(ended.out)
    assert (ended.code, log["rejected"], log["epochs"]) == (0, None, 3)
    assert log["accuracy_after"] < 0.3


def test_a_later_epoch_that_is_not_accepted_leaves_the_generation_before_it(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = feed.train_epoch

    def disturbed(session: Any, parts: feed.Parts, training: Training, epoch: int, *rest: Any) -> Any:
        """From the third epoch on the labels are another class's, as if somebody had turned a dial."""
        wrong = replace(parts, y_train=(parts.y_train + 1) % 10)
        return exact(session, wrong if epoch >= 2 else parts, training, epoch, *rest)

    monkeypatch.setattr(train, "train_epoch", disturbed)
    told: list[str] = []
    flash = compiled.folder / "flash.bin"
    options = RunOptions("host", Training(0.1, 6, LIMIT), flash, guard=True, measure=False, tell=told.append)
    log = train.run(compiled, datasets.load("digits"), options, lambda _: None)
    assert log["rejected"]["epoch"] == 3
    assert "generation 2" in told[-1] and "after 2 epochs" in told[-1]
    assert [entry["epoch"] for entry in log["history"]] == [1, 2]
    assert log["accuracy_after"] == log["history"][-1]["accuracy"]
    newest = held.newest(held.find(flash.read_bytes()), int(compiled.model["digest"]))
    assert newest is not None and (newest.generation, newest.epochs) == (2, 2)


def test_the_guard_changes_nothing_of_a_training_that_works(compiled: Compiled) -> None:
    logs = []
    for guard in (True, False):
        flash = compiled.folder / f"{guard}.bin"
        options = RunOptions("host", Training(0.03, 2, LIMIT), flash, guard=guard, measure=False)
        logs.append(train.run(compiled, datasets.load("digits"), options, lambda _: None))
    assert logs[0]["rejected"] is None
    assert logs[0]["digest"] == logs[1]["digest"]
    assert logs[0]["history"] == logs[1]["history"]


# --- the rule ---


def outcome(right: int, count: int = 128) -> Outcome:
    return Outcome(np.arange(count) < right, np.zeros(count))


@pytest.mark.parametrize(("before", "after", "rejects"), [(128, 120, False), (128, 110, True), (64, 45, False)])
def test_a_fall_within_chance_is_accepted(before: int, after: int, rejects: bool) -> None:
    assert bool(fall(outcome(before), outcome(after))) == rejects


def test_equal_states_differ_by_less_than_the_rule_allows() -> None:
    """Two drawings of the same accuracy: at most one in two hundred is rejected."""
    random = np.random.default_rng(5)
    rejected = 0
    for _ in range(2000):
        share = random.uniform(0.3, 0.99)
        first, second = (Outcome(random.random(128) < share, np.zeros(128)) for _ in range(2))
        rejected += bool(fall(first, second))
    assert rejected <= 10


def test_the_loss_decides_where_vectors_are_to_be_hit() -> None:
    random = np.random.default_rng(6)
    low, same, high = (Outcome(None, random.gamma(2.0, scale, 128)) for scale in (1.0, 1.0, 2.0))
    assert fall(low, same) == ""
    assert "the loss" in fall(low, high)


def judged(rights: list[int], start: float | None = None) -> list[bool]:
    """Which epochs a guard accepts, the state before training first."""
    states = iter([outcome(right) for right in rights])
    guard = Guard.begin(lambda: next(states), start)
    last = len(rights) - 1
    return [guard.reject(number, last=number == last) is None for number in range(1, len(rights))]


@pytest.mark.parametrize(
    ("rights", "accepted"),
    [
        ([8, 120, 98, 122], [True, True, True]),  # the rate is at its peak, and comes down
        ([64, 120, 96, 122], [True, True, True]),  # of two classes
        ([64, 120, 90, 122], [True, False, True]),  # hardly half of the gain is left
        ([8, 120, 13, 120], [True, False, True]),
        ([126, 100, 126], [False, True]),  # it knew its task: nothing had been gained
        ([8, 120, 124, 100], [True, True, False]),  # nothing comes after the last epoch
        ([8, 120, 100, 99], [True, True, True]),
        ([70, 60, 50, 44], [True, True, False]),
    ],
)
def test_a_swing_is_no_break(rights: list[int], accepted: list[bool]) -> None:
    assert judged(rights) == accepted


def test_a_resumed_training_is_judged_from_its_first_start() -> None:
    assert judged([120, 98, 122]) == [False, True]
    assert judged([120, 98, 122], start=8 / 128) == [True, True]


def test_the_log_hands_the_start_on_to_a_resumed_run(compiled: Compiled, run_cli: Cli) -> None:
    common = ("run", compiled.folder, "--data", "digits", "--rate", 0.03, "--limit", LIMIT, "--no-measure", "--json")
    first = json.loads(run_cli(*common, "--epochs", 2).out)
    assert 0.5 < first["guard_start"] <= 1.0
    log = json.loads((compiled.folder / "run.json").read_text())
    log["guard_start"], log["finished"] = 0.25, False
    (compiled.folder / "run.json").write_text(json.dumps(log))
    again = json.loads(run_cli(*common, "--epochs", 2, "--resume").out)
    assert again["guard_start"] == 0.25


# --- an application's own ---


def test_a_trial_is_what_a_commit_would_keep_and_a_rejected_one_leaves_no_trace(
    pretrained: Compiled, tmp_path: Path
) -> None:
    """With batches that the epoch leaves short: the trial has their update too."""
    dataset = datasets.load("digits")
    samples, labels = int8_samples(pretrained, dataset)[0][:40], dataset.y_train[:40]
    options = Options("host", Limits(64 << 10, batch=4), head="keep", rank_epochs=1)
    plan = gather(DIGITNET, dataset, options, silent).plan(options.limits)
    probe = Probe(plan, tmp_path, record=False)
    probe.init(seed=3, rate_mult=24576, rate_exponent=-19)
    states = []
    for kept in (True, False, False, True):
        before = probe.infer(samples[0]).copy()
        for sample, label in zip(samples[:18], labels, strict=False):
            probe.step(sample, label)
        probe.lib.probe_try_epoch()
        trial = probe.infer(samples[0]).copy()
        assert not np.array_equal(trial, before)
        assert (probe.lib.probe_accept() if kept else probe.lib.probe_reject()) == 0
        now = probe.infer(samples[0]).copy()
        assert np.array_equal(now, trial if kept else before)
        states.append((kept, trial, now))
    assert np.array_equal(states[1][1], states[2][1])  # the same samples teach the same again
    assert np.array_equal(states[3][1], states[1][1])
