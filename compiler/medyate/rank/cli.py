# SPDX-License-Identifier: Apache-2.0
"""`medyate rank --compare`: the correlation of stored rankings as a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from medyate.rank.compare import SCORES, compare, draw
from medyate.rank.lara import COVERAGE
from medyate.report.figure import check_suffix


def compare_rankings(files: Sequence[Path], picture: Path | None, as_json: bool) -> None:
    """Prints the matrices; `picture`: where they are drawn as well."""
    if picture is not None:
        check_suffix(picture)
    content = compare(files)
    if picture is not None:
        draw(content["rankings"], {score: np.array(content[score]) for score in SCORES}, picture)
    content["picture"] = None if picture is None else str(picture)
    if as_json:
        print(json.dumps(content))
        return
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    for score in SCORES:
        table = Table(score, *(str(i + 1) for i in range(len(files))))
        for i, (name, row) in enumerate(zip(content["rankings"], content[score], strict=True)):
            table.add_row(f"{i + 1} {name}", *(f"{value:.3f}" for value in row))
        console.print(table)
    counts = ", ".join(map(str, content["covering"]))
    console.print(f"layers that hold {COVERAGE:.0%} of the TraDy score: {counts}")
    if picture is not None:
        console.print(f"wrote {picture}")
