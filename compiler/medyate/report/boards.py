# SPDX-License-Identifier: Apache-2.0
"""The boards, as `medyate boards` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from medyate.boards import BOARDS, KIB, Board, Flash


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


def _ram(board: Board) -> str:
    areas = [f"{area.name} {kib(area.bytes)} at 0x{area.address:08x}" for area in board.areas]
    return ", ".join(areas) or "as much as --ram says"


def _flash(flash: Flash) -> Iterator[str]:
    runs = " + ".join(f"{run.count} x {kib(run.bytes)}" for run in flash.runs)
    erase = ", ".join(f"{run.erase_ms:g}" for run in flash.runs)
    stalls = "all code" if flash.halves == 1 else f"code in the same 1/{flash.halves} of the flash"
    yield f"flash  {runs} at 0x{flash.address:08x}; an operation stalls {stalls}"
    yield f"       erase {erase} ms, {flash.unit_bytes} B in {flash.program_us:g} us, {flash.cycles:,} cycles"
    yield f"       {flash.source}"
