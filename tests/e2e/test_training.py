# SPDX-License-Identifier: Apache-2.0
"""Every shared network learns: one epoch on the host twin lowers the loss of samples that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_files import ROOT, shared
from training_study import TASKS, Task, one_epoch


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.model.replace(".", "-"))
def test_an_epoch_lowers_the_loss(task: Task, tmp_path: Path) -> None:
    shared(f"models/{task.model}")
    log = one_epoch(task, ROOT.parent / "shared", tmp_path)
    assert log["loss_after"] < log["loss_before"]
