# SPDX-License-Identifier: Apache-2.0
"""The emulated RP2350, without any port of the project: what its datasheet promises and forbids."""

from __future__ import annotations

from pathlib import Path

import pytest

from boards.bare import Echo, Poker, Target, build
from boards.flash import INSIDE
from boards.image import Image
from boards.machine import BoardError, PowerCut
from boards.rp2350 import Rp2350
from boards.uart import Line

TARGET = Target("cortex-m33", 0x10000000, 0x20000000, 0x20080000, ("IMAGE_DEF",))
AT, DATA = 0x200000, 0x20040000


@pytest.fixture
def board(poke: Path) -> Poker:
    return Poker(Rp2350(), poke)


def rom(board: Poker, name: str, *arguments: int) -> int:
    """Looks a function up, as the datasheet says (5.4.1), and calls it."""
    assert board.load(0x10) & 0xFFFFFF == 0x02754D
    lookup = board.load(0x14) >> 16
    function = board.call(lookup, ord(name[0]) | ord(name[1]) << 8, 4)
    assert function
    return board.call(function, *arguments)


def ready(board: Poker) -> None:
    rom(board, "IF")
    rom(board, "EX")


def test_sectors_are_erased_and_pages_programmed(board: Poker) -> None:
    cells = board.machine.cells
    cells.put(AT, bytes(8192))
    assert isinstance(board.machine, Rp2350)
    board.machine.flush()
    board.copy(DATA, 100, 64)
    ready(board)
    before = board.machine.microseconds
    rom(board, "RE", AT, 4096, 1 << 16, 0xD8)
    assert board.machine.microseconds - before == pytest.approx(45e3, rel=0.02)
    rom(board, "RP", AT, DATA, 256)
    assert board.load(0x10000000 + AT) == 0  # the cache
    assert board.load(0x14000000 + AT) == 100
    rom(board, "FC")
    assert [board.load(0x10000000 + AT + 4 * n) for n in (0, 63, 64)] == [100, 163, 0xFFFFFFFF]
    assert board.load(0x10000000 + AT + 4096) == 0
    assert (cells.erases, cells.programs, cells.typical_us) == ({AT >> 12: 1}, 1, 45e3 + 400)
    board.copy(DATA, 100, 64)
    board.store(DATA, 0xFFFFFFFF)
    rom(board, "RP", AT, DATA, 256)
    assert board.refused() == []
    board.store(DATA, 0xFE)
    rom(board, "RP", AT, DATA, 256)
    assert board.refused() == ["bootrom: bits go from 0 to 1 without an erase"]
    rom(board, "RE", 0x300000, 1 << 17, 1 << 16, 0xD8)
    assert cells.typical_us == pytest.approx(45e3 + 3 * 400 + 2 * 150e3)
    assert board.refused() == []


@pytest.mark.parametrize(
    ("name", "arguments", "refusal"),
    [
        ("RE", (AT + 256, 4096, 0, 0), "flash_range_erase: not in sectors of 4096 bytes"),
        ("RE", (AT, 256, 0, 0), "flash_range_erase: not in sectors of 4096 bytes"),
        ("RE", (0x400000, 4096, 0, 0), "flash_range_erase: past the end of the flash"),
        ("RE", (0x10000000 + AT, 4096, 0, 0), "flash_range_erase: past the end of the flash"),
        ("RE", (AT, 4096, 100, 0), "flash_range_erase: a block of 100 bytes"),
        ("RP", (AT + 4, DATA, 256), "flash_range_program: not in pages of 256 bytes"),
        ("RP", (AT, DATA, 32), "flash_range_program: not in pages of 256 bytes"),
        ("RP", (AT, 0x10000000, 256), "flash_range_program: from the flash, which cannot be read meanwhile"),
        ("RP", (0x3FFF00, DATA, 512), "flash_range_program: past the end of the flash"),
    ],
)
def test_arguments_are_checked(board: Poker, name: str, arguments: tuple[int, ...], refusal: str) -> None:
    ready(board)
    rom(board, name, *arguments)
    assert board.refused() == [f"bootrom: {refusal}"]
    assert board.machine.cells.operations == 0


ERASE, PROGRAM, READ = 0x00101, 0x10101, 0x20101
XIP = 0x10000000


def test_the_function_for_all_operations(board: Poker) -> None:
    cells = board.machine.cells
    cells.put(AT, bytes(8192))
    board.copy(DATA, 100, 64)
    rom(board, "FO", ERASE, XIP + AT, 4096, 0)
    assert board.refused() == ["bootrom: flash_range_erase before connect_internal_flash and flash_exit_xip"]
    ready(board)
    assert rom(board, "FO", ERASE, XIP + AT, 4096, 0) == 0
    assert rom(board, "FO", PROGRAM, XIP + AT + 256, 256, DATA) == 0
    assert [cells.get(AT + n, 2) for n in (0, 256, 4096)] == [b"\xff\xff", b"d\0", b"\0\0"]
    assert rom(board, "FO", READ, XIP + AT + 257, 5, DATA + 1024) == 0
    assert board.machine.peek(DATA + 1024, 5) == b"\0\0\0e\0"
    assert (cells.erases, cells.programs, cells.typical_us) == ({AT >> 12: 1}, 1, 45e3 + 400)
    assert board.refused() == []


@pytest.mark.parametrize(
    ("arguments", "code", "refusal"),
    [
        ((ERASE, XIP + AT + 256, 4096, 0), -11, "erase not in units of 4096 bytes"),
        ((PROGRAM, XIP + AT, 32, DATA), -11, "program not in units of 256 bytes"),
        ((ERASE, AT, 4096, 0), -10, "erase of 4096 bytes at 0x00200000"),
        ((PROGRAM, XIP + 0x3FFF00, 512, DATA), -10, "program of 512 bytes at 0x103fff00"),
        ((0x30101, XIP + AT, 4096, 0), -5, "flags 0x30101"),
        ((0x00001, XIP + AT, 4096, 0), -5, "flags 0x1"),
    ],
)
def test_the_function_for_all_operations_tells_what_is_wrong(
    board: Poker, arguments: tuple[int, ...], code: int, refusal: str
) -> None:
    ready(board)
    assert rom(board, "FO", *arguments) == code & 0xFFFFFFFF
    assert board.refused() == [f"bootrom: flash_op: {refusal}"]
    assert board.machine.cells.operations == 0


def test_the_order_is_checked(board: Poker) -> None:
    rom(board, "RE", AT, 4096)
    assert board.refused() == ["bootrom: flash_range_erase before connect_internal_flash and flash_exit_xip"]
    rom(board, "EX")
    assert board.refused() == ["bootrom: flash_exit_xip before connect_internal_flash"]
    assert board.machine.cells.operations == 0
    assert board.call(board.load(0x14) >> 16, ord("Z") | ord("Z") << 8, 4) == 0
    assert board.refused() == ["bootrom: there is no 'ZZ' with flags 0x4"]


def test_an_interrupt_whose_handler_is_in_flash_must_be_masked(board: Poker) -> None:
    ready(board)
    board.store(0xE000E104, 1 << 1)
    rom(board, "RE", AT, 4096)
    assert board.refused() == ["bootrom: flash_range_erase while exception 49 may be taken, which needs the flash"]
    board.ask(board.MASK, 0, 1)
    rom(board, "RE", AT, 4096)
    assert board.refused() == []


def test_power_cuts(board: Poker) -> None:
    cells = board.machine.cells
    cells.put(AT, bytes(8192))
    board.copy(DATA, 0, 128)
    ready(board)
    cells.cut_at, cells.cut_phase = 2, INSIDE
    with pytest.raises(PowerCut):
        rom(board, "RE", AT, 8192)
    assert cells.get(AT, 4096) == b"\xff" * 4096
    assert 0 < sum(byte.bit_count() for byte in cells.get(AT + 4096, 4096)) < 8 * 4096
    board.machine.power_on()
    board.machine.run(20_000)
    cells.put(AT, b"\xff" * 8192)
    board.copy(DATA, 0, 128)
    ready(board)
    cells.cut_at, cells.cut_phase = cells.operations + 2, INSIDE
    with pytest.raises(PowerCut):
        rom(board, "RP", AT, DATA, 512)
    assert cells.get(AT + 4, 4) == b"\1\0\0\0"
    assert cells.get(AT + 256, 256) not in (b"\xff" * 256, b"".join(n.to_bytes(4, "little") for n in range(64, 128)))


def test_an_image_without_its_definition_does_not_start(tmp_path: Path) -> None:
    machine = Rp2350()
    target = Target("cortex-m33", 0x10000000, 0x20000000, 0x20080000)
    machine.cells.load(Image.read(build("poke", target, tmp_path)))
    with pytest.raises(BoardError, match="no IMAGE_DEF"):
        machine.power_on()


def test_memories_end_where_the_chips_do(board: Poker, poke: Path) -> None:
    board.store(0x20081FFC, 0x600D)
    assert board.load(0x20081FFC) == 0x600D
    assert board.load(0x103FFFFC) == 0xFFFFFFFF
    for address in (0x20082000, 0x10400000, 0x8000):
        with pytest.raises(BoardError, match=f"load at {address:#010x}"):
            Poker(board.machine, poke).load(address)
    with pytest.raises(BoardError, match="store at 0x10200000"):
        Poker(board.machine, poke).store(0x10200000, 0)


def start_150_mhz(board: Poker, feedback: int = 125) -> list[str]:
    """XOSC 12 MHz x 125 / (5 x 2)."""
    board.store(0x4004800C, 47)
    board.store(0x40048000, 0xFABAA0)
    assert board.wait_set(0x40048004, 1 << 31, 1_000_000) < 1_000_000
    board.store(0x40010030, 2)
    board.store(0x40023000, 1 << 14)
    board.wait_set(0x40020008, 1 << 14)
    board.store(0x40050000, 1)
    board.store(0x40050008, feedback)
    board.store(0x40053004, 1 | 1 << 5)
    if board.wait_set(0x40050000, 1 << 31, 20_000) == 20_000:
        return board.refused()
    board.store(0x4005000C, 5 << 16 | 2 << 12)
    board.store(0x40053004, 1 << 3)
    board.store(0x4001003C, 0)
    board.store(0x4001203C, 1)
    board.wait_set(0x40010044, 2)
    return board.refused()


def test_the_clock_goes_to_150_mhz(board: Poker) -> None:
    assert start_150_mhz(board) == []
    assert board.machine.hz == 150e6
    board.store(0x40108018 + 4, 12)
    board.store(0x40108018, 1)
    board.store(0x40023000, 1 << 23)
    before = board.load(0x400B0028)
    board.machine.run(board.machine.cycles(1000))
    assert board.load(0x400B0028) - before == pytest.approx(1000, abs=20)


def test_clocks_that_the_part_cannot_have_are_seen(board: Poker, poke: Path) -> None:
    assert start_150_mhz(board, 60) == ["PLL_SYS: its VCO is 720 MHz, not 750 to 1600"]
    board.store(0x4001003C, 1)
    assert board.refused() == ["CLOCKS: clk_sys has a source that does not run"]
    assert "CLOCKS: clk_sys is 156.0 MHz, more than 150" in start_150_mhz(Poker(Rp2350(), poke), 130)
    dead = Poker(Rp2350(dead=("XOSC",)), poke)
    dead.store(0x40048000, 0xFABAA0)
    assert dead.wait_set(0x40048004, 1 << 31, 20_000) == 20_000


@pytest.mark.parametrize(("baud", "fifo"), [(None, 1), (115200, 0), (115200, 1)])
def test_characters_by_interrupt(tmp_path: Path, baud: int | None, fifo: int) -> None:
    line = Line(baud)
    elf = build("echo", TARGET, tmp_path, 'UART_HEADER="uart_rp2350.h"', "BAUD=115200", f"FIFO={fifo}")
    board = Echo(Rp2350({"UART0": line}), line, elf)
    board.check_all()
    if baud is not None:
        assert board.lost("UART0", 10_000, 200) > 0


def test_a_pad_that_is_isolated_lets_nothing_through(board: Poker) -> None:
    board.store(0x40010048, 1 << 11)
    board.store(0x40023000, 1 << 6 | 1 << 9 | 1 << 26)
    board.store(0x40028004, 2)
    board.store(0x40070024, 5)
    board.store(0x4007002C, 3 << 5)
    board.store(0x40070030, 1 | 1 << 8)
    board.store(0x40070000, 65)
    assert board.refused() == ["UART0: a character is sent while no pin is its TX, or its pad is isolated"]
    board.store(0x4003B004, 1 << 8)
    board.store(0x40070000, 65)
    assert board.refused() == []


def test_a_block_in_reset_is_not_there(board: Poker) -> None:
    board.store(0x40070030, 1)
    assert board.refused() == ["UART0: is written while in reset"]


def test_flags_of_an_overrun(poke: Path) -> None:
    line = Line(115200)
    machine = Rp2350({"UART0": line})
    board = Poker(machine, poke)
    board.store(0x40010048, 1 << 11)
    board.store(0x40023000, 1 << 6 | 1 << 9 | 1 << 26)
    board.store(0x4002800C, 2)
    board.store(0x40038008, 0x56)
    board.store(0x40070024, 5)
    board.store(0x40070028, 62)
    board.store(0x4007002C, 3 << 5 | 1 << 4)
    board.store(0x40070030, 1 | 1 << 9)
    line.put(bytes(range(34)))
    machine.run(60_000)
    assert board.load(0x4007003C) == 1 << 4 | 1 << 6 | 1 << 10
    assert board.load(0x40070018) & (1 << 6 | 1 << 4) == 1 << 6
    assert board.load(0x40070000) == 1 << 11
    assert [board.load(0x40070000) for _ in range(31)] == list(range(1, 32))
    assert board.load(0x40070018) & (1 << 6 | 1 << 4) == 1 << 4
    assert len(board.refused()) == 2


def test_the_setup_function_in_boot_ram_can_be_copied_and_run(board: Poker) -> None:
    for offset in range(0, 256, 4):
        board.store(DATA + offset, board.load(0x400E0000 + offset))
    board.call(DATA | 1)
    assert board.refused() == []


def test_a_narrow_store_is_seen_by_the_whole_register(board: Poker) -> None:
    board.store(0x400D800C, 0x5A, 1)
    assert board.load(0x400D800C) == 0x5A5A5A5A
    board.store(0x400DA00C, 0x80000000)
    assert board.load(0x400D800C) == 0xDA5A5A5A
