# SPDX-License-Identifier: Apache-2.0
"""What `medyate bench` found, as --json prints it, and what two such results have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.bench.costs import Row
from medyate.bench.phases import PHASES
from medyate.boards import BOARDS

NOT_MEASURED = "instructions are not cycles; no board was measured"
CYCLES_PER_INSTRUCTION = (1.0, 1.3)
"""llvm-mca gives 1.04 for a Cortex-M7 and 1.27 for a Cortex-M4 over the blocks that a training step runs. Of Cortex-M33
and M55, which it does not know, the same is assumed."""
LEFT_OUT = "flash wait states, caches, memory stalls, interrupts; of a commit the time in which the flash is busy"

_ROW: artefact.Form = {
    "phase": PHASES.__contains__,
    "name": str,
    "direction": str,
    "macs": artefact.count,
    "instructions": artefact.count,
}
RESULT: artefact.Form = {
    "network": str,
    "target": str,
    **{phase: {"instructions": (None, artefact.count)} for phase in PHASES},
    "layers": [_ROW],
}
"""A result in a file, as far as it is compared."""


def summary(facts: Mapping[str, Any], totals: Mapping[str, int], rows: Sequence[Row] | None) -> dict[str, Any]:
    """The whole result; `totals` lack what could not be counted, and without `rows` layers could not be told apart."""
    phases = {}
    for phase in PHASES:
        total, own = totals.get(phase), [row for row in rows or () if row.phase == phase]
        macs = sum(row.macs for row in own)
        phases[phase] = {
            "instructions": total,
            "other": None if rows is None or total is None else total - sum(row.instructions for row in own),
            "macs": macs or None,
            "instructions_per_mac": round(total / macs, 4) if total is not None and macs else None,
        }
    layers = [row.to_json() for row in rows or ()]
    return {**facts, "note": NOT_MEASURED, **phases, "layers": layers, "estimate": _estimate(facts["target"], totals)}


def _estimate(target: str, totals: Mapping[str, int]) -> dict[str, Any]:
    """Cycles and milliseconds from least to most."""
    build = BOARDS[target].build
    assert build is not None and build.clock_hz > 0  # an emulated board has both
    cycles = {phase: [round(total * each) for each in CYCLES_PER_INSTRUCTION] for phase, total in totals.items()}
    return {
        "is": "an estimate, no measurement",
        "cycles_per_instruction": list(CYCLES_PER_INSTRUCTION),
        "clock_hz": build.clock_hz,
        "leaves_out": LEFT_OUT,
        "cycles": cycles,
        "milliseconds": {phase: [round(1e3 * c / build.clock_hz, 3) for c in both] for phase, both in cycles.items()},
    }


def compare(first: Path, second: Path) -> dict[str, Any]:
    """The second result by the first. Raises ArtefactError for files that are none."""
    results = [artefact.read_json(path, RESULT) for path in (first, second)]
    totals = {phase: _pair(*(result[phase]["instructions"] for result in results)) for phase in PHASES}
    layers = [{(r["phase"], r["name"], r["direction"]): r["instructions"] for r in one["layers"]} for one in results]
    return {
        "results": [
            {"file": str(path), "network": r["network"], "target": r["target"]}
            for path, r in zip((first, second), results, strict=True)
        ],
        "note": NOT_MEASURED,
        **totals,
        "layers": [
            {"phase": key[0], "name": key[1], "direction": key[2], **_pair(*(one.get(key) for one in layers))}
            for key in dict.fromkeys((*layers[0], *layers[1]))
        ],
    }


def _pair(first: int | None, second: int | None) -> dict[str, Any]:
    ratio = second / first if first and second is not None else None
    return {"instructions": [first, second], "ratio": None if ratio is None else round(ratio, 4)}
