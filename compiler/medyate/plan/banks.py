# SPDX-License-Identifier: Apache-2.0
"""Where the two banks lie among the reserved sectors. The device walks the same list: runtime_c/src/banks.c."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medyate.errors import BudgetError, DataError
from medyate.ledger import BANK_HEADER_BYTES


class Run(NamedTuple):
    """Equal sectors that follow each other."""

    sectors: int
    sector_bytes: int


class Bank(NamedTuple):
    """Whole sectors; the address counts from the first reserved sector."""

    address: int
    size: int
    """Bytes."""


@dataclass(frozen=True)
class BankFlash:
    """The sectors that are reserved for the banks, in the order of their addresses."""

    runs: tuple[Run, ...]
    unit_bytes: int
    """Program unit, 1 to 32 bytes, a power of two: programmed once per erase."""

    def __post_init__(self) -> None:
        """Raises DataError for sectors that no part has."""
        if self.unit_bytes not in (1, 2, 4, 8, 16, 32):
            raise DataError(f"a program unit of {self.unit_bytes} B does not exist.", "It is 1, 2, 4, 8, 16 or 32 B.")
        for count, size in self.runs:
            if count < 1 or size < 1 or size % self.unit_bytes:
                raise DataError(
                    f"{count} sectors of {size} B are no flash.", f"Sectors are multiples of {self.unit_bytes} B."
                )

    @property
    def size(self) -> int:
        """Bytes of all sectors."""
        return sum(count * size for count, size in self.runs)

    @property
    def sectors(self) -> int:
        """How many."""
        return sum(count for count, _ in self.runs)

    @property
    def image_sizes(self) -> tuple[int, int, int]:
        """Bytes of an image of the emulated flash, see flash_emu.h: the memory, with marks, and with counts."""
        marked = self.size + -(-(self.size // self.unit_bytes) // 4)
        return self.size, marked, marked + 4 * self.sectors

    def image_erases(self, image: bytes) -> list[int]:
        """Erases of each sector in an image of the emulated flash: its last part."""
        return list(struct.unpack_from(f"<{self.sectors}I", image, self.image_sizes[1]))


SECTOR_BYTES = 4096
UNIT_BYTES = 8
EMULATED_FLASH_MAX = 12 << 20
"""What the emulated boards keep apart for the banks."""


def place_banks(runs: Sequence[tuple[int, int]], payload_bytes: int) -> tuple[Bank, Bank]:
    """Bank 0 takes the first sectors that hold a generation, bank 1 the next ones.

    `runs`: (count, bytes) of sectors. Raises BudgetError when they do not suffice.
    """
    needed = BANK_HEADER_BYTES + payload_bytes
    sizes = [0, 0]
    bank = 0
    for count, size in runs:
        left = count
        while left > 0 and bank < 2:
            taken = min(left, -(-(needed - sizes[bank]) // size))
            sizes[bank] += taken * size
            left -= taken
            bank += sizes[bank] >= needed
    if bank < 2:
        raise BudgetError(
            f"two banks of {needed:,} B, each in sectors of its own, do not fit the "
            f"{sum(count * size for count, size in runs):,} B of flash reserved for them.",
            "Train fewer layers (a smaller --ram or a larger --alpha), or reserve more sectors.",
        )
    return Bank(0, sizes[0]), Bank(sizes[0], sizes[1])


def emulated_flash(payload_bytes: int) -> BankFlash:
    """Equal sectors, as many as two banks take. Raises BudgetError."""
    sectors = -(-(BANK_HEADER_BYTES + payload_bytes) // SECTOR_BYTES)
    most = EMULATED_FLASH_MAX // SECTOR_BYTES
    flash = BankFlash((Run(min(2 * sectors, most), SECTOR_BYTES),), UNIT_BYTES)
    place_banks(flash.runs, payload_bytes)
    return flash
