# SPDX-License-Identifier: Apache-2.0
"""A training ends when nothing comes of it any more, and its best epoch is what the flash holds. Costs 40 s."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DIGITNET, Cli
from line import Line
from medyate import artefact, datasets
from medyate.errors import DataError, LinkError
from medyate.export.trained import read_compiled
from medyate.plan.budget import Limits
from medyate.run import early, feed, train
from medyate.run.early import HELD_ORDER, best_epoch, held_samples
from medyate.run.feed import Tick
from medyate.run.generation import newest
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, epoch_samples, run
from medyate.stages import Options, compile_model

EPOCHS = 8
SAME = ("history", "kept_epoch", "accuracy_before", "accuracy_after", "loss_after", "logit_range")
Log = Mapping[str, Any]


class StoppedError(Exception):
    """Stands for the power button."""


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    """Twenty training and ten test images of each digit."""
    whole, parts = datasets.load("digits"), {}
    for part, count in (("train", 20), ("test", 10)):
        x, y = getattr(whole, f"x_{part}"), getattr(whole, f"y_{part}")
        chosen = np.concatenate([np.flatnonzero(y == label)[:count] for label in range(10)])
        parts |= {f"x_{part}": x[chosen], f"y_{part}": y[chosen]}
    return replace(whole, **parts)


def asked(flash: Path, digits: datasets.Dataset, patience: int | None = 2, **more: Any) -> RunOptions:
    """At a rate so high that an epoch in the middle is the best one."""
    training = Training(1.0, EPOCHS, epoch_samples(digits, None, patience), "constant", seed=1)
    return RunOptions("host", training, flash, measure=False, guard=True, early_stop=patience, **more)


def quiet(_: Tick) -> None:
    pass


def resumed(options: RunOptions, earlier: Log) -> RunOptions:
    return replace(options, training=replace(options.training, fresh=False), earlier=json.loads(json.dumps(earlier)))


def in_flash(compiled: Compiled, flash: Path) -> tuple[int, bytes]:
    """Epochs of the newest generation, and all that it learned."""
    found = newest(read_compiled(compiled)[2], flash.read_bytes())
    arrays = (found.head_weight, found.head_bias, *found.weights.values(), *found.biases.values())
    return found.epochs, b"".join(array.tobytes() for array in arrays)


@pytest.fixture(scope="module")
def whole(
    digitnet_host: Compiled, digits: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Log, Path]:
    """A training that nothing disturbs, with a patience of two epochs, and its flash."""
    flash = tmp_path_factory.mktemp("whole") / "flash.bin"
    return run(digitnet_host, digits, asked(flash, digits), quiet), flash


def test_the_best_epoch_is_in_flash_bit_for_bit(
    digitnet_host: Compiled, digits: datasets.Dataset, whole: tuple[Log, Path], tmp_path: Path
) -> None:
    log, flash = whole
    kept, history = log["kept_epoch"], log["history"]
    held = [(entry["held_accuracy"], -entry["held_loss"]) for entry in history]
    assert 1 < kept < len(history) < EPOCHS and held.index(max(held)) == kept - 1
    assert len(history) == kept + 2 and log["finished"] and log["committed_epochs"] == kept
    assert log["accuracy_after"] == history[kept - 1]["accuracy"]
    # A training without an early stop on what was not held out, stopped there.
    count = len(digits.x_train)
    seen = np.delete(np.arange(count), datasets.epoch_order(1, HELD_ORDER, count)[: held_samples(count)])
    left = replace(digits, x_train=digits.x_train[seen], y_train=digits.y_train[seen])

    def stop(tick: Tick) -> None:
        if tick.epoch == kept + 1:
            raise StoppedError

    other = tmp_path / "flash.bin"
    with pytest.raises(StoppedError):
        run(digitnet_host, left, asked(other, left, None), stop)
    assert in_flash(digitnet_host, flash) == in_flash(digitnet_host, other)
    assert in_flash(digitnet_host, flash)[0] == kept


def test_test_samples_decide_nothing(
    digitnet_host: Compiled, digits: datasets.Dataset, whole: tuple[Log, Path], tmp_path: Path
) -> None:
    wrong = replace(digits, y_test=(digits.y_test + 1) % 10)
    log = run(digitnet_host, wrong, asked(tmp_path / "f.bin", digits), quiet)
    assert log["kept_epoch"] == whole[0]["kept_epoch"] and log["accuracy_after"] < 0.5
    assert in_flash(digitnet_host, tmp_path / "f.bin") == in_flash(digitnet_host, whole[1])


def test_with_a_patience_of_one_nothing_is_trained_again(
    digitnet_host: Compiled, digits: datasets.Dataset, tmp_path: Path
) -> None:
    said: list[str] = []
    ticks: list[Tick] = []
    log = run(digitnet_host, digits, asked(tmp_path / "f.bin", digits, 1, tell=said.append), ticks.append)
    kept = log["kept_epoch"]
    assert len(log["history"]) == kept + 1 and in_flash(digitnet_host, tmp_path / "f.bin")[0] == kept
    assert len(said) == 1 and f"ended after epoch {kept + 1}: epoch {kept} was the best" in said[0]
    steps = sum(tick.epoch > 0 for tick in ticks)
    assert steps == len(log["history"]) * log["epoch_samples"]


def test_an_interruption_says_how_to_go_on(digitnet_host: Compiled, digits: datasets.Dataset, tmp_path: Path) -> None:
    def stop(tick: Tick) -> None:
        if tick.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"after epoch 1 of 8.*--early-stop 2"):
        run(digitnet_host, digits, asked(tmp_path / "f.bin", digits), stop)


def test_a_training_that_gets_better_to_its_end_is_that_without_an_early_stop(
    digitnet_host: Compiled, digits: datasets.Dataset, tmp_path: Path
) -> None:
    options = asked(tmp_path / "f.bin", digits, 3)
    log = run(digitnet_host, digits, replace(options, training=replace(options.training, rate=0.01, epochs=2)), quiet)
    assert log["kept_epoch"] == 2 == len(log["history"])
    assert log["accuracy_after"] == log["history"][1]["accuracy"]
    assert in_flash(digitnet_host, tmp_path / "f.bin")[0] == 2


def test_interrupted_anywhere_it_ends_the_same(
    digitnet_host: Compiled, digits: datasets.Dataset, whole: tuple[Log, Path], tmp_path: Path
) -> None:
    """In an epoch, in the judging, and on the way back: in its first and in its last epoch, and behind it."""
    log = whole[0]
    kept, total = log["kept_epoch"], len(log["history"])
    assert kept >= 2
    per_epoch = log["epoch_samples"]
    places = (
        ("step", per_epoch + 7),
        ("held out", 3 * held_samples(len(digits.x_train)) + 3),
        ("step", total * per_epoch),
        ("step", total * per_epoch + 5),
        ("step", (total + kept - 1) * per_epoch + 5),
        ("logits", 3),
    )
    for number, (phase, count) in enumerate(places):
        flash, logs, seen = tmp_path / f"{number}.bin", list[Log](), 0

        def stop(tick: Tick, phase: str = phase, count: int = count) -> None:
            nonlocal seen
            seen += ("step" if tick.epoch else tick.phase) == phase
            if seen == count:
                raise StoppedError

        options = asked(flash, digits, keep=logs.append)
        with pytest.raises(StoppedError):
            run(digitnet_host, digits, options, stop)
        rest = run(digitnet_host, digits, resumed(options, logs[-1]), quiet)
        assert {key: rest[key] for key in SAME} == {key: log[key] for key in SAME}, (phase, count)
        assert in_flash(digitnet_host, flash) == in_flash(digitnet_host, whole[1])


def test_a_target_that_restarts_on_the_way_back_goes_on(
    digitnet_host: Compiled, digits: datasets.Dataset, whole: tuple[Log, Path], tmp_path: Path
) -> None:
    flash, said, at = tmp_path / "f.bin", list[str](), list[int]()
    with Line(digitnet_host.image, flash) as line:

        def look(tick: Tick) -> None:
            again = any("trained again" in text for text in said)
            if again and tick.epoch == 1 and tick.done == 9 and not at:
                at.append(tick.done)
                line.restart()

        log = run(digitnet_host, digits, replace(asked(flash, digits, tell=said.append), on=line.port), look)
    assert at and any("the target restarted" in text for text in said)
    assert {key: log[key] for key in SAME} == {key: whole[0][key] for key in SAME}
    assert in_flash(digitnet_host, flash) == in_flash(digitnet_host, whole[1])


def test_an_epoch_that_is_not_the_same_again_is_an_error(
    digitnet_host: Compiled, digits: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(session: Any, parts: feed.Parts, *rest: Any) -> dict[str, Any]:
        return feed.train_epoch(session, replace(parts, y_train=(parts.y_train + 1) % 10), *rest)

    monkeypatch.setattr(early, "train_epoch", disturbed)
    with pytest.raises(LinkError, match="epoch 1 was not the same when it was trained again"):
        run(digitnet_host, digits, asked(tmp_path / "f.bin", digits), quiet)


def test_an_epoch_that_the_guard_rejects_leaves_the_best_one(
    digitnet_host: Compiled, digits: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(session: Any, parts: feed.Parts, training: Training, epoch: int, *rest: Any) -> dict[str, Any]:
        wrong = replace(parts, y_train=(parts.y_train + 1) % 10)
        return feed.train_epoch(session, wrong if epoch >= 3 else parts, training, epoch, *rest)

    monkeypatch.setattr(train, "train_epoch", disturbed)
    flash, logs = tmp_path / "f.bin", list[Log]()
    options = asked(flash, digits, 5, keep=logs.append)
    log = run(digitnet_host, digits, options, quiet)
    assert log["rejected"]["epoch"] == 4 and len(log["history"]) == 3
    assert in_flash(digitnet_host, flash)[0] == log["kept_epoch"] == best_epoch(log["history"])
    assert log["accuracy_after"] == log["history"][log["kept_epoch"] - 1]["accuracy"]
    ended = next(entry for entry in logs if entry["kept_epoch"] is not None)  # a kill right behind the rejection
    assert not ended["finished"]
    rest = run(digitnet_host, digits, resumed(options, ended), quiet)
    assert {key: rest[key] for key in (*SAME, "rejected")} == {key: log[key] for key in (*SAME, "rejected")}


def test_the_command_survives_a_kill_and_says_what_is_kept(
    digitnet_host: Compiled, digits: datasets.Dataset, whole: tuple[Log, Path], run_cli: Cli, tmp_path: Path
) -> None:
    out, npz, log = tmp_path / "out", tmp_path / "digits.npz", tmp_path / "out" / "run.json"
    shutil.copytree(digitnet_host.folder, out, ignore=shutil.ignore_patterns("flash.bin", "run.json"))
    np.savez(npz, **{name: getattr(digits, name) for name in ("x_train", "y_train", "x_test", "y_test")})
    given = ("run", out, "--data", npz, "--epochs", EPOCHS, "--rate", 1, "--schedule", "constant", "--seed", 1)
    given = (*given, "--no-measure")
    early_stop = ("--early-stop", 2)
    arguments = [sys.executable, "-m", "medyate.cli", *map(str, (*given, *early_stop))]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as program:
        while not log.exists() or json.loads(log.read_text())["committed_epochs"] < 2:
            assert program.poll() is None
            time.sleep(0.002)
        os.kill(program.pid, signal.SIGKILL)
    for other in ((), ("--early-stop", 3)):
        ended = run_cli(*given, *other, "--resume")
        assert ended.code == 2, ended.err
    assert "was begun with --early-stop 2" in ended.err
    ended = run_cli(*given, *early_stop, "--resume", "--log", tmp_path / "none.json")
    assert ended.code == 2 and "needs the log of the whole training" in ended.err
    ended = run_cli(*given, *early_stop, "--resume")
    assert ended.code == 0, ended.err
    rest, kept = json.loads(log.read_text()), whole[0]["kept_epoch"]
    assert {key: rest[key] for key in SAME} == {key: whole[0][key] for key in SAME}
    assert f"epoch {kept} is kept, the best on the training samples held out" in ended.out
    assert f"epochs 1 to {kept} are trained again" in ended.err
    assert in_flash(digitnet_host, out / "flash.bin") == in_flash(digitnet_host, whole[1])
    ended = run_cli(*given, *early_stop, "--resume")
    assert ended.code == 2 and f"ended early; epoch {kept} was kept" in ended.err
    for change in (
        {"kept_epoch": 99},
        {"early_stop": 0},
        {"early_stop": "2"},
        {"history": [{**rest["history"][0], "held_loss": None}]},
    ):
        artefact.write_json(log, {**rest, **change})
        ended = run_cli(*given, *early_stop, "--resume")
        assert ended.code == 2 and "no run log of this version" in ended.err, change


def test_weights_in_ram_go_back_too(digits: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options("host", Limits(128 << 10, weights="ram"), rank_epochs=1, builder="make")
    compile_model(DIGITNET, datasets.load("digits"), options, tmp_path / "out")
    compiled = Compiled.read(tmp_path / "out")
    log = run(compiled, digits, asked(tmp_path / "f.bin", digits), quiet)
    kept = log["kept_epoch"]
    assert kept < len(log["history"]) and log["accuracy_after"] == log["history"][kept - 1]["accuracy"]

    def disturbed(session: Any, parts: feed.Parts, training: Training, epoch: int, *rest: Any) -> dict[str, Any]:
        wrong = replace(parts, y_train=(parts.y_train + 1) % 10)
        return feed.train_epoch(session, wrong if epoch >= kept else parts, training, epoch, *rest)

    monkeypatch.setattr(train, "train_epoch", disturbed)  # rejected right behind the best epoch
    log = run(compiled, digits, asked(tmp_path / "f.bin", digits, 5), quiet)
    assert (log["rejected"]["epoch"], log["kept_epoch"], len(log["history"])) == (kept + 1, kept, kept)
    assert log["accuracy_after"] == log["history"][-1]["accuracy"] > 0.8


def test_too_few_samples_to_hold_some_out_are_refused(digitnet_host: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    whole = datasets.load("digits")
    few = {f"x_{part}": getattr(whole, f"x_{part}")[:99] for part in ("train", "test")}
    few |= {f"y_{part}": getattr(whole, f"y_{part}")[:99] for part in ("train", "test")}
    np.savez(tmp_path / "few.npz", **few)
    ended = run_cli("run", digitnet_host.folder, "--data", tmp_path / "few.npz", "--early-stop", 2)
    assert ended.code == 2 and "of 99 that is too few" in ended.err
    with pytest.raises(DataError):
        held_samples(99)
