# SPDX-License-Identifier: Apache-2.0
"""`medyate strategies`: every selection method, where it comes from and where it runs."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from medyate.strategies import STRATEGIES
from medyate.terminal import plain


def strategies(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Every strategy that chooses what is trained: name, source, and whether it runs on the device."""
    if json_:
        listed = [{"name": s.name, "source": s.source, "runs_on": list(s.runs_on)} for s in STRATEGIES.values()]
        print(json.dumps({"strategies": listed}))
        return
    table = Table("strategy", "runs on", "what it trains", "source")
    for s in STRATEGIES.values():
        table.add_row(s.name, ", ".join(s.runs_on), s.says, s.source)
    plain(soft_wrap=False).print(table)
