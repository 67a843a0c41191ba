# SPDX-License-Identifier: Apache-2.0
"""What the two banks make of a flash that breaks down, lies or loses its power.

    python tools/fault_study.py [--faults 100000] [--seed 1]

The real runtime, compiled natively, over the emulated flash of `runtime_c/ports/emu`: a small network with a whole and
with a sampled head, and program units of 4 and 32 bytes. Exit code 1 where a fault went by in silence.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faults import CLASSES, Row, Trials, study
from machine import Machine
from medyate.progress import Bar
from tiny import WIDE, compile_tiny, samples_of

NETWORKS = {"units of 4": {}, "units of 32": {"flash": WIDE}, "sampled head": {"head": "sampled"}}


def main() -> int:
    """Prints a row for each class of faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--faults", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    total = {name: Row(name) for name in CLASSES}
    done = 0

    with tempfile.TemporaryDirectory(prefix="medyate-") as name, Bar() as bar:

        def tell(count: int) -> None:
            nonlocal done
            done += count
            bar.show("faults", done, given.faults, "")

        for i, (network, limits) in enumerate(NETWORKS.items()):
            folder = Path(name) / str(i)
            folder.mkdir()
            compiled = compile_tiny(folder, **limits)
            trials = Trials(Machine(compiled, folder), samples_of(compiled), given.seed + i)
            for row in study(trials, -(-given.faults // len(NETWORKS)), tell):
                total[row.name].add(row, network)
    rows = list(total.values())
    print("| fault | tried | went on | started over, said so | silent |\n| --- | --: | --: | --: | --: |")
    for row in rows:
        print(f"| {row.name} | {row.tried:,} | {row.went_on:,} | {row.started_over:,} | {len(row.silent):,} |")
    sums = (
        sum(values) for values in zip(*((r.tried, r.went_on, r.started_over, len(r.silent)) for r in rows), strict=True)
    )
    print("| all | " + " | ".join(f"{value:,}" for value in sums) + " |")
    silent = [f"{row.name}: {text}" for row in rows for text in row.silent]
    for text in silent[:10]:
        print(text, file=sys.stderr)
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
