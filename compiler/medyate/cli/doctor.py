# SPDX-License-Identifier: Apache-2.0
"""`medyate doctor`, `medyate boards`, `medyate version`: what there is on this machine and in this package."""

from __future__ import annotations

import itertools
import shutil

import typer

from medyate import extras
from medyate.boards import BOARDS
from medyate.build.compile import APT
from medyate.cli.options import Json, show
from medyate.terminal import console
from medyate.version import VERSION


def doctor(json_: Json = False) -> None:
    """What is installed, what is missing, and the command that installs it."""
    tools = {
        "cc": "apt-get install gcc",
        "make": "apt-get install make",
        "arm-none-eabi-gcc": APT,
        "qemu-system-arm": APT,
    }
    modules = dict.fromkeys(("PIL", "platformio", *itertools.chain(*extras.EXTRAS.values())))
    rows = [(name, shutil.which(name) is not None, fix) for name, fix in tools.items()]
    rows += [(name, extras.installed(name), extras.install([name])) for name in modules]
    content = {name: {"installed": found, "install": fix} for name, found, fix in rows}

    def human() -> None:
        for name, found, fix in rows:
            console.print(f"{'ok     ' if found else 'MISSING'}  {name}" + ("" if found else f"    {fix}"))

    show(content, json_, human)
    if not all(found for _, found, _ in rows):
        raise typer.Exit(2)


def boards(json_: Json = False) -> None:
    """Every chip that --board plans for, and every target that `compile` builds for."""
    from medyate.report.boards import lines

    content = {name: board.to_json() for name, board in BOARDS.items()}
    show(content, json_, lambda: console.print("\n".join(lines())))


def version(json_: Json = False) -> None:
    """The version of medyate."""
    show({"version": VERSION}, json_, lambda: console.print(VERSION))
