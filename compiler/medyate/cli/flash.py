# SPDX-License-Identifier: Apache-2.0
"""`medyate flash`: a compiled image onto a board."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from medyate.boards import BOARDS
from medyate.build.flashing import PROGRAMMERS, command, run
from medyate.cli.options import Json, show
from medyate.errors import DataError
from medyate.options import choice
from medyate.run.train import Compiled
from medyate.terminal import console

Folder = Annotated[Path, typer.Argument(help="What `compile` wrote for a board.", metavar="OUT")]
Programmer = Annotated[
    str | None, typer.Option("--with", help=f"{', '.join(PROGRAMMERS)}; default: the first that is installed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the command, write nothing.")]


def flash(folder: Folder, programmer: Programmer = None, dry_run: DryRun = False, json_: Json = False) -> None:
    """Writes a compiled image to a board with a debug probe or over USB; it says which program it calls."""
    if programmer is not None:
        choice(programmer, PROGRAMMERS, "--with")
    compiled = Compiled.read(folder)
    target = str(compiled.model["target"])
    if not BOARDS[target].is_real:
        real = ", ".join(name for name, board in BOARDS.items() if board.is_real)
        raise DataError(f"the image in '{folder}' is for {target}, which is no board.", f"Compile for one of {real}.")
    line = command(BOARDS[target], compiled.image.resolve(), (folder / "project").resolve(), programmer)
    if not dry_run:
        run(line)
    content = {"target": target, "image": str(compiled.image), "command": line, "written": not dry_run}
    show(content, json_, lambda: console.print(shlex.join(line) if dry_run else f"{target} is written"))
