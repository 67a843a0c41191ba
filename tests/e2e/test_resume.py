# SPDX-License-Identifier: Apache-2.0
"""A training that is interrupted between epochs goes on as if it had not been, or says why it cannot."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from medyate.data import load
from medyate.errors import DataError
from medyate.run.session import Training
from medyate.run.train import Compiled, RunOptions, Tick, run

TRAINING = Training(0.01, 3, 40, seed=7, flip=True)


class StoppedError(Exception):
    """Stands for the power button."""


def go(
    compiled: Compiled, data: Path, flash: Path, training: Training, history: tuple[Any, ...] = (), stop: int = 0
) -> dict[str, Any]:
    """One run; `stop` ends it in the middle of that epoch."""

    def progress(tick: Tick) -> None:
        if stop and tick.epoch == stop and tick.done == 20:
            raise StoppedError

    options = RunOptions("host", training, flash, measure=False, history=history)
    return run(compiled, load(str(data)), options, progress)


def test_a_resumed_training_ends_like_one_that_was_never_interrupted(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path
) -> None:
    whole = go(digitnet_host, small_digits, tmp_path / "whole.bin", TRAINING)
    flash = tmp_path / "cut.bin"
    with pytest.raises(StoppedError):
        go(digitnet_host, small_digits, flash, TRAINING, stop=3)
    resumed = dataclasses.replace(TRAINING, fresh=False)
    rest = go(digitnet_host, small_digits, flash, resumed, tuple(whole["history"][:2]))
    assert rest["history"] == whole["history"]
    assert rest["accuracy_after"] == whole["accuracy_after"]
    assert rest["digest"].split("-")[2:4] == whole["digest"].split("-")[2:4]  # deltas and state
    with pytest.raises(DataError, match="done already"):
        go(digitnet_host, small_digits, flash, resumed)


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
