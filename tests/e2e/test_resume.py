# SPDX-License-Identifier: Apache-2.0
"""A training that is interrupted between epochs goes on as if it had not been, or says why it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medyate.datasets import load
from medyate.errors import DataError
from medyate.run.feed import Tick
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, run

TRAINING = Training(0.01, 3, 40, seed=7, flip=True)


Log = Mapping[str, Any]


class StoppedError(Exception):
    """Stands for the power button."""


def go(
    compiled: Compiled,
    data: Path,
    flash: Path,
    training: Training,
    earlier: Log | None = None,
    *,
    stop: int | str = 0,
    kept: list[Log] | None = None,
) -> dict[str, Any]:
    """One run; `stop` ends it in the middle of that epoch or phase. The logs on the way go to `kept`."""
    logs: list[Log] = [] if kept is None else kept

    def progress(tick: Tick) -> None:
        if stop and stop in (tick.epoch, tick.phase) and tick.done == 20:
            raise StoppedError

    options = RunOptions("host", training, flash, measure=False, earlier=earlier, keep=logs.append)
    return run(compiled, load(str(data)), options, progress)


def test_a_resumed_training_ends_like_one_that_was_never_interrupted(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    whole = go(digitnet_host, small_digits, tmp_path / "whole.bin", TRAINING)
    flash, kept = tmp_path / "cut.bin", list[Log]()
    with pytest.raises(StoppedError):
        go(digitnet_host, small_digits, flash, TRAINING, stop=3, kept=kept)
    assert [len(log["history"]) for log in kept] == [0, 1, 1, 2, 2]
    assert [log["committed_epochs"] for log in kept] == [0, 0, 1, 1, 2]
    assert kept[-1]["history"] == whole["history"][:2] and not kept[-1]["finished"]
    resumed = dataclasses.replace(TRAINING, fresh=False)
    rest = go(digitnet_host, small_digits, flash, resumed, kept[-1])
    assert rest["history"] == whole["history"]
    for key in ("accuracy_before", "accuracy_after", "loss_before", "loss_after", "epochs", "logit_range", "finished"):
        assert rest[key] == whole[key], key
    assert rest["digest"].split("-")[2:4] == whole["digest"].split("-")[2:4]  # deltas and state
    for earlier in (None, rest):
        with pytest.raises(DataError, match="done already"):
            go(digitnet_host, small_digits, flash, resumed, earlier)


def test_a_run_that_was_stopped_behind_its_last_epoch_goes_on(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    whole = go(digitnet_host, small_digits, tmp_path / "whole.bin", TRAINING)
    flash, kept = tmp_path / "cut.bin", list[Log]()
    with pytest.raises(StoppedError):
        go(digitnet_host, small_digits, flash, TRAINING, stop="logits", kept=kept)
    resumed = dataclasses.replace(TRAINING, fresh=False)
    rest = go(digitnet_host, small_digits, flash, resumed, kept[-1])
    for key in ("history", "accuracy_after", "logit_range", "finished"):
        assert rest[key] == whole[key], key


def test_a_log_of_another_training_is_not_continued(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    flash, other = tmp_path / "flash.bin", dataclasses.replace(TRAINING, seed=8)
    log = go(digitnet_host, small_digits, tmp_path / "other.bin", other)
    with pytest.raises(StoppedError):
        go(digitnet_host, small_digits, flash, TRAINING, stop=2)
    resumed = dataclasses.replace(TRAINING, fresh=False)
    with pytest.raises(DataError, match=r"log is of another training \(seed 8"):
        go(digitnet_host, small_digits, flash, resumed, log)


@pytest.mark.parametrize(
    "change", [{"epochs": 5}, {"rate": 0.02}, {"seed": 8}, {"head_only": True}, {"schedule": "constant"}]
)
def test_resuming_under_other_settings_is_refused(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    flash = tmp_path / "flash.bin"
    with pytest.raises(StoppedError):
        go(digitnet_host, small_digits, flash, TRAINING, stop=2)
    with pytest.raises(DataError, match="other settings"):
        go(digitnet_host, small_digits, flash, dataclasses.replace(TRAINING, fresh=False, **change))
