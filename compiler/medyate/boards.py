# SPDX-License-Identifier: Apache-2.0
"""Every board and emulated target: core, RAM areas, flash sectors. The only room for such facts.

Times are typical of such parts at 3.3 V and the widest parallelism without an external supply, and are there to
compare and to estimate; the worst case is about twice as long. They were not checked against the documents that each
record names: do that before a product relies on them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

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
class Board:
    """A chip that can be planned for, or a target that `compile` builds for."""

    name: str
    title: str
    core: str
    areas: tuple[Area, ...] = ()
    """RAM that data and stack may use, the fastest to reach for general use first; none: as much as --ram says."""
    flash: Flash | None = None
    """None: emulated, as large as the banks need."""
    target: bool = False
    """Whether `compile --target` builds for it."""

    @property
    def ram_bytes(self) -> int:
        """All areas."""
        return sum(area.bytes for area in self.areas)

    def to_json(self) -> dict[str, Any]:
        """As `boards --json` prints it."""
        return {**asdict(self), "ram_bytes": self.ram_bytes, "flash_bytes": self.flash.bytes if self.flash else 0}


STM32F405 = Board(
    "stm32f405",
    "STM32F405xG, 1 MiB of flash",
    "Cortex-M4F",
    # RM0090, 2.3.1: SRAM1 112 KiB and SRAM2 16 KiB follow each other; the core alone reaches the CCM, no DMA does.
    (Area("SRAM1+2", 0x20000000, 128 * KIB), Area("CCM", 0x10000000, 64 * KIB)),
    # DS8626, "Flash memory programming", x32: erase 250, 550, 1000 ms, word 16 us. RM0090, 3: sectors; an operation
    # stalls every fetch from flash.
    Flash(
        0x08000000,
        (Sectors(4, 16 * KIB, 250.0), Sectors(1, 64 * KIB, 550.0), Sectors(7, 128 * KIB, 1000.0)),
        unit_bytes=4,
        program_us=16.0,
        cycles=10_000,
        halves=1,
        source="DS8626, typical values at x32",
    ),
)
STM32F746 = Board(
    "stm32f746",
    "STM32F746xG, 1 MiB of flash",
    "Cortex-M7",
    # RM0385, 2.3: DTCM 64 KiB, SRAM1 240 KiB and SRAM2 16 KiB follow each other.
    (Area("DTCM+SRAM1+2", 0x20000000, 320 * KIB),),
    # DS10916, "Flash memory programming", x32: erase 200, 500, 1000 ms, word 16 us. RM0385, 3: sectors.
    Flash(
        0x08000000,
        (Sectors(4, 32 * KIB, 200.0), Sectors(1, 128 * KIB, 500.0), Sectors(3, 256 * KIB, 1000.0)),
        unit_bytes=4,
        program_us=16.0,
        cycles=10_000,
        halves=1,
        source="DS10916, typical values at x32",
    ),
)
STM32H743 = Board(
    "stm32h743",
    "STM32H743xI, 2 MiB of flash",
    "Cortex-M7",
    # RM0433, 2.4: SRAM1 128 KiB, SRAM2 128 KiB and SRAM3 32 KiB follow each other.
    (
        Area("AXI", 0x24000000, 512 * KIB),
        Area("SRAM1+2+3", 0x30000000, 288 * KIB),
        Area("DTCM", 0x20000000, 128 * KIB),
        Area("SRAM4", 0x38000000, 64 * KIB),
    ),
    # DS12110, "Flash memory programming", x64: sector 1000 ms (1100 at x32), flash word of 256 bits 100 us.
    # RM0433, 4: two banks of 8 sectors; one is read while the other is written. A flash word carries ECC.
    Flash(
        0x08000000,
        (Sectors(16, 128 * KIB, 1000.0),),
        unit_bytes=32,
        program_us=100.0,
        cycles=10_000,
        halves=2,
        source="DS12110, typical values at x64",
    ),
)
NRF52840 = Board(
    "nrf52840",
    "nRF52840, 1 MiB of flash",
    "Cortex-M4F",
    # Product specification, "Memory": 8 slaves of 8 KiB and one of 192 KiB follow each other.
    (Area("RAM", 0x20000000, 256 * KIB),),
    # Product specification, "NVMC": page 85 ms, word 41 us; it gives no typical value, these are the largest. The
    # CPU is halted while the NVMC writes or erases, where it executes from flash.
    Flash(
        0x00000000,
        (Sectors(256, 4 * KIB, 85.0),),
        unit_bytes=4,
        program_us=41.0,
        cycles=10_000,
        halves=1,
        source="nRF52840 product specification, largest values (it gives no typical ones)",
    ),
)

_MPS2 = (Area("SSRAM2+3", 0x20000000, 4096 * KIB),)
_MPS3 = (Area("SRAM", 0x31000000, 4096 * KIB),)
"""What the emulated machines have for the RAM of a real board; hw/arm/mps2.c and mps2-tz.c of QEMU 7.2."""

_ALL = (
    Board("host", "this machine, the same C natively", "native", target=True),
    Board("qemu-m4", "QEMU mps2-an386", "Cortex-M4", _MPS2, target=True),
    Board("qemu-m7", "QEMU mps2-an500", "Cortex-M7", _MPS2, target=True),
    Board("qemu-m55", "QEMU mps3-an547", "Cortex-M55", _MPS3, target=True),
    STM32F405,
    STM32F746,
    STM32H743,
    NRF52840,
)
BOARDS: dict[str, Board] = {board.name: board for board in _ALL}
TARGETS = tuple(board.name for board in _ALL if board.target)
"""What `compile --target` and `verify --on` build for."""
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
