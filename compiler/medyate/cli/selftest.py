# SPDX-License-Identifier: Apache-2.0
"""`medyate selftest`: the check list by which the owner of a board validates it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medyate import artefact
from medyate.cli.options import Baud, Json, LinkKey, show, tell
from medyate.options import link_key
from medyate.progress import Bar
from medyate.run.transport import BAUD
from medyate.terminal import console
from medyate.training import busy

MARKS = {True: "ok", False: "FAILED", None: "not done"}


def selftest(
    out: Annotated[Path, typer.Argument(help="A folder made by `compile`, whose image runs on the target.")],
    on: Annotated[str, typer.Option(help="host, qemu or serial:PORT.")] = "host",
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what the target has learned.")] = False,
    flash: Annotated[bool, typer.Option(help="Write the banks, which is most of the test.")] = True,
    reset: Annotated[bool, typer.Option(help="Ask for the board's reset button, where the link may not do it.")] = True,
    baud: Baud = BAUD,
    link_key_: LinkKey = None,
    json_: Json = False,
) -> None:
    """Checks a board with its image: training, flash, memory, times. Nothing that was learned is lost unasked.

    It needs no data. The same steps are made on this machine, whose integers are the right ones.
    """
    from medyate.run.train import Compiled
    from medyate.selftest import Options
    from medyate.selftest import selftest as test

    compiled = Compiled.read(out)
    with artefact.lock(out, busy(out)), Bar() as bar:
        options = Options(on, baud, link_key(link_key_), fresh, flash, reset, tell, bar.show)
        result = test(compiled, options)
    show(result, json_, lambda: _print(result))
    if not result["passed"]:
        raise typer.Exit(1)


def _print(result: dict[str, Any]) -> None:
    for check in result["checks"]:
        console.print(f"{MARKS[check['passed']]:<8}  {check['name']}: {check['said']}", markup=False)
    count = {mark: sum(MARKS[check["passed"]] == mark for check in result["checks"]) for mark in MARKS.values()}
    parts = [f"{count['ok']} of {len(result['checks'])} checks passed"]
    parts += [f"{count[mark]} {mark.lower()}" for mark in ("FAILED", "not done") if count[mark]]
    console.print(f"{result['target']} on {result['on']}: {', '.join(parts)}", markup=False)
