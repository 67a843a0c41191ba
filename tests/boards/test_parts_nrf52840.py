# SPDX-License-Identifier: Apache-2.0
"""The emulated nRF52840, without any port of the project: what its product specification promises and forbids."""

from __future__ import annotations

from pathlib import Path

import pytest

from boards.bare import Echo, Poker, Target, build
from boards.flash import INSIDE
from boards.image import Image
from boards.machine import BoardError, PowerCut
from boards.nrf52840 import Nrf52840
from boards.uart import Line

TARGET = Target("cortex-m4", 0x00000000, 0x20000000, 0x20008000)
NVMC = 0x4001E000
READY, CONFIG, ERASEPAGE = NVMC + 0x400, NVMC + 0x504, NVMC + 0x508
PAGE = 0x80000


@pytest.fixture
def board(poke: Path) -> Poker:
    return Poker(Nrf52840(), poke)


@pytest.mark.parametrize("in_ram", [False, True])
def test_a_page_is_erased_and_words_are_programmed(board: Poker, in_ram: bool) -> None:
    board.in_ram = in_ram
    cells = board.machine.cells
    cells.put(PAGE, bytes(4096))
    before = board.machine.microseconds
    board.store(CONFIG, 2)
    board.store(ERASEPAGE, PAGE)
    assert (board.wait_set(READY, 1) > 3) == in_ram
    board.store(CONFIG, 1)
    assert board.machine.microseconds - before == pytest.approx(85e3, rel=0.01)
    board.copy(PAGE + 4, 7, 3)
    board.wait_set(READY, 1)
    board.store(CONFIG, 0)
    assert [board.load(PAGE + 4 * n) for n in range(5)] == [0xFFFFFFFF, 7, 8, 9, 0xFFFFFFFF]
    assert (cells.erases, cells.programs, cells.maximum_us) == ({PAGE >> 12: 1}, 3, 85e3 + 3 * 41)
    assert board.refused() == []


def test_what_the_controller_refuses(board: Poker) -> None:
    cells = board.machine.cells
    board.store(PAGE, 0)
    assert board.refused() == ["NVMC: a store while CONFIG is not WEN"]
    board.store(ERASEPAGE, PAGE)
    assert board.refused() == ["NVMC: an erase while CONFIG is not EEN"]
    board.store(CONFIG, 2)
    board.store(ERASEPAGE, PAGE + 16)
    assert board.refused() == [f"NVMC: ERASEPAGE of {PAGE + 16:#x}: no page begins there"]
    board.store(ERASEPAGE, 0x100000)
    assert board.refused() == ["NVMC: ERASEPAGE of 0x100000: no page begins there"]
    assert cells.operations == 0
    board.store(CONFIG, 1)
    board.store(PAGE, 0, 1)
    board.load(PAGE)
    assert board.refused() == [f"NVMC: a store of 1 bytes at {PAGE:#x}: only aligned words are written"]
    assert board.word("faults") == 1
    assert cells.operations == 0
    board.store(PAGE, 0xFFFF0000)
    board.store(PAGE, 0xFF000000)
    assert board.refused() == []
    board.store(PAGE, 0)
    assert board.refused() == ["NVMC: a word is written more than twice without an erase (nWRITE)"]
    board.store(PAGE + 4, 0)
    board.store(PAGE + 4, 1)
    assert board.refused() == ["NVMC: bits go from 0 to 1 without an erase"]
    assert board.load(PAGE + 4) == 0


def test_power_cuts(board: Poker) -> None:
    cells = board.machine.cells
    cells.put(PAGE, bytes(4096))
    board.store(CONFIG, 2)
    cells.cut_at, cells.cut_phase = 1, INSIDE
    with pytest.raises(PowerCut):
        board.store(ERASEPAGE, PAGE)
    assert 0 < sum(byte.bit_count() for byte in cells.get(PAGE, 4096)) < 8 * 4096
    assert cells.get(PAGE + 4096, 4096) == b"\xff" * 4096
    board.machine.power_on()
    board.machine.run(20_000)
    assert board.load(CONFIG) == 0


def test_memories_end_where_the_chips_do(board: Poker, poke: Path) -> None:
    board.store(0x2003FFFC, 0x600D)
    assert board.load(0x2003FFFC) == 0x600D
    assert board.load(0xFFFFC) == 0xFFFFFFFF
    for address in (0x100000, 0x20040000, 0x40003000):
        with pytest.raises(BoardError, match=f"load at {address:#010x}"):
            Poker(board.machine, poke).load(address)


def test_the_crystal_oscillator_starts_or_does_not(board: Poker, poke: Path) -> None:
    board.store(0x40000000, 1)
    board.wait_set(0x40000100, 1)
    assert board.load(0x4000040C) == 1 << 16 | 1
    dead = Poker(Nrf52840(dead=("HFXO",)), poke)
    dead.store(0x40000000, 1)
    assert dead.wait_set(0x40000100, 1, 20_000) == 20_000


def test_counters_count(board: Poker) -> None:
    board.store(0x40000008, 1)
    board.wait_set(0x40000104, 1)
    board.store(0x4000B000, 1)
    board.store(0x40008510, 4)
    board.store(0x40008508, 3)
    board.store(0x40008000, 1)
    board.machine.run(board.machine.cycles(100e3))
    board.store(0x40008040, 1)
    assert board.load(0x4000B504) == pytest.approx(3277, abs=5)
    assert board.load(0x40008540) == pytest.approx(100_000, abs=100)
    assert board.refused() == []


@pytest.mark.parametrize("baud", [None, 115200, 921600])
def test_characters_by_interrupt(tmp_path: Path, baud: int | None) -> None:
    line = Line(baud)
    elf = build("echo", TARGET, tmp_path, 'UART_HEADER="uart_nrf52840.h"', f"BAUD={baud or 115200}")
    board = Echo(Nrf52840({"UART0": line}), line, elf)
    board.check_all()
    if baud is not None:
        assert board.lost("UART0", 20_000) > 0


def test_blocks_by_easydma(tmp_path: Path) -> None:
    line = Line(115200)
    machine = Nrf52840({"UART0": line})
    machine.cells.load(Image.read(build("uarte", TARGET, tmp_path)))
    machine.power_on()
    machine.run(50_000)
    for block in (b"abcd", b"efgh"):
        line.put(block)
        machine.run(100_000)
    assert line.sent == b"bcdefghi"
    assert not machine.refusals


def test_what_the_uart_refuses(board: Poker) -> None:
    board.store(0x40002008, 1)
    board.store(0x4000251C, 65)
    assert board.refused() == [
        "UART0: STARTTX while it is off or TXD has no pin",
        "UART0: TXD is written before STARTTX, or while it is no UART",
    ]
    board.store(0x4000250C, 6)
    board.store(0x40002500, 8)
    board.store(0x40002544, PAGE)
    board.store(0x40002548, 4)
    board.store(0x40002008, 1)
    assert board.refused() == [f"UART0: EasyDMA at {PAGE:#x}: that is not RAM"]


def test_flags_of_an_overrun(poke: Path) -> None:
    line = Line(115200)
    machine = Nrf52840({"UART0": line})
    board = Poker(machine, poke)
    board.store(0x40002514, 8)
    board.store(0x40002524, 0x01D7E000)
    board.store(0x40002500, 4)
    board.store(0x40002000, 1)
    line.put(b"abcdefg")
    machine.run(60_000)
    assert board.load(0x40002124) == 1
    assert board.load(0x40002480) == 1
    board.store(0x40002480, 1)
    assert board.load(0x40002480) == 0
    read = b""
    while board.load(0x40002108):
        board.store(0x40002108, 0)
        read += bytes((board.load(0x40002518),))
    assert read == b"abcdef"
