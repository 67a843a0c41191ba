# SPDX-License-Identifier: Apache-2.0
"""Which program writes an image to a board, and how it is called."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from medyate.boards import Board
from medyate.errors import DataError, ToolchainError

PROGRAMMERS = ("pyocd", "openocd", "picotool", "platformio")
"""A board's record says in which order they are tried. PlatformIO is last: it builds the project again."""
INSTALL = {
    "pyocd": "pip install pyocd",
    "openocd": "apt-get install openocd",
    "picotool": "see https://github.com/raspberrypi/picotool/releases",
    "platformio": "--with platformio downloads its platform",
}


def command(board: Board, image: Path, project: Path, asked: str | None) -> list[str]:
    """The command line that writes `image`, an ELF with its BIN, HEX and UF2 beside it.

    `asked`: one of PROGRAMMERS; None: the first that is here. Raises ToolchainError when none is, DataError when the
    board cannot be written by what is asked for.
    """
    assert board.build is not None
    known = [*board.build.flashers, "platformio"]
    if asked is not None and asked not in known:
        raise DataError(f"{asked} does not write to {board.name}.", f"Give one of {', '.join(known)}.")
    chosen = asked or next((name for name in known if _is_here(name, board)), None)
    if chosen is None:
        ways = "; ".join(f"{name}: {INSTALL[name]}" for name in known)
        raise ToolchainError(f"no program that writes to {board.name} is installed.", f"Install one: {ways}.")
    if chosen != "platformio" and _path(chosen) is None:
        raise ToolchainError(f"'{chosen}' is not installed.", f"Install it: {INSTALL[chosen]}.")
    if chosen == "platformio":
        env = f"{board.name}-public"
        return [sys.executable, "-m", "platformio", "run", "-d", str(project), "-e", env, "-t", "upload"]
    name = board.build.flashers[chosen]
    program = str(_path(chosen))
    return {
        "pyocd": [program, "flash", "--target", name, str(image.with_suffix(".hex"))],
        "openocd": [program, *shlex.split(name), "-c", f"program {{{image}}} verify reset exit"],
        "picotool": [program, "load", "--verify", "--execute", str(image.with_suffix(".uf2"))],
    }[chosen]


def run(line: list[str]) -> None:
    """Writes the board; what the program says goes to the terminal. Raises ToolchainError when it fails."""
    name = "platformio" if "platformio" in line else Path(line[0]).name
    try:
        done = subprocess.run(line, check=False, stdout=sys.stderr)
    except OSError as error:
        raise ToolchainError(f"'{name}' cannot be started: {error.strerror}.", "Install it again.") from error
    if done.returncode != 0:
        remedy = "Look at what it said above, at the board's power, and at the probe."
        if name == "pyocd":
            remedy += f" pyOCD may lack the part: pyocd pack install {line[line.index('--target') + 1]}."
        raise ToolchainError(f"{name} did not write the board (status {done.returncode}).", remedy)


def _path(name: str) -> str | None:
    """Of a program: on the PATH, or beside Python, where pip puts it."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.is_file() else None)


def _is_here(name: str, board: Board) -> bool:
    """Whether a program is installed; PlatformIO with the board's platform, so that nothing is downloaded unasked."""
    if name != "platformio":
        return _path(name) is not None
    assert board.build is not None
    core = Path(os.environ.get("PLATFORMIO_CORE_DIR", Path.home() / ".platformio"))
    return (core / "platforms" / Path(board.build.public["platform"]).stem.removeprefix("platform-")).is_dir()
