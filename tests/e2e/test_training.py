# SPDX-License-Identifier: Apache-2.0
"""Every shared network learns: one epoch on the host twin lowers the loss of samples that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_files import ROOT, TAKE_LONG, shared, some_long
from training_study import TASKS, Task, one_epoch


@pytest.mark.parametrize(
    "task",
    some_long(TASKS, lambda t: any(word in t.model for word in TAKE_LONG)),
    ids=lambda t: t.model.replace(".", "-"),
)
def test_an_epoch_lowers_the_loss(task: Task, tmp_path: Path) -> None:
    shared(f"models/{task.model}")
    log = one_epoch(task, ROOT.parent / "shared", tmp_path)
    assert log["loss_after"] < log["loss_before"]
