# SPDX-License-Identifier: Apache-2.0
"""Which structures import and train in which format: the table of docs/IMPORT.md.

    python tools/structure_table.py

The networks are those of tests/structures.py; tests/e2e/test_structures.py compares each with its format's own runtime.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from medyate import frontends
from medyate.errors import MedyateError
from medyate.passes.pipeline import normalise
from structures import FORMS, NAMES, build


def found(path: Path) -> str:
    """'trains', 'runs' where it cannot be trained, or what the import refuses."""
    try:
        imported = frontends.load(path)
    except MedyateError as error:
        return f"refused: {error.what}"
    try:
        ending = normalise(imported).ending
    except MedyateError:
        return "runs"
    return "trains, with a new head" if ending.keeps else "trains"


def main() -> int:
    """Prints the table and the refusals."""
    print(f"| structure | {' | '.join(FORMS)} |\n| --- |{' --- |' * len(FORMS)}")
    refusals = []
    for name in NAMES:
        cells = []
        for form in FORMS:
            with tempfile.TemporaryDirectory() as folder:
                path = build(name, form, Path(folder))
                text = "" if path is None else found(path)
            if ": " in text:
                kind, reason = text.split(": ", 1)
                refusals.append(f"- {name}, {form}: {reason}")
                text = kind
            cells.append(text)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()
    print("\n".join(refusals))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
