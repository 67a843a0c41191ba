# SPDX-License-Identifier: Apache-2.0
"""What to expect of digitnet in 24 KiB on every chip: the last table of docs/BOARDS.md.

    python tools/board_table.py

Builds an image for each. The milliseconds of a step are estimates: the instructions of tests/bench_counts.json at 1 to
1.5 cycles each, without any wait for flash.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from medyate.boards import BOARDS

ROOT = Path(__file__).resolve().parent.parent
DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
CYCLES = (1.0, 1.5)
"""Of an instruction, assumed."""
COUNTED = {"Cortex-M4F": "qemu-m4", "Cortex-M7": "qemu-m7", "Cortex-M33": "qemu-m33"}
"""The emulated target with the same core."""


def main() -> None:
    """Prints the table."""
    counts = json.loads((ROOT / "tests" / "bench_counts.json").read_text())["counts"]
    with tempfile.TemporaryDirectory() as folder:
        ranking: tuple[str, ...] = ()
        for board in (board for board in BOARDS.values() if board.is_real):
            out = Path(folder) / board.name
            command = [sys.executable, "-c", "from medyate.cli import main; main()", "compile", str(DIGITNET)]
            command += ["--data", "digits", "--ram", "24KiB", "--target", board.name, "--builder", "make"]
            command += [*ranking, "-o", str(out), "--json"]
            made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            ranking = ("--ranking", str(out / "04_ranking.json"))
            assert board.build is not None
            step, banks = counts[COUNTED[board.core]]["training_step"], made["banks"]
            low, high = (1000 * step * cycles / board.build.clock_hz for cycles in CYCLES)
            bank = banks["banks"][0]
            sector = bank["bytes"] // bank["sectors"] // 1024
            commit = f"{bank['commit_ms'] / 1000:.2f} to {bank['commit_max_ms'] / 1000:.2f} s"
            print(
                f"{board.name:<10} step {low:.0f} to {high:.0f} ms; generation {banks['generation_bytes']:,} B, "
                f"bank 0 {bank['sectors']} x {sector} KiB, commit {commit}, typical times: {banks['typical']}; "
                f"image {made['flash_bytes']:,} B, static {made['static_bytes']:,} B"
            )


if __name__ == "__main__":
    main()
