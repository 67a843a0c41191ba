# SPDX-License-Identifier: Apache-2.0
"""What the runtime takes: lines, flash and RAM of a small image on emulated cores, and the deepest stack.

    python tools/sizes.py [qemu-m4 qemu-m7 ...]

The image is that of digitnet in 24 KiB, after a short ranking, which is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from medyate.boards import MACHINES

ROOT = Path(__file__).resolve().parent.parent
DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"


def lines(folder: str, *suffixes: str) -> int:
    """Of all sources below a folder."""
    return sum(len(f.read_bytes().splitlines()) for s in suffixes for f in (ROOT / folder).rglob(f"*{s}"))


def main() -> None:
    """Prints the table."""
    print(f"lines  compiler {lines('compiler', '.py'):,}  runtime {lines('runtime_c', '.c', '.h'):,}  "
          f"boards {lines('firmware', '.c', '.h'):,}  tests {lines('tests', '.py', '.c', '.h', '.cc'):,}")  # fmt: skip
    print(f"{'target':<10}{'flash':>10}{'static':>8}{'stack':>7}")
    with tempfile.TemporaryDirectory() as folder:
        ranking: tuple[str, ...] = ()
        for target in sys.argv[1:] or MACHINES:
            out = Path(folder) / target
            command = [sys.executable, "-c", "from medyate.cli import main; main()", "compile", str(DIGITNET)]
            command += ["--data", "digits", "--ram", "24KiB", "--target", target, "--builder", "make"]
            command += [*ranking, "-o", str(out), "--json"]
            made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            ranking = ("--ranking", str(out / "04_ranking.json"))
            stack = json.loads((out / "model.json").read_text())["stack_bound_bytes"]
            print(f"{target:<10}{made['flash_bytes']:>10,}{made['static_bytes']:>8,}{stack:>7,}")


if __name__ == "__main__":
    main()
