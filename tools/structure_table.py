# SPDX-License-Identifier: Apache-2.0
"""Which structures import, compute and train in which format: the table of docs/IMPORT.md.

    python tools/structure_table.py [--samples 10]

The networks are those of tests/structures.py. Each is compared with its format's own runtime.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from medyate import frontends
from medyate.check import check
from medyate.errors import MedyateError
from medyate.passes.pipeline import normalise
from medyate.stages import silent
from structures import FORMS, NAMES, build


def found(path: Path, samples: int) -> str:
    """'trains', 'runs' where it cannot be trained, 'differs', or what the import refuses."""
    try:
        imported = frontends.load(path)
    except MedyateError as error:
        return f"refused: {error.what}"
    report = check(path, "host", samples, None, "auto", 0, silent)
    if not report.match:
        return f"differs: {'; '.join(report.faults)}"
    try:
        ending = normalise(imported).ending
    except MedyateError:
        return "runs"
    return "trains, with a new head" if ending.keeps else "trains"


def main() -> int:
    """Prints the table; exit code 1 where a network differs from its runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10)
    samples = parser.parse_args().samples
    print(f"| structure | {' | '.join(FORMS)} |\n| --- |{' --- |' * len(FORMS)}")
    refusals, differs = [], False
    for name in NAMES:
        cells = []
        for form in FORMS:
            with tempfile.TemporaryDirectory() as folder:
                path = build(name, form, Path(folder))
                text = "" if path is None else found(path, samples)
            differs |= text.startswith("differs")
            if ": " in text:
                kind, reason = text.split(": ", 1)
                refusals.append(f"- {name}, {form}: {reason}")
                text = kind
            cells.append(text)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()
    print("\n".join(refusals))
    return int(differs)


if __name__ == "__main__":
    raise SystemExit(main())
