# SPDX-License-Identifier: Apache-2.0
"""The picture of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medyate import cli
from medyate.run.train import Compiled


@pytest.mark.parametrize("head_only", [False, True])
def test_report_draws_the_last_run(
    digitnet_host: Compiled, small_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head_only: bool
) -> None:
    def command(*arguments: Any) -> None:
        monkeypatch.setattr("sys.argv", ["medyate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0

    out = shutil.copytree(digitnet_host.folder, tmp_path / "out")
    flags = ["--head-only"] if head_only else []
    given = ("--data", small_digits, "--rate", 0.01, "--epochs", 2, "--limit", 4)
    command("run", out, *given, "--no-measure", "--fresh", *flags)
    command("report", out, "-o", tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.size == (1400, 900)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
