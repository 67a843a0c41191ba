# SPDX-License-Identifier: Apache-2.0
"""The emulated STM32F411 and STM32F746: where they differ from the F405 (test_parts_f405.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from boards.bare import Echo, Poker, Target, build
from boards.machine import BoardError
from boards.stm32f4 import F411
from boards.stm32f7 import F746
from boards.uart import Line

F4 = Target("cortex-m4", 0x08000000, 0x20000000, 0x20008000)
F7 = Target("cortex-m7", 0x08000000, 0x20010000, 0x20008000)
FLASH, RCC, PWR = 0x40023C00, 0x40023800, 0x40007000
KEYR, SR, CR = FLASH + 4, FLASH + 12, FLASH + 16
BSY, X32 = 1 << 16, 2 << 8


@pytest.fixture
def f411(tmp_path: Path) -> Poker:
    return Poker(F411(crystal=25e6), build("poke", F4, tmp_path))


@pytest.fixture
def f746(tmp_path: Path) -> Poker:
    return Poker(F746(crystal=25e6), build("poke", F7, tmp_path))


def unlock(board: Poker) -> None:
    board.store(KEYR, 0x45670123)
    board.store(KEYR, 0xCDEF89AB)


@pytest.mark.parametrize(
    ("part", "last", "at", "typical", "maximum"),
    [("f411", 7, 0x08060000, 1000e3, 2000e3), ("f746", 7, 0x080C0000, 1000e3, 2000e3)],
)
def test_the_last_sector(
    part: str, last: int, at: int, typical: float, maximum: float, request: pytest.FixtureRequest
) -> None:
    board: Poker = request.getfixturevalue(part)
    cells = board.machine.cells
    unlock(board)
    board.store(CR, X32 | last << 3 | 2 | 1 << 16)
    assert (cells.typical_us, cells.maximum_us) == (typical, maximum)
    assert cells.layout[last].start + cells.address == at
    board.store(CR, X32 | 1)
    board.copy(at, 5, 4)
    assert [board.load(at + 4 * n) for n in range(5)] == [5, 6, 7, 8, 0xFFFFFFFF]
    assert board.refused() == []
    board.store(CR, X32 | (last + 1) << 3 | 2 | 1 << 16)
    assert board.refused()[0].endswith("there is no sector 8")


def test_erase_times_of_the_f746(f746: Poker) -> None:
    unlock(f746)
    for number, micros in ((0, 200e3), (3, 200e3), (4, 500e3), (5, 1000e3)):
        if number:  # the program is in sector 0
            before = f746.machine.cells.typical_us
            f746.store(CR, X32 | number << 3 | 2 | 1 << 16)
            assert f746.machine.cells.typical_us - before == micros
    assert f746.refused() == []


def test_the_f746_calls_its_flag_otherwise(f746: Poker) -> None:
    f746.store(0x080C0000, 0)
    assert f746.refused() == ["FLASH: ERSERR: a store while locked"]
    assert f746.load(SR) == 1 << 7


def test_memories_of_the_f411(f411: Poker) -> None:
    f411.store(0x2001FFFC, 0x600D)
    assert f411.load(0x2001FFFC) == 0x600D
    assert f411.load(0x0807FFFC) == 0xFFFFFFFF
    for address in (0x20020000, 0x10000000, 0x08080000, 0x40004800):
        with pytest.raises(BoardError, match=f"load at {address:#010x}"):
            f411.load(address)
        f411.machine.power_on()
        f411.machine.run(20_000)


def test_memories_of_the_f746(f746: Poker) -> None:
    for address in (0x3FFC, 0x2000FFFC, 0x20020000, 0x2004FFFC):
        f746.store(address, 0x600D)
        assert f746.load(address) == 0x600D
    assert f746.load(0x00200004) == f746.load(0x08000004)
    assert f746.load(0xE000ED08) == 0x00200000
    for address in (0x4000, 0x20050000, 0x00300000):
        with pytest.raises(BoardError, match=f"load at {address:#010x}"):
            f746.load(address)
        f746.machine.power_on()
        f746.machine.run(20_000)
    with pytest.raises(BoardError, match="store of 4 bytes at 0x002C0000".lower()):
        f746.store(0x002C0000, 0)


def clock(board: Poker, pll: int, latency: int, cfgr: int) -> list[str]:
    board.store(RCC, board.load(RCC) | 1 << 16)
    board.wait_set(RCC, 1 << 17)
    board.store(RCC + 4, pll)
    board.store(RCC, board.load(RCC) | 1 << 24)
    board.wait_set(RCC, 1 << 25)
    board.store(FLASH, latency)
    board.store(RCC + 8, cfgr | 2)
    board.wait_set(RCC + 8, 2 << 2)
    return board.refused()


def test_the_f411_goes_to_100_mhz(f411: Poker) -> None:
    pll = 25 | 200 << 6 | 0 << 16 | 1 << 22 | 4 << 24
    assert "RCC: HCLK is 100.0 MHz, more than 84" in clock(f411, pll, 3, 4 << 10)
    f411.machine.power_on()
    f411.machine.run(20_000)
    f411.store(RCC + 0x40, 1 << 28)
    f411.store(PWR, 3 << 14)
    assert clock(f411, pll, 3, 4 << 10) == []
    assert f411.machine.hz == 100e6


def test_the_f746_goes_to_216_mhz_with_over_drive(f746: Poker) -> None:
    pll = 25 | 432 << 6 | 0 << 16 | 1 << 22 | 9 << 24
    assert "RCC: HCLK is 216.0 MHz, more than 180" in clock(f746, pll, 7, 5 << 10 | 4 << 13)
    f746.machine.power_on()
    f746.machine.run(20_000)
    f746.store(RCC + 0x40, 1 << 28)
    f746.store(PWR, 3 << 14 | 1 << 16)
    f746.wait_set(PWR + 4, 1 << 16)
    f746.store(PWR, 3 << 14 | 3 << 16)
    f746.wait_set(PWR + 4, 1 << 17)
    assert clock(f746, pll, 7, 5 << 10 | 4 << 13) == []
    assert f746.machine.hz == 216e6


def test_characters_by_interrupt_on_the_f746(tmp_path: Path) -> None:
    line = Line(115200)
    board = Echo(
        F746({"USART1": line}), line, build("echo", F7, tmp_path, 'UART_HEADER="uart_stm32f7.h"', "BAUD=115200")
    )
    board.check_all()
    assert board.lost("USART1", 2000) > 0
    line.put(b"abc")
    board.machine.run(500_000)
    assert line.sent[-3:] == b"bcd"
