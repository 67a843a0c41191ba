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
from medyate.cycles import LEFT_OUT, cycles_on

NOT_MEASURED = "instructions are not cycles; no board was measured"

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
    found = cycles_on(BOARDS[target])
    assert found is not None  # of an emulated board the clock is known
    return {
        "is": "an estimate, no measurement",
        "cycles_per_instruction": list(found.per_instruction),
        "clock_hz": found.clock_hz,
        "leaves_out": LEFT_OUT,
        "cycles": {phase: found.count(total) for phase, total in totals.items()},
        "milliseconds": {phase: found.milliseconds(total) for phase, total in totals.items()},
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
