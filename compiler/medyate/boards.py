# SPDX-License-Identifier: Apache-2.0
"""Every board and emulated target: core, RAM areas, flash sectors, build; `firmware/boards/<name>/board.toml`.

Times are of parts at 3.3 V and the widest parallelism without an external supply: typical and largest, from the
documents that each record names. A typical time that nobody has confirmed is marked so; then the largest counts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medyate.assets import assets
from medyate.errors import BudgetError, DataError

KIB = 1024


@dataclass(frozen=True)
class Area:
    """RAM without a gap."""

    name: str
    address: int
    bytes: int


@dataclass(frozen=True)
class Sectors:
    """Equal sectors that follow each other."""

    count: int
    bytes: int
    erase_ms: float
    """Of one sector, typical."""
    erase_max_ms: float
    """Of one sector, largest."""


@dataclass(frozen=True)
class Flash:
    """The flash that holds code and banks."""

    address: int
    runs: tuple[Sectors, ...]
    """In order of address, without a gap."""
    unit_bytes: int
    """What one program operation writes; programmed once per erase."""
    program_us: float
    """Of one unit, typical."""
    program_max_us: float
    """Of one unit, largest."""
    parallelism: str
    """At which the times hold: how many bits are written at once."""
    typical: str
    """'confirmed', 'unconfirmed' or 'none': how the typical times stand; none: the largest are given in their place."""
    cycles: int
    """Erases that the data sheet guarantees for a sector."""
    halves: int
    """Parts of equal size that work on their own: an operation stalls what is fetched from the same part."""
    source: str

    @property
    def bytes(self) -> int:
        """All sectors."""
        return sum(run.count * run.bytes for run in self.runs)

    @cached_property
    def sectors(self) -> tuple[tuple[int, Sectors], ...]:
        """(address, run) of every sector."""
        found, address = [], self.address
        for run in self.runs:
            for _ in range(run.count):
                found.append((address, run))
                address += run.bytes
        return tuple(found)

    def half(self, address: int) -> int:
        """Which part an address lies in."""
        return (address - self.address) * self.halves // self.bytes


@dataclass(frozen=True)
class Build:
    """How a program for a target is built."""

    port: str
    """Folder of its port, start-up code and linker script: in `firmware/boards/common`, or `.` for the board's own."""
    kernels: str
    """Family of the kernels."""
    cpu: str = ""
    """-mcpu of the compiler; '' on this machine."""
    float_abi: str = "soft"
    """-mfloat-abi of the compiler: `hard` lets it use the registers of vectors. No program has a float."""
    clock_hz: int = 0
    machine: str = ""
    """QEMU's name of it; '' if it is not emulated."""
    defines: tuple[str, ...] = ()
    symbols: Mapping[str, int] = field(default_factory=dict)
    """Of the linker script."""
    shared: tuple[str, ...] = ()
    """Further folders of `firmware/boards/common` whose sources belong to it."""
    static_bytes: int = 0
    """.data and .bss of a real board's port, code in RAM included."""
    uf2_family: int = 0
    """Family number of UF2 files; 0: the part takes none."""
    public: Mapping[str, str] = field(default_factory=dict)
    """PlatformIO's public `platform`, `board` and `upload_protocol`."""
    flashers: Mapping[str, str] = field(default_factory=dict)
    """What pyocd (target) and openocd (scripts) call it; picotool needs no name."""


@dataclass(frozen=True)
class Board:
    """A chip that can be planned for, or a target that `compile` builds for."""

    name: str
    title: str
    core: str
    areas: tuple[Area, ...] = ()
    """RAM that data and stack may use, the fastest to reach for general use first; none: as much as --ram says."""
    flash: Flash | None = None
    """None: emulated, as large as the banks need."""
    build: Build | None = None
    """How `compile --target` builds for it; None: it is planned for only."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """In words, with their sources: clock, uart, current, flash_stall."""

    @property
    def is_real(self) -> bool:
        """Whether an image for it runs on a chip: neither on this machine nor in QEMU's machines."""
        return self.build is not None and self.flash is not None

    @property
    def port_bytes(self) -> int:
        """Static data of its port, beyond what every image has."""
        return 0 if self.build is None else self.build.static_bytes

    @property
    def ram_bytes(self) -> int:
        """All areas."""
        return sum(area.bytes for area in self.areas)

    def to_json(self) -> dict[str, Any]:
        """As `boards --json` prints it."""
        return {
            **asdict(self),
            "target": self.build is not None,
            "ram_bytes": self.ram_bytes,
            "flash_bytes": self.flash.bytes if self.flash else 0,
        }


def _read(folder: Path) -> Board:
    """The record of one folder."""
    facts = tomllib.loads((folder / "board.toml").read_text())
    areas = tuple(Area(area["name"], area["address"], area["kib"] * KIB) for area in facts.get("areas", ()))
    flash = facts.get("flash")
    if flash is not None:
        runs = tuple(
            Sectors(run["count"], run["kib"] * KIB, run["erase_ms"], run["erase_max_ms"]) for run in flash.pop("runs")
        )
        flash = Flash(runs=runs, **flash)
    build = facts.get("build")
    if build is not None:
        build = Build(**{**build, **{key: tuple(build.get(key, ())) for key in ("defines", "shared")}})
    return Board(folder.name, facts["title"], facts["core"], areas, flash, build, facts.get("facts", {}))


def _order(board: Board) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Where it is listed: this machine, emulated targets, chips; numbers in names by what they are worth."""
    parts = re.findall(r"(\d+)|(\D+)", board.name)
    return board.name != "host", board.flash is not None, [(int(digits or 0), text) for digits, text in parts]


FOLDERS = "firmware/boards"
_ALL = sorted((_read(path.parent) for path in (assets() / FOLDERS).glob("*/board.toml")), key=_order)
BOARDS: dict[str, Board] = {board.name: board for board in _ALL}
TARGETS = tuple(board.name for board in _ALL if board.build is not None)
"""What `compile --target` builds for."""
MACHINES = {board.name: board.build.machine for board in _ALL if board.build is not None and board.build.machine}
"""QEMU's name of each target that it emulates."""
HERE = ("host", *MACHINES)
"""Targets whose images this machine runs."""
CHIPS = tuple(board.name for board in _ALL if board.flash is not None)
"""What --board plans for."""


def find(name: str) -> Board:
    """A chip by its name. Raises DataError."""
    board = BOARDS.get(name)
    if board is None:
        raise DataError(f"board '{name}' is unknown.", f"It is one of {', '.join(CHIPS)}; see `medyate boards`.")
    if board.flash is None:
        raise DataError(
            f"'{name}' is a target, whose memory is as large as --ram says.", f"Plan for one of {', '.join(CHIPS)}."
        )
    return board


def with_limit(board: Board, ram_bytes: int | None) -> int:
    """Bytes of RAM to plan for: all of the board, or less. Raises BudgetError where more is asked for."""
    if ram_bytes is not None and ram_bytes > board.ram_bytes:
        raise BudgetError(
            f"--ram asks for {ram_bytes:,} B, {board.name} has {board.ram_bytes:,} B of RAM.",
            "Leave --ram out, or give what the program may take of the board.",
        )
    return board.ram_bytes if ram_bytes is None else ram_bytes


def stand_ins(areas: tuple[Area, ...]) -> tuple[Area, ...]:
    """The same areas one behind the other from 0 on: where an emulated machine has room for them.

    The first one, which holds the stack, stays lowest: what overflows it faults.
    """
    found, address = [], 0
    for area in areas:
        found.append(replace(area, address=address))
        address += -(-area.bytes // (4 * KIB)) * (4 * KIB)
    return tuple(found)
