# SPDX-License-Identifier: Apache-2.0
"""Cycles of an instruction by llvm-mca, over the code that digitnet runs: where `medyate bench` got its range.

    python tools/cycle_study.py

Every block of instructions that ran, weighed by how often, goes through llvm-mca's model of the core: once as if it
repeated without a gap, once as if nothing overlapped with its neighbours. Memory, flash and branches that are
predicted wrong are not in that model, and no board was measured. Calls count as jumps, conditions of IT blocks as met.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench_table import compiled
from medyate import datasets
from medyate.bench.measure import choose, graph_of, sites_of, spans
from medyate.boards import BOARDS
from medyate.build.compile import require

TARGETS = ("qemu-m4", "qemu-m7")
"""Those whose cores llvm-mca knows."""
REPEATED = 100
LINE = re.compile(r" *([0-9a-f]+):\t(?:[0-9a-f]{4} ?)+ *\t(.*)")
PLACE = re.compile(r"\b[0-9a-f]+ <[^>]*>")
CONDITION = re.compile(r"^([a-z]+?)(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)(?=\s)")
WIDTH = re.compile(r"\.[nw](?=\s)")


def code(image: Path) -> dict[int, str]:
    """Instructions by address, as llvm-mca reads them."""
    command = ["arm-none-eabi-objdump", "-d", str(image)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found, conditional = {}, 0
    for address, line in (match.groups() for match in map(LINE.match, text.splitlines()) if match):
        plain = WIDTH.sub("", PLACE.sub(".", line.partition("@")[0].partition(";")[0])).strip()
        if plain.startswith("bl"):
            plain = "b ." if plain.startswith("bl\t") else "bx lr"
        if conditional > 0:
            plain, conditional = CONDITION.sub(r"\1", plain), conditional - 1
        if re.match(r"it[te]*\s", plain):
            plain, conditional = "nop", len(plain.split()[0]) - 1
        found[int(address, 16)] = plain
    return found


def cycles(blocks: Sequence[Sequence[str]], core: str, times: int) -> list[float]:
    """Of each block in a row of so many."""
    regions = "".join(
        f"@ LLVM-MCA-BEGIN b{number}\n" + "\n".join(block) + "\n@ LLVM-MCA-END\n" for number, block in enumerate(blocks)
    )
    command = [require("llvm-mca", "apt-get install llvm"), "-mtriple=thumbv7em-none-eabi", f"-mcpu={core}"]
    command += [f"-iterations={times}", "-json", "-resource-pressure=0", "-instruction-info=0"]
    done = subprocess.run(command, input=".syntax unified\n" + regions, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    found = json.loads(done.stdout[done.stdout.index("{") :])["CodeRegions"]
    by_name = {region["Name"]: region["SummaryView"]["TotalCycles"] / times for region in found}
    return [by_name[f"b{number}"] for number in range(len(blocks))]


def ratios(ran: Mapping[tuple[int, int], int], text: Mapping[int, str], core: str) -> tuple[float, float]:
    """Cycles of an instruction: (blocks that repeat without a gap, blocks alone)."""
    addresses = sorted(text)
    blocks = [[text[a] for a in addresses if begin <= a < end] for begin, end in ran]
    instructions = sum(runs * len(block) for runs, block in zip(ran.values(), blocks, strict=True))
    found = [cycles(blocks, core, times) for times in (REPEATED, 1)]
    return tuple(sum(r * c for r, c in zip(ran.values(), each, strict=True)) / instructions for each in found)  # type: ignore[return-value]


def main() -> None:
    """Prints the table."""
    dataset = datasets.load("digits")
    print("| core | phase | without a gap | alone |\n| --- | --- | --: | --: |")
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            made = compiled(target, Path(folder))
            found, _ = spans(made, choose(made, dataset), sites_of(made, graph_of(made)), blocks=True)
            text = code(made.image)
        build = BOARDS[target].build
        assert build is not None
        for phase, of in found.items():
            ran: Counter[tuple[int, int]] = Counter()
            for span in of:
                ran += span.blocks
            low, high = ratios(ran, text, build.cpu)
            print(f"| {build.cpu} | {phase} | {low:.2f} | {high:.2f} |")


if __name__ == "__main__":
    main()
