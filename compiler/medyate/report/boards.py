# SPDX-License-Identifier: Apache-2.0
"""The boards, as `medyate boards` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from medyate.boards import BOARDS, KIB, Board, Flash

TYPICAL = {
    "confirmed": "typical to largest",
    "unconfirmed": "typical to largest, the typical ones not confirmed",
    "none": "largest, no typical ones are given",
}
"""What a range of times is from and to, by how the typical ones stand."""


def kib(count: int) -> str:
    """Bytes in KiB, without a point where it needs none."""
    return f"{count / KIB:,.1f}".removesuffix(".0") + " KiB"


def lines() -> Iterator[str]:
    """Core, RAM areas, sectors, times, and what programming stalls; a few lines for each board."""
    for board in BOARDS.values():
        yield f"{board.name:<10} {board.core}, {board.title}"
        yield f"           RAM    {_ram(board)}"
        if board.flash is None:
            yield "           flash  emulated, as large as the banks need"
        else:
            yield from (f"           {line}" for line in _flash(board.flash))
        yield from (f"           {name:<6} {text}" for name, text in board.facts.items())


def _ram(board: Board) -> str:
    areas = [f"{area.name} {kib(area.bytes)} at 0x{area.address:08x}" for area in board.areas]
    return ", ".join(areas) or "as much as --ram says"


def _flash(flash: Flash) -> Iterator[str]:
    runs = " + ".join(f"{run.count} x {kib(run.bytes)}" for run in flash.runs)
    erase = ", ".join(_range(run.erase_ms, run.erase_max_ms) for run in flash.runs)
    program = _range(flash.program_us, flash.program_max_us)
    stalls = "all code" if flash.halves == 1 else f"code in the same 1/{flash.halves} of the flash"
    yield f"flash  {runs} at 0x{flash.address:08x}; an operation stalls {stalls}"
    yield f"       erase {erase} ms, {flash.unit_bytes} B in {program} us, {flash.cycles:,} cycles"
    yield f"       at {flash.parallelism}: {flash.source}; {TYPICAL[flash.typical]}"


def _range(low: float, high: float) -> str:
    """Typical to largest, or one number where both are the same."""
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"
