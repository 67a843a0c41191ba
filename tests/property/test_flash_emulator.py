# SPDX-License-Identifier: Apache-2.0
"""The emulated flash keeps the rules of a real part, whatever is asked of it, and breaks down as it is told to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clibrary

OK, ARGUMENT, FLASH = 0, -1, -4
SECTORS = [64, 64, 256, 128]
RUNS = [(2, 64), (1, 256), (1, 128)]
SIZE = sum(SECTORS)
STARTS = [0, 64, 128, 384]


class Emulator:
    """The C emulator over RUNS."""

    def __init__(self, lib: Any, unit: int) -> None:
        self.lib = lib
        self.unit = unit
        pairs = (ctypes.c_uint32 * (2 * len(RUNS)))(*(word for run in RUNS for word in run))
        lib.flash_probe_geometry(pairs, len(RUNS), unit)
        lib.flash_probe_format()

    def erase(self, address: int) -> int:
        return int(self.lib.flash_probe_erase(ctypes.c_uint32(address)))

    def program(self, address: int, data: bytes) -> int:
        return int(self.lib.flash_probe_program(ctypes.c_uint32(address), data, ctypes.c_uint32(len(data))))

    def read(self, address: int, count: int) -> tuple[int, bytes]:
        buffer = ctypes.create_string_buffer(max(1, count))
        status = self.lib.flash_probe_read(ctypes.c_uint32(address), buffer, ctypes.c_uint32(count))
        return int(status), buffer.raw[:count]

    @property
    def memory(self) -> bytes:
        return ctypes.string_at(self.lib.flash_probe_image(), SIZE)

    @property
    def image(self) -> bytes:
        marks = (SIZE // self.unit + 3) // 4
        return ctypes.string_at(self.lib.flash_probe_image(), SIZE + marks + 4 * len(SECTORS))

    def erases(self) -> list[int]:
        return [int(self.lib.flash_probe_erases(i)) for i in range(len(SECTORS))]


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> Any:
    runtime = ("src/banks.c", "ports/emu/flash_emu.c")
    library = clibrary.load("flash_probe.c", tmp_path_factory.mktemp("flash"), runtime)
    library.flash_probe_image.restype = ctypes.c_void_p
    return library


UNITS = st.sampled_from([1, 2, 4, 8, 16, 32])
PLACES = st.integers(0, SIZE + 40)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("erase"), st.sampled_from([*STARTS, 32, 200, SIZE, 2**32 - 64])),
        st.tuples(st.just("program"), PLACES, st.binary(max_size=96)),
        st.tuples(st.just("read"), PLACES, st.integers(0, 600)),
    ),
    max_size=30,
)


@given(UNITS, OPERATIONS)
@settings(max_examples=300)
def test_it_is_a_flash(lib: Any, unit: int, operations: Sequence[tuple[Any, ...]]) -> None:
    """Against a model in a few lines: whole sectors, aligned units, each programmed once per erase."""
    emulator = Emulator(lib, unit)
    memory, programmed, erases = bytearray(b"\xff" * SIZE), set[int](), [0] * len(SECTORS)
    for kind, address, *rest in operations:
        if kind == "erase":
            assert emulator.erase(address) == (OK if address in STARTS else ARGUMENT)
            if address in STARTS:
                sector = STARTS.index(address)
                memory[address : address + SECTORS[sector]] = b"\xff" * SECTORS[sector]
                programmed -= set(range(address // unit, (address + SECTORS[sector]) // unit))
                erases[sector] += 1
        elif kind == "program":
            data = rest[0]
            expected = OK if address % unit == 0 == len(data) % unit and address + len(data) <= SIZE else ARGUMENT
            for at in range(0, len(data) if expected == OK else 0, unit):
                if (address + at) // unit in programmed:
                    expected = FLASH
                    break
                programmed.add((address + at) // unit)
                memory[address + at : address + at + unit] = data[at : at + unit]
            assert emulator.program(address, data) == expected
        else:
            status, got = emulator.read(address, rest[0])
            assert status == (OK if address + rest[0] <= SIZE else ARGUMENT)
            assert status or got == memory[address : address + rest[0]]
        assert emulator.memory == memory
    assert emulator.erases() == erases


@given(UNITS, st.integers(0, 2**32 - 1), st.sampled_from(["cut", "fail"]))
@settings(max_examples=200)
def test_a_part_of_a_program_only_clears_bits(lib: Any, unit: int, seed: int, how: str) -> None:
    emulator = Emulator(lib, unit)
    data = bytes(range(unit, 2 * unit))
    arm(lib, how, seed)
    assert emulator.program(64, data * 2) == FLASH
    left = emulator.memory[64 : 64 + unit]
    assert all(cell | wanted == cell for cell, wanted in zip(left, data, strict=True))
    assert emulator.memory.count(0xFF) >= SIZE - unit  # the next unit was not begun
    lib.flash_probe_reboot()
    status, got = emulator.read(64, unit)
    assert status in (OK, FLASH)  # some parts notice, some give rubbish
    assert status or got == left
    assert emulator.program(64, data) == FLASH  # it must be erased first, whatever it looks like
    assert emulator.erase(64) == OK == emulator.program(64, data)


def arm(lib: Any, how: str, seed: int) -> None:
    if how == "cut":
        lib.flash_probe_cut(1, 1, ctypes.c_uint32(seed))
    else:
        lib.flash_probe_fail(1, 1, ctypes.c_uint32(seed))


@given(UNITS, st.integers(0, 2**32 - 1), st.sampled_from(["cut", "fail"]))
@settings(max_examples=200)
def test_a_part_of_an_erase_only_sets_bits_of_its_sector(lib: Any, unit: int, seed: int, how: str) -> None:
    emulator = Emulator(lib, unit)
    data = bytes(i * 7 % 251 for i in range(SIZE))
    assert emulator.program(0, data) == OK
    arm(lib, how, seed)
    assert emulator.erase(128) == FLASH
    assert emulator.memory[:128] + emulator.memory[384:] == data[:128] + data[384:]
    assert all(cell & before == before for cell, before in zip(emulator.memory, data, strict=True))
    assert emulator.erases() == [0, 0, 1, 0]
    lib.flash_probe_reboot()
    assert emulator.erase(128) == OK
    assert emulator.read(128, 256) == (OK, b"\xff" * 256)


def test_parts_of_operations_differ_by_seed(lib: Any) -> None:
    programs, erases = set(), set()
    for seed in range(40):
        emulator = Emulator(lib, 8)
        arm(lib, "cut", seed)
        emulator.program(0, bytes(8))
        lib.flash_probe_reboot()
        programs.add((emulator.memory[:8], emulator.read(0, 8)[0]))
        emulator.program(128, bytes(256))
        arm(lib, "cut", seed)
        emulator.erase(128)
        erases.add(emulator.memory[128:384])
    assert len(programs) > 30 < len(erases)
    assert {status for _, status in programs} == {OK, FLASH}
    header_kept = [left[:8] == bytes(8) and left != bytes(256) for left in erases]
    assert any(header_kept) and not all(header_kept)


@pytest.mark.parametrize(("phase", "changed"), [(0, False), (2, True)])
def test_before_nothing_has_happened_and_after_everything_has(lib: Any, phase: int, changed: bool) -> None:
    emulator = Emulator(lib, 4)
    lib.flash_probe_cut(1, phase, 0)
    assert emulator.program(0, b"abcd") == FLASH
    assert emulator.program(4, b"abcd") == FLASH == emulator.erase(0) == emulator.read(0, 4)[0]  # no power
    lib.flash_probe_reboot()
    assert emulator.read(0, 4) == (OK, b"abcd" if changed else b"\xff" * 4)


def test_so_many_operations_fail_and_then_it_works_again(lib: Any) -> None:
    emulator = Emulator(lib, 4)
    lib.flash_probe_fail(2, 2, 9)
    assert [emulator.program(4 * i, b"abcd") for i in range(5)] == [OK, FLASH, FLASH, OK, OK]


def test_bad_places_cannot_be_read_whole_units_at_a_time(lib: Any) -> None:
    emulator = Emulator(lib, 8)
    lib.flash_probe_bad(20, 5)  # in the units at 16 and 24
    refused = [at for at in range(0, 64, 4) if emulator.read(at, 4)[0] == FLASH]
    assert refused == [16, 20, 24, 28]
    assert emulator.read(0, 17)[0] == FLASH
    assert emulator.read(0, 16)[0] == OK


def test_older_images_are_completed_and_others_refused(lib: Any) -> None:
    emulator = Emulator(lib, 8)
    emulator.erase(0)
    emulator.program(64, b"01234567")
    whole, marks = emulator.image, SIZE // 8 // 4
    for n in (SIZE, SIZE + marks, len(whole)):
        assert lib.flash_probe_adopt(whole, n) == 1
        assert emulator.memory == whole[:SIZE]
        assert emulator.program(64, b"01234567") == FLASH != emulator.program(72, b"01234567")
        assert emulator.erases() == [int(n == len(whole)), 0, 0, 0]
    for n in (0, SIZE - 1, SIZE + 1, len(whole) - 1):
        assert lib.flash_probe_adopt(whole, n) == 0
