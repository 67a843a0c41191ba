# SPDX-License-Identifier: Apache-2.0
"""Counts an emulated program's instructions by where they were called from: builds and starts `counter.c`."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medyate import cache
from medyate.build.compile import require
from medyate.errors import ToolchainError
from medyate.run.transport import emulator

SOURCE = Path(__file__).with_name("counter.c")
FLAGS = ("-std=c11", "-O2", "-shared", "-fPIC")
PROBE = ("-M", "none", "-display", "none", "-monitor", "none", "-serial", "none")
SECONDS = 30
"""A compiler or emulator that takes longer hangs."""
TRIED = "It was tried with gcc 12 and QEMU 7.2, whose plugins are switched on."


@dataclass(frozen=True)
class Span:
    """One call of a function."""

    function: int
    """Its address."""
    counts: dict[int, int]
    """Instructions by the address of the call that led to them; 0: none of those that were asked for."""
    blocks: Counter[tuple[int, int]]
    """How often code from one address to another ran from start to end, where that was asked for."""

    @property
    def instructions(self) -> int:
        """All of them."""
        return sum(self.counts.values())


@contextmanager
def built() -> Iterator[Path]:
    """The plugin, compiled at its first use. Raises ToolchainError where it cannot be built, or QEMU refuses it."""
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        path = (cache.folder() or Path(name)) / f"counter-{_digest()}.so"
        if not (path.is_file() and _fault(_probe(path)) is None):
            _build(path)
            if (fault := _fault(_probe(path))) is not None:
                raise ToolchainError(f"QEMU does not load the plugin: {fault}.", TRIED)
        yield path


def arguments(
    plugin: Path, out: Path, spans: Sequence[int], watched: Sequence[tuple[int, int]], *, blocks: bool = False
) -> str:
    """What QEMU's -plugin is given: functions whose calls are counted, and ranges of those that are told apart."""
    parts = [_escaped(plugin), f"out={_escaped(out)}", f"blocks={'on' if blocks else 'off'}"]
    parts += [f"span={address:x}" for address in spans]
    return ",".join([*parts, *(f"watch={begin:x}-{end:x}" for begin, end in watched)])


def read(out: Path) -> list[Span]:
    """The spans in the order in which they ended."""
    found: list[Span] = []
    for line in out.read_text().splitlines():
        match line.split():
            case ["span", function]:
                found.append(Span(int(function, 16), {}, Counter()))
            case ["block", begin, end, runs]:
                found[-1].blocks[int(begin, 16), int(end, 16)] += int(runs)
            case [site, instructions]:
                found[-1].counts[int(site, 16)] = int(instructions)
    return found


def _escaped(path: Path) -> str:
    """As a value among QEMU's options."""
    return str(path).replace(",", ",,")


def _digest() -> str:
    return hashlib.sha256(SOURCE.read_bytes() + " ".join((*FLAGS, platform.machine())).encode()).hexdigest()[:16]


def _build(path: Path) -> None:
    """Whole or not at all: other programs may want it at the same time."""
    compiler = require(os.environ.get("CC", "cc"), "apt-get install gcc")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=cache.NEW) as folder:
            made = Path(folder) / path.name
            if (fault := _fault([compiler, *FLAGS, str(SOURCE), "-o", str(made)])) is not None:
                raise ToolchainError(f"the plugin for QEMU cannot be built: {fault}.", TRIED)
            os.replace(made, path)
    except OSError as error:
        what = f"the plugin for QEMU cannot be written to '{path.parent}': {error.strerror}."
        raise ToolchainError(what, f"Name another folder with {cache.VARIABLE}.") from error


def _probe(path: Path) -> list[str]:
    return [emulator(), *PROBE, "-plugin", f"{_escaped(path)},probe=on"]


def _fault(command: list[str]) -> str | None:
    """What a program ended with; None: all is well."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return None if done.returncode == 0 else next((line for line in lines if "error" in line), lines[0])
