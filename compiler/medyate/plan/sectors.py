# SPDX-License-Identifier: Apache-2.0
"""Which sectors of a board's flash are reserved for the two banks, and what a commit costs there.

Bank 0 takes the first reserved sectors that hold a generation, bank 1 starts at the next sector. Of all places the
one is taken that reserves the fewest bytes; of equal ones the last, so that code stays in one piece. The first
sector holds the vectors. Where small sectors near the start are taken, the code lies behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby
from typing import Any

from medyate.boards import Board, Flash, Sectors
from medyate.errors import BudgetError
from medyate.ledger import BANK_HEADER_BYTES
from medyate.plan.banks import BankFlash, Run, place_banks


@dataclass(frozen=True)
class Bank:
    """Where one generation lies, and how long it takes to write it."""

    address: int
    bytes: int
    sectors: int
    erase_ms: float
    program_ms: float
    """Typical."""
    erase_max_ms: float
    program_max_ms: float

    @property
    def commit_ms(self) -> float:
        """Erase and program, typical."""
        return self.erase_ms + self.program_ms

    @property
    def commit_max_ms(self) -> float:
        """Erase and program, largest."""
        return self.erase_max_ms + self.program_max_ms


@dataclass(frozen=True)
class Reservation:
    """The sectors that the banks have for themselves."""

    runs: tuple[tuple[int, int], ...]
    """(sectors, bytes of one) in order, without a gap, from the address of the first bank on."""
    banks: tuple[Bank, Bank]
    generation_bytes: int
    image_bytes: int
    unit_bytes: int
    code_address: int
    """Of the code but for the vectors: the flash's start, or behind the banks."""
    stalls: bool
    """Whether an operation on a bank stalls the fetch of code."""
    epochs: int
    """Commits until a sector has had the erases of the data sheet."""
    source: str
    parallelism: str
    typical: str
    """How the typical times stand: see boards.Flash."""

    @property
    def bytes(self) -> int:
        """All of them."""
        return sum(count * size for count, size in self.runs)

    @property
    def flash(self) -> BankFlash:
        """As the device walks them."""
        return BankFlash(tuple(Run(*run) for run in self.runs), self.unit_bytes)

    def to_json(self) -> dict[str, Any]:
        """As `plan --json` prints it."""
        banks = [
            {**asdict(bank), "commit_ms": bank.commit_ms, "commit_max_ms": bank.commit_max_ms} for bank in self.banks
        ]
        # The banks take turns: a commit erases each sector of one of them.
        return {**asdict(self), "banks": banks, "reserved_bytes": self.bytes, "erases_per_epoch": 0.5}


def reserve(board: Board, generation_bytes: int, image_bytes: int) -> Reservation:
    """Sectors for two banks beside an image. Raises BudgetError with the numbers when they do not fit."""
    flash = board.flash
    assert flash is not None
    less = "Train fewer layers (a smaller --ram or a larger --alpha), or take a board with more flash."
    if generation_bytes > flash.bytes:
        raise BudgetError(
            f"a bank of {generation_bytes:,} B is larger than the {flash.bytes:,} B of flash of {board.name}.", less
        )
    places = [place for start in range(1, len(flash.sectors)) if (place := _place(flash, start, generation_bytes))]
    if not places:
        raise BudgetError(
            f"{board.name} has too few sectors behind its first one, which holds the vectors, for two banks of "
            f"{generation_bytes:,} B: {_listed(flash)}.",
            less,
        )
    fitting = [(first, end) for first, _, end in places if _code_address(flash, first, end, image_bytes) is not None]
    if not fitting:
        least = min(_address(flash, end) - _address(flash, first) for first, _, end in places)
        raise BudgetError(
            f"an image of {image_bytes:,} B and two banks of {generation_bytes:,} B, in sectors of {least:,} B at "
            f"least, do not fit the {flash.bytes:,} B of flash of {board.name}.",
            less,
        )
    first, end = min(fitting, key=lambda p: (_address(flash, p[1]) - _address(flash, p[0]), -p[0]))
    return _reservation(flash, first, end, generation_bytes, image_bytes)


def _listed(flash: Flash) -> str:
    return ", ".join(f"{run.count} of {run.bytes:,} B" for run in flash.runs)


def _address(flash: Flash, number: int) -> int:
    """Of a sector; of the flash's end, one past the last."""
    return flash.sectors[number][0] if number < len(flash.sectors) else flash.address + flash.bytes


def _place(flash: Flash, start: int, needed: int) -> tuple[int, int, int] | None:
    """(first sector, first of bank 1, one past the last), or None where the flash ends before."""
    sizes = _sizes(flash.sectors[start:])
    try:
        one, two = place_banks([(1, size) for size in sizes], needed - BANK_HEADER_BYTES)
    except BudgetError:
        return None
    ends = list(accumulate(sizes))
    return start, start + ends.index(one.size) + 1, start + ends.index(two.address + two.size) + 1


def _code_address(flash: Flash, first: int, end: int, image: int) -> int | None:
    """Where the code goes: in front of the banks, else behind them; it is not torn further."""
    if image <= _address(flash, first) - flash.address:
        return flash.address
    return _address(flash, end) if image <= flash.address + flash.bytes - _address(flash, end) else None


def _reservation(flash: Flash, first: int, end: int, needed: int, image: int) -> Reservation:
    code = _code_address(flash, first, end, image)
    split = _place(flash, first, needed)
    assert code is not None
    assert split is not None
    banks = tuple(_bank(flash, begin, last, needed) for begin, last in ((first, split[1]), (split[1], end)))
    runs = tuple((sum(1 for _ in same), size) for size, same in groupby(_sizes(flash.sectors[first:end])))
    own = {flash.half(_address(flash, number)) for number in range(first, end)}
    code_halves = {flash.half(flash.address), flash.half(code), flash.half(code + image - 1)}
    return Reservation(
        runs=runs,
        banks=(banks[0], banks[1]),
        generation_bytes=needed,
        image_bytes=image,
        unit_bytes=flash.unit_bytes,
        code_address=code,
        stalls=bool(own & code_halves),
        epochs=2 * flash.cycles,
        source=flash.source,
        parallelism=flash.parallelism,
        typical=flash.typical,
    )


def _sizes(sectors: Sequence[tuple[int, Sectors]]) -> list[int]:
    return [run.bytes for _, run in sectors]


def _bank(flash: Flash, first: int, end: int, needed: int) -> Bank:
    taken = flash.sectors[first:end]
    units = -(-needed // flash.unit_bytes)
    return Bank(
        taken[0][0],
        sum(_sizes(taken)),
        len(taken),
        sum(run.erase_ms for _, run in taken),
        units * flash.program_us / 1000,
        sum(run.erase_max_ms for _, run in taken),
        units * flash.program_max_us / 1000,
    )
