# SPDX-License-Identifier: Apache-2.0
"""Writes tests/bench_counts.json anew: the instructions of digitnet in 24 KiB on every emulated core.

    python tools/bench_table.py

The tests hold every build against this table. What `medyate bench models/digitnet/digitnet.onnx --data digits --ram
24KiB --target qemu-m7` prints are the same counts.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medyate import artefact, datasets
from medyate.bench.measure import bench
from medyate.bench.phases import PHASES
from medyate.boards import MACHINES
from medyate.plan.budget import Limits
from medyate.run.train import Compiled
from medyate.stages import Options, compile_model

ROOT = Path(__file__).resolve().parent.parent
DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
TABLE = ROOT / "tests" / "bench_counts.json"
COMMAND = "python tools/bench_table.py"
SLACK = 0.01
"""Share by which a count may differ."""


def compiler() -> str:
    """The version of the compiler for Cortex-M."""
    command = ["arm-none-eabi-gcc", "-dumpfullversion"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def compiled(target: str, out: Path) -> Compiled:
    """The network for a target."""
    compile_model(DIGITNET, datasets.load("digits"), Options(target, Limits(24 << 10), builder="make"), out)
    return Compiled.read(out)


def counts(result: Mapping[str, Any]) -> dict[str, int]:
    """What the table has of a result of `medyate bench`."""
    return {phase: result[phase]["instructions"] for phase in PHASES}


def differences(target: str, found: Mapping[str, int], known: Mapping[str, int]) -> list[str]:
    """A sentence for each count that is no longer what the table says."""
    texts = []
    for phase in PHASES:
        share = found[phase] / known[phase] - 1
        change = f"{phase} on {target}: {known[phase]:,} instructions became {found[phase]:,} ({share:+.1%})."
        if share > SLACK:
            texts.append(f"{change} It grew; what makes that worth it belongs into the change, with `{COMMAND}`.")
        elif share < -SLACK:
            texts.append(f"{change} Lower the table: `{COMMAND}`; lowering it is part of the change.")
    return texts


def main() -> None:
    """Compiles, counts, writes."""
    table: dict[str, dict[str, int]] = {}
    for target in MACHINES:
        with tempfile.TemporaryDirectory() as folder:
            table[target] = counts(bench(compiled(target, Path(folder)), datasets.load("digits")))
        print(target, json.dumps(table[target]))
    artefact.write_json(TABLE, {"compiler": compiler(), "counts": table})


if __name__ == "__main__":
    main()
