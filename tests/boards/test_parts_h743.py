# SPDX-License-Identifier: Apache-2.0
"""The emulated STM32H743, without any port of the project: what its manual promises and forbids."""

from __future__ import annotations

from pathlib import Path

import pytest

from boards.bare import Echo, Poker, Target, build
from boards.flash import AFTER, BEFORE, BROKEN, INSIDE, EccCells
from boards.machine import BoardError, PowerCut
from boards.stm32h7 import H743
from boards.uart import Line

TARGET = Target("cortex-m7", 0x08000000, 0x20000000, 0x20010000)
FLASH = 0x52002000
BANK2 = 0x08100000
KEYR2, CR2, SR2, CCR2 = (FLASH + 0x100 + offset for offset in (0x04, 0x0C, 0x10, 0x14))
LOCK, PG, SER, START, X64 = 1, 2, 4, 1 << 7, 3 << 4
BSY, WBNE, QW, EOP = 1, 2, 4, 1 << 16


@pytest.fixture
def board(poke: Path) -> Poker:
    return Poker(H743(), poke)


def unlock(board: Poker) -> None:
    board.store(KEYR2, 0x45670123)
    board.store(KEYR2, 0xCDEF89AB)


def test_bank_2_is_erased_and_programmed_by_code_in_bank_1(board: Poker) -> None:
    assert board.load(CR2) == 0x31
    unlock(board)
    assert board.load(CR2) == 0x30
    before = board.machine.microseconds
    board.store(CR2, X64 | SER | 3 << 8 | START)
    assert board.load(SR2) & (BSY | QW) == BSY | QW
    board.wait_clear(SR2, BSY | QW)
    assert board.machine.microseconds - before == pytest.approx(1000e3, rel=0.01)
    assert board.load(SR2) == EOP
    board.store(CR2, X64 | PG)
    at = BANK2 + 3 * 0x20000
    board.copy(at, 0xA0, 4)
    assert board.load(SR2) & WBNE
    board.copy(at + 16, 0xA4, 4)
    board.wait_clear(SR2, BSY | QW)
    assert [board.load(at + 4 * n) for n in range(9)] == [0xA0 + n for n in range(8)] + [0xFFFFFFFF]
    board.store(at + 32, 0x1234, 2)
    board.store(CR2, X64 | PG | 1 << 6)
    assert board.load(at + 32) == 0xFFFF1234
    cells = board.machine.cells
    assert (cells.erases, cells.programs, cells.typical_us) == ({11: 1}, 2, 1000e3 + 200)
    assert board.refused() == []


def test_code_in_the_bank_waits(board: Poker) -> None:
    board.store(FLASH + 4, 0x45670123)
    board.store(FLASH + 4, 0xCDEF89AB)
    board.store(FLASH + 0x0C, X64 | SER | 7 << 8 | START)
    assert board.wait_clear(FLASH + 0x10, QW) == 0
    assert board.machine.microseconds > 1000e3
    assert board.refused() == []


@pytest.mark.parametrize(
    ("control", "stores", "refusal", "flag"),
    [
        (None, ((0, 4),), "PGSERR: a store while locked", 18),
        (X64, ((0, 4),), "PGSERR: a store without PG", 18),
        (X64 | SER, ((0, 4),), "PGSERR: a store without PG", 18),
        (X64 | PG, ((0, 4), (32, 4)), "INCERR: another flash word before the last was full", 21),
        (X64 | PG, ((0, 4), (0, 4)), "STRBERR: a byte twice", 19),
    ],
)
def test_stores_that_the_controller_refuses(
    board: Poker, control: int | None, stores: tuple[tuple[int, int], ...], refusal: str, flag: int
) -> None:
    if control is not None:
        unlock(board)
        board.store(CR2, control)
    for offset, size in stores:
        board.store(BANK2 + offset, 0, size)
    assert board.refused() == [f"FLASH: {refusal}"]
    assert board.load(SR2) == 1 << flag
    if control is not None:
        board.store(BANK2, 0)
        assert board.refused()[0].startswith("FLASH: PGSERR")
        board.store(CR2, X64 | PG)
        board.store(CCR2, 0x0FEF0000)
        board.copy(BANK2, 1, 8)
        assert board.refused() == []
        assert board.load(BANK2) == 1


def test_a_word_that_is_programmed_twice_breaks(board: Poker) -> None:
    unlock(board)
    board.store(CR2, X64 | PG)
    board.copy(BANK2, 0x10, 8)
    board.copy(BANK2 + 32, 0x20, 8)
    assert board.load(BANK2) == 0x10
    board.copy(BANK2, 0x0F00, 8)
    assert board.refused() == ["FLASH: a flash word is programmed twice without an erase: its ECC breaks"]
    board.wait_clear(SR2, QW)
    assert board.word("faults") == 0
    assert board.load(BANK2 + 32) == 0x20
    assert board.word("faults") == 0
    board.load(BANK2)
    assert board.word("faults") == 1
    assert board.load(SR2) & 1 << 26
    assert board.load(0xE000ED38) == BANK2
    assert board.ask(board.LOAD_FOUR, BANK2 + 32) == 0x23
    assert board.word("faults") == 1
    board.copy(BANK2 + 64, 0x30, 8)
    board.copy(BANK2 + 64, 0, 8)
    assert len(board.refused()) == 1
    board.ask(board.LOAD_FOUR, BANK2 + 56)  # two words that are good, then two that are not
    assert board.word("faults") == 3
    board.store(CR2, X64 | SER | START)
    board.wait_clear(SR2, QW)
    assert board.load(BANK2) == 0xFFFFFFFF
    assert board.ask(board.LOAD_FOUR, BANK2 + 24) == 0xFFFFFFFF
    assert board.word("faults") == 3


def test_erases_that_the_controller_refuses(board: Poker) -> None:
    board.store(CR2, X64 | SER | START)
    assert board.refused() == ["FLASH: CR is written while locked"]
    unlock(board)
    board.store(CR2, X64 | START)
    assert board.refused() == ["FLASH: PGSERR: START without SER or BER alone"]
    board.store(CR2, X64 | SER | START)
    assert board.refused() == ["FLASH: PGSERR: an erase while an error flag is set"]
    board.store(CCR2, 1 << 18)
    board.store(CR2, X64 | PG)
    board.store(BANK2, 0)
    board.store(CR2, X64 | PG | SER | START)
    assert board.refused() == ["FLASH: PGSERR: an erase while the write buffer is not empty"]
    board.store(CR2, X64)
    assert board.refused() == ["FLASH: PG is cleared while the write buffer is not empty: what it holds is lost"]
    assert not board.load(SR2) & WBNE
    board.store(FLASH + 0x04, 1)
    board.load(BANK2)
    assert board.refused() == ["FLASH: a wrong key"]
    assert board.word("faults") == 1
    board.store(KEYR2, 0x45670123)
    board.load(BANK2)
    assert board.refused() == ["FLASH: KEYR is written while unlocked"]
    unlock(board)
    assert board.load(CR2) & LOCK
    assert board.machine.cells.operations == 0


@pytest.mark.parametrize("phase", [BEFORE, INSIDE, AFTER])
def test_power_cuts(board: Poker, phase: int, tmp_path: Path) -> None:
    machine, cells = board.machine, board.machine.cells
    assert isinstance(cells, EccCells)
    unlock(board)
    board.store(CR2, X64 | PG)
    cells.cut_at, cells.cut_phase = 2, phase
    with pytest.raises(PowerCut):
        board.copy(BANK2, 0x55AA55AA, 16)
    assert cells.get(0x100000, 4) == (0x55AA55AA).to_bytes(4, "little")
    word = cells.get(0x100020, 32)
    assert {BEFORE: word == b"\xff" * 32, AFTER: word[:4] == (0x55AA55B2).to_bytes(4, "little")}.get(phase, True)
    assert (cells.states[0x8001] == BROKEN) == (phase == INSIDE)
    cells.write_file(tmp_path / "cells")
    other = H743()
    other.cells.read_file(tmp_path / "cells")
    assert isinstance(other.cells, EccCells)
    assert other.cells.states == cells.states
    machine.power_on()
    machine.run(20_000)
    board.load(BANK2 + 32)
    assert board.word("faults") == (phase == INSIDE)


def test_an_erase_that_is_cut_leaves_broken_words(board: Poker) -> None:
    cells = board.machine.cells
    assert isinstance(cells, EccCells)
    cells.put(0x100000, bytes(0x20000))
    unlock(board)
    cells.cut_at, cells.cut_phase = 1, INSIDE
    with pytest.raises(PowerCut):
        board.store(CR2, X64 | SER | START)
    assert 0 < sum(state == BROKEN for state in cells.states) <= 0x1000
    board.machine.power_on()
    board.machine.run(20_000)
    board.load(0x0811FFFC)
    assert board.word("faults") == 1
    unlock(board)
    board.store(CR2, X64 | SER | START)
    board.wait_clear(SR2, QW)
    assert board.load(0x0811FFFC) == 0xFFFFFFFF
    assert board.word("faults") == 1


def test_broken_words_may_be_looked_at_with_faults_ignored(board: Poker) -> None:
    cells = board.machine.cells
    unlock(board)
    board.store(CR2, X64 | PG)
    cells.cut_at, cells.cut_phase = 1, INSIDE
    with pytest.raises(PowerCut):
        board.copy(BANK2, 0x55AA55AA, 8)
    board.machine.power_on()
    board.machine.run(20_000)
    board.store(0xE000ED14, board.load(0xE000ED14) | 0x100)
    board.ask(board.FAULTMASK, 0, 1)
    board.load(BANK2)
    assert board.load(SR2) & 1 << 26
    board.ask(board.FAULTMASK, 0, 0)
    assert board.word("faults") == 0
    board.load(BANK2)
    assert board.word("faults") == 1


def test_memories_end_where_the_chips_do(board: Poker, poke: Path) -> None:
    for address in (0x0, 0xFFFC, 0x20011000, 0x2001FFFC, 0x24000000, 0x2407FFFC, 0x38000000, 0x3800FFFC):
        board.store(address, 0x600D)
        assert board.load(address) == 0x600D
    assert board.load(0x081FFFFC) == 0xFFFFFFFF
    for address in (0x10000, 0x20020000, 0x24080000, 0x38010000, 0x08200000):
        with pytest.raises(BoardError, match=f"load at {address:#010x}"):
            Poker(board.machine, poke).load(address)


def test_an_sram_of_domain_2_needs_its_clock(board: Poker, poke: Path) -> None:
    with pytest.raises(BoardError, match="SRAM2 is used at 0x30020000"):
        board.store(0x30020000, 1)
    board = Poker(board.machine, poke)
    board.store(0x580244DC, 1 << 30)
    board.store(0x30020000, 0x600D)
    assert board.load(0x30020000) == 0x600D
    with pytest.raises(BoardError, match="SRAM1 is used"):
        board.load(0x3001FFFC)


RCC, PWR = 0x58024400, 0x58024800


def start_400_mhz(board: Poker, latency: int = 0x22, vos: int = 3) -> list[str]:
    """HSE 8 MHz / 1 x 100 / 2 with HCLK 200 and APBs 100 MHz."""
    board.store(PWR + 0x0C, 2)
    board.wait_set(PWR + 4, 1 << 13)
    board.store(PWR + 0x18, vos << 14)
    board.wait_set(PWR + 0x18, 1 << 13)
    board.store(RCC, board.load(RCC) | 1 << 16)
    board.wait_set(RCC, 1 << 17)
    board.store(RCC + 0x28, 1 << 4 | 2)
    board.store(RCC + 0x2C, 0x01FF0000 | 3 << 2)
    board.store(RCC + 0x30, 99 | 1 << 9 | 1 << 16 | 1 << 24)
    board.store(RCC, board.load(RCC) | 1 << 24)
    board.wait_set(RCC, 1 << 25)
    board.store(RCC + 0x18, 8 | 4 << 4)
    board.store(RCC + 0x1C, 4 << 4 | 4 << 8)
    board.store(FLASH, latency)
    board.store(RCC + 0x10, 3)
    board.wait_set(RCC + 0x10, 3 << 3)
    return board.refused()


def test_the_clock_goes_to_400_mhz(board: Poker) -> None:
    assert start_400_mhz(board) == []
    assert board.machine.hz == 400e6


def test_clocks_that_the_part_cannot_have_are_seen(board: Poker, poke: Path) -> None:
    assert "RCC: 1 wait states of the flash at 200.0 MHz and VOS1: allows 140" in start_400_mhz(board, 0x21)
    board = Poker(H743(), poke)
    assert "RCC: the core's clock is 400.0 MHz, more than 200 at VOS3" in start_400_mhz(board, vos=1)
    board.store(0xE000ED0C, 0x05FA0004)
    board.store(PWR + 0x18, 3 << 14)
    assert board.refused() == ["PWR: VOS is written before the supply is chosen in CR3"]


@pytest.mark.parametrize("baud", [115200, 921600])
def test_characters_by_interrupt(tmp_path: Path, baud: int) -> None:
    line = Line(baud)
    elf = build("echo", TARGET, tmp_path, 'UART_HEADER="uart_stm32h7.h"', f"BAUD={baud}")
    Echo(H743({"USART3": line}), line, elf).check_all()


def test_flags_of_an_overrun(poke: Path) -> None:
    line = Line(115200)
    machine = H743({"USART3": line})
    board = Poker(machine, poke)
    board.store(RCC + 0xE0, 1 << 3)
    board.store(RCC + 0xE8, 1 << 18)
    board.store(0x58020C00, 0xFFFBFFFF)
    board.store(0x58020C24, 0x70)
    board.store(0x4000480C, 556)
    board.store(0x40004800, 1 | 1 << 2)
    board.store(0x4000480C, 1)
    assert board.refused() == ["USART3: BRR or PRESC is written while UE is set"]
    line.put(b"abc")
    machine.run(30_000)
    assert board.load(0x4000481C) == 0xC0 | 1 << 22 | 1 << 5 | 1 << 3
    assert board.load(0x40004824) == ord("a")
    assert board.load(0x4000481C) == 0xC0 | 1 << 22 | 1 << 3
    board.store(0x40004820, 1 << 3)
    assert board.load(0x4000481C) == 0xC0 | 1 << 22
    board.store(0x40004800, 0)
    board.store(0x40004800, 1 << 29 | 1 | 1 << 2)
    board.refused()
    line.put(bytes(range(16)))
    machine.run(200_000)
    assert board.refused() == []
    assert [board.load(0x40004824) for _ in range(16)] == list(range(16))
