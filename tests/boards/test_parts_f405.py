# SPDX-License-Identifier: Apache-2.0
"""The emulated STM32F405, without any port of the project: what its manual promises and forbids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boards.bare import Echo, Poker, Target, build
from boards.flash import AFTER, BEFORE, INSIDE
from boards.machine import BoardError, PowerCut
from boards.stm32f4 import F405
from boards.uart import Line, PtyLine

TARGET = Target("cortex-m4", 0x08000000, 0x20000000, 0x20008000)
FLASH = 0x40023C00
KEYR, SR, CR, OPTCR = FLASH + 4, FLASH + 12, FLASH + 16, FLASH + 20
BSY, LOCK = 1 << 16, 1 << 31
X32 = 2 << 8
SECTOR_5 = 0x08020000


@pytest.fixture
def board(poke: Path) -> Poker:
    machine = F405()
    return Poker(machine, poke)


def unlock(board: Poker) -> None:
    board.store(KEYR, 0x45670123)
    board.store(KEYR, 0xCDEF89AB)


def test_the_flash_is_erased_and_programmed_in_the_time_of_the_data_sheet(board: Poker) -> None:
    board.in_ram = True
    assert board.load(CR) == LOCK
    unlock(board)
    assert board.load(CR) == 0
    before = board.machine.microseconds
    board.store(CR, X32 | 5 << 3 | 2 | 1 << 16)
    assert board.wait_clear(SR, BSY) > 10
    assert board.machine.microseconds - before == pytest.approx(1000e3, rel=0.01)
    board.store(CR, X32 | 1)
    board.copy(SECTOR_5, 0x12345678, 16)
    assert [board.load(SECTOR_5 + 4 * n) for n in range(16)] == [0x12345678 + n for n in range(16)]
    board.store(CR, LOCK)
    assert board.load(CR) & LOCK
    cells = board.machine.cells
    assert (cells.erases, cells.programs, cells.typical_us) == ({5: 1}, 16, 1000e3 + 16 * 16)
    assert board.refused() == []


def test_code_in_flash_waits_where_code_in_ram_sees_it_busy(board: Poker) -> None:
    unlock(board)
    board.store(CR, X32 | 5 << 3 | 2 | 1 << 16)
    assert board.wait_clear(SR, BSY) == 0
    assert board.machine.microseconds > 1000e3


@pytest.mark.parametrize(("parallelism", "micros"), [(0, 2000e3), (1, 1300e3), (2, 1000e3)])
def test_the_parallelism_decides_on_the_time(board: Poker, parallelism: int, micros: float) -> None:
    unlock(board)
    board.store(CR, parallelism << 8 | 11 << 3 | 2 | 1 << 16)
    assert board.machine.cells.typical_us == micros
    assert board.machine.cells.maximum_us == 2 * micros
    board.store(CR, parallelism << 8 | 1)
    size = 1 << parallelism
    board.store(0x080E0000, 0x5A5A5A5A, size)
    assert board.load(0x080E0000) == 0xFFFFFFFF & ~((1 << 8 * size) - 1) | 0x5A5A5A5A & (1 << 8 * size) - 1
    assert board.refused() == []


def test_a_store_that_the_controller_refuses_sets_its_flag_and_changes_nothing(board: Poker) -> None:
    store, load = board.store, board.load
    store(SECTOR_5, 0)
    assert board.refused() == ["FLASH: PGSERR: a store while locked"]
    assert load(SR) == 0x80
    unlock(board)
    store(SR, 0x80)
    assert load(SR) == 0
    store(SECTOR_5, 0)
    assert board.refused() == ["FLASH: PGSERR: a store without PG alone"]
    store(SR, 0xF0)
    store(CR, X32 | 1)
    store(SECTOR_5, 0, 1)
    assert board.refused() == ["FLASH: PGPERR: a store of 1 bytes at x32"]
    assert load(SR) == 0x40
    store(SR, 0xF0)
    store(CR, 1)
    store(SECTOR_5, 0)
    assert board.refused() == ["FLASH: PGPERR: a store of 4 bytes at x8"]
    store(SR, 0xF0)
    store(CR, X32 | 1)
    store(SECTOR_5 + 14, 0)
    assert board.refused() == ["FLASH: PGAERR: a store across a row of 16 bytes"]
    assert load(SR) == 0x20
    assert board.machine.cells.get(0x20000, 32) == b"\xff" * 32
    store(SECTOR_5, 0xFFFF0000)
    store(SECTOR_5, 0x0000FFFF)
    assert load(SECTOR_5) == 0
    assert board.refused() == []
    store(SECTOR_5, 0x0000FFFE)
    assert load(SECTOR_5) == 0
    assert board.refused() == ["FLASH: bits go from 0 to 1 without an erase"]


def test_an_erase_that_the_controller_refuses(board: Poker) -> None:
    board.store(CR, X32 | 5 << 3 | 2 | 1 << 16)
    assert board.refused() == ["FLASH: CR is written while locked"]
    unlock(board)
    for control, refusal in (
        (X32 | 12 << 3 | 2, "PGSERR: there is no sector 12"),
        (X32 | 5 << 3, "PGSERR: STRT with PG, or without SER or MER alone"),
        (X32 | 5 << 3 | 2 | 1, "PGSERR: STRT with PG, or without SER or MER alone"),
        (3 << 8 | 5 << 3 | 2, "PGPERR: x64 needs an external supply on VPP"),
    ):
        board.store(CR, control | 1 << 16)
        assert board.refused() == [f"FLASH: {refusal}"]
    assert board.machine.cells.operations == 0


def test_a_wrong_key_locks_until_reset_and_is_a_bus_error(board: Poker) -> None:
    board.store(KEYR, 0xCDEF89AB)
    board.load(0x20000000)
    assert board.word("faults") == 1
    unlock(board)
    assert board.load(CR) & LOCK
    assert board.refused() == ["FLASH: a wrong key", *["FLASH: KEYR is written after a wrong key"] * 2]
    board.store(0xE000ED0C, 0x05FA0004)
    assert board.machine.resets == 1
    unlock(board)
    assert board.load(CR) == 0


def test_memories_end_where_the_chips_do(board: Poker, poke: Path) -> None:
    for first, last in ((0x20000000, 0x2001FFFC), (0x10000000, 0x1000FFFC)):
        for address in (first + 0x4000, last):
            board.store(address, 0x600D)
            assert board.load(address) == 0x600D
    assert board.load(0x080FFFFC) == 0xFFFFFFFF
    assert board.load(4) == board.load(0x08000004)
    for address in (0x20020000, 0x10010000, 0x08100000, 0x40010C00, 0x60000000):
        with pytest.raises(BoardError, match=rf"load at {address:#010x} \(pc 0x0800"):
            Poker(board.machine, poke).load(address)
    with pytest.raises(BoardError, match="store at 0x20020000"):
        Poker(board.machine, poke).store(0x20020000, 0)


@pytest.mark.parametrize("phase", [BEFORE, INSIDE, AFTER])
def test_a_power_cut_in_an_erase_and_in_a_program(board: Poker, phase: int) -> None:
    machine, cells = board.machine, board.machine.cells
    cells.put(0x20000, bytes(0x20000))
    cells.cut_at, cells.cut_phase = 1, phase
    unlock(board)
    with pytest.raises(PowerCut):
        board.store(CR, X32 | 5 << 3 | 2 | 1 << 16)
    held = cells.get(0x20000, 0x20000)
    ones = sum(byte.bit_count() for byte in held)
    assert {BEFORE: ones == 0, INSIDE: 0 < ones < 8 << 17, AFTER: ones == 8 << 17}[phase]
    machine.power_on()
    machine.run(20_000)
    assert board.load(CR) & LOCK  # a new life
    unlock(board)
    cells.put(0x20000, b"\xff" * 0x20000)
    board.store(CR, X32 | 1)
    cells.cut_at, cells.cut_phase = cells.operations + 2, phase
    with pytest.raises(PowerCut):
        board.copy(SECTOR_5, 0, 4)
    words = [int.from_bytes(cells.get(0x20000 + 4 * n, 4), "little") for n in range(3)]
    assert (words[0], words[2]) == (0, 0xFFFFFFFF)
    assert {BEFORE: words[1] == 0xFFFFFFFF, INSIDE: words[1] not in (1, 0xFFFFFFFF), AFTER: words[1] == 1}[phase]


def test_power_may_go_at_any_time(board: Poker) -> None:
    cells = board.machine.cells
    cells.put(0x20000, bytes(0x20000))
    board.in_ram = True
    unlock(board)
    board.store(CR, X32 | 5 << 3 | 2 | 1 << 16)
    board.machine.run(1_000_000)
    cells.cut()
    assert 0 < sum(byte.bit_count() for byte in cells.get(0x20000, 0x20000)) < 8 << 17
    board.machine.power_on()
    board.machine.run(20_000)
    assert not board.load(SR) & BSY


def test_cells_are_kept_in_a_file(board: Poker, tmp_path: Path) -> None:
    board.machine.cells.put(0x20000, b"kept")
    board.machine.cells.write_file(tmp_path / "flash")
    other = F405()
    other.cells.read_file(tmp_path / "flash")
    assert other.cells.get(0x20000, 4) == b"kept"
    (tmp_path / "flash").write_bytes(b"short")
    with pytest.raises(BoardError, match="5 bytes"):
        other.cells.read_file(tmp_path / "flash")


RCC, PWR = 0x40023800, 0x40007000


def start_pll(board: Poker, pll: int, latency: int, cfgr: int) -> list[str]:
    """HSE, PLL, latency, prescalers, switch."""
    board.store(RCC, board.load(RCC) | 1 << 16)
    board.wait_set(RCC, 1 << 17)
    board.store(RCC + 4, pll)
    board.store(RCC, board.load(RCC) | 1 << 24)
    board.wait_set(RCC, 1 << 25)
    board.store(FLASH, latency)
    board.store(RCC + 8, cfgr)
    board.store(RCC + 8, cfgr | 2)
    board.wait_set(RCC + 8, 2 << 2)
    return board.refused()


PLL_168 = 8 | 336 << 6 | 0 << 16 | 1 << 22 | 7 << 24
APB_42_84 = 5 << 10 | 4 << 13


def test_the_clock_goes_to_168_mhz(board: Poker) -> None:
    assert start_pll(board, PLL_168, 5, APB_42_84) == []
    assert board.machine.hz == 168e6


@pytest.mark.parametrize(
    ("pll", "latency", "cfgr", "refusal"),
    [
        (PLL_168, 4, APB_42_84, "RCC: 4 wait states of the flash at 168.0 MHz: they allow 150"),
        (PLL_168, 5, 0, "RCC: PCLK1 is 168.0 MHz, more than 42"),
        (PLL_168 + (8 << 6), 5, APB_42_84, "RCC: HCLK is 172.0 MHz, more than 168"),
        (PLL_168 - 4, 5, APB_42_84, "RCC: the PLL's VCO is 672.0 MHz, not 100 to 432"),
        (PLL_168 + 8, 5, APB_42_84, "RCC: the PLL's input is 0.500 MHz, not 1 to 2"),
    ],
)
def test_a_clock_that_the_part_cannot_have_is_seen(
    board: Poker, pll: int, latency: int, cfgr: int, refusal: str
) -> None:
    assert refusal in start_pll(board, pll, latency, cfgr)


def test_an_oscillator_that_never_gets_ready(poke: Path) -> None:
    machine = F405(dead=("HSE",))
    board = Poker(machine, poke)
    board.store(RCC, board.load(RCC) | 1 << 16)
    assert board.wait_set(RCC, 1 << 17, 20_000) == 20_000
    board.store(RCC + 4, PLL_168)
    board.store(RCC, board.load(RCC) | 1 << 24)
    assert "RCC: the PLL is turned on before HSE is ready" in board.refused()


def test_a_block_without_its_clock_is_not_there(board: Poker) -> None:
    board.store(0x40020000, 0)
    assert board.load(0x40020000) == 0
    assert board.refused() == ["GPIOA: is written without its clock", "GPIOA: is read without its clock"]
    board.store(RCC + 0x30, 1)
    assert board.load(0x40020000) == 0xA8000000
    assert board.refused() == []


def test_the_watchdog_bites(board: Poker) -> None:
    board.store(0x40003000, 0x5555)
    board.store(0x40003008, 319)  # 320 periods of 4 / 32 kHz: 40 ms
    board.store(0x40003000, 0xCCCC)
    for _ in range(3):
        board.machine.run(board.machine.cycles(30e3))
        board.store(0x40003000, 0xAAAA)
    assert board.machine.resets == 0
    board.machine.run(board.machine.cycles(50e3))
    assert board.machine.resets >= 1
    assert "IWDG: the watchdog has reset the part" in board.refused()


def echo(folder: Path, baud: int, line: Line) -> Echo:
    return Echo(
        F405({"USART1": line}), line, build("echo", TARGET, folder, 'UART_HEADER="uart_stm32f4.h"', f"BAUD={baud}")
    )


@pytest.mark.parametrize("baud", [None, 115200])
def test_characters_by_interrupt(tmp_path: Path, baud: int | None) -> None:
    board = echo(tmp_path, 115200, Line(baud))
    machine, before = board.machine, board.machine.microseconds
    board.check_all()
    assert int.from_bytes(machine.peek(board.image.symbols["interrupts"], 4), "little") > 100
    if baud is not None:
        assert machine.microseconds - before == pytest.approx(251 * 10 / baud * 1e6, rel=0.02)


def test_a_receiver_that_is_late_loses_characters(tmp_path: Path) -> None:
    board = echo(tmp_path, 115200, Line(115200))
    lost = board.lost("USART1", 2000)
    assert lost > 3
    assert len(board.line.sent) == 100 - lost
    board.line.put(b"abc")
    board.machine.run(500_000)
    assert board.line.sent[-3:] == b"bcd"


def test_ends_of_different_rates_do_not_understand_each_other(tmp_path: Path) -> None:
    line = Line(921600)
    machine = echo(tmp_path, 115200, line).machine
    line.put(b"abc")
    machine.run(500_000)
    assert machine.refusals["USART1: 115108 baud where the line has 921600"] >= 3
    assert line.sent != b"bcd"


def test_a_line_on_a_pseudo_terminal(tmp_path: Path) -> None:
    line = PtyLine()
    machine = echo(tmp_path, 115200, line).machine
    host = os.open(line.path, os.O_RDWR | os.O_NOCTTY)
    os.write(host, b"hello")
    machine.run(2_000_000)
    assert os.read(host, 100) == b"ifmmp"
    os.close(host)


def test_pins_decide_where_characters_go(board: Poker) -> None:
    board.store(RCC + 0x44, 1 << 4)
    board.store(0x40011008, 139)
    board.store(0x4001100C, 1 << 13 | 1 << 3)
    board.store(0x40011004, 65)
    assert board.refused() == ["USART1: a character is sent while no pin is its TX"]
    board.store(RCC + 0x30, 1)
    board.store(0x40020000, 0xA8080000)
    board.store(0x40020024, 0x70)
    board.store(0x40011004, 65)
    board.machine.run(1000)
    assert board.machine.uarts == {}
    assert board.refused() == []
    assert board.load(0x40011000) == 0xC0


def test_flags_of_an_overrun(poke: Path) -> None:
    line = Line(115200)
    machine = F405({"USART1": line})
    board = Poker(machine, poke)
    board.store(RCC + 0x44, 1 << 4)
    board.store(RCC + 0x30, 1)
    board.store(0x40020000, 0xA8200000)
    board.store(0x40020024, 0x700)
    board.store(0x40011008, 139)
    board.store(0x4001100C, 1 << 13 | 1 << 2)
    line.put(b"abc")
    machine.run(10_000)
    assert board.load(0x40011000) == 0xC0 | 1 << 5 | 1 << 3
    assert board.load(0x40011004) == ord("a")
    assert board.load(0x40011000) == 0xC0
    assert board.refused() == ["USART1: a character is lost, as the last has not been read (overrun)"] * 2
