# SPDX-License-Identifier: Apache-2.0
"""Studies that documents name go through from their command line to their table, on small data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import DIGITNET, REPOSITORY


def test_a_transfer_is_studied_with_runs_side_by_side(small_digits: Path, tmp_path: Path) -> None:
    given = ("--data", str(small_digits), "--ram", "24KiB", "--epochs", "1", "--rate", "0.02", "--seeds", "1")
    command = [sys.executable, str(REPOSITORY / "tools" / "transfer_study.py"), str(DIGITNET), *given]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out"), "--json", str(tmp_path / "study.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "study.json").read_text())["runs"]
    assert [run["head_only"] for run in runs] == [False, True]
    assert len({run["digest"] for run in runs}) == 2
    for run in runs:
        name = "head only" if run["head_only"] else "selected channels and head"
        row = next(line for line in done.stdout.splitlines() if f"| {name} |" in line)
        assert row.startswith("| 24KiB |")
        assert row.endswith(f"| {run['accuracy_after']:.4f} | {run['accuracy_after']:.4f} |")
