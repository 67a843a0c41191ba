# SPDX-License-Identifier: Apache-2.0
"""Compiler and device place the banks alike on any list of sectors; they share none."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clibrary
from medyate.errors import BudgetError, DataError
from medyate.ledger import BANK_HEADER_BYTES
from medyate.plan.banks import EMULATED_FLASH_MAX, Bank, BankFlash, Run, emulated_flash, place_banks

KIB = 1024
F405 = (Run(4, 16 * KIB), Run(1, 64 * KIB), Run(7, 128 * KIB))
F746 = (Run(4, 32 * KIB), Run(1, 128 * KIB), Run(3, 256 * KIB))
H743 = (Run(16, 128 * KIB),)
NRF52840 = (Run(256, 4 * KIB),)

RUNS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 64).map(lambda n: 32 * n)), min_size=1, max_size=8)
FLASH_REFUSED = -4


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    runtime = ("src/banks.c", "ports/emu/flash_emu.c")
    return clibrary.load("flash_probe.c", tmp_path_factory.mktemp("flash"), runtime)


def on_the_device(probe: Any, runs: Sequence[tuple[int, int]], payload_bytes: int) -> tuple[Bank, Bank] | None:
    pairs = (ctypes.c_uint32 * (2 * len(runs)))(*(word for run in runs for word in run))
    words = (ctypes.c_uint32 * 4)()
    probe.flash_probe_geometry(pairs, len(runs), 8)
    status = probe.flash_probe_place(ctypes.c_uint32(BANK_HEADER_BYTES + payload_bytes), words)
    assert status in (0, FLASH_REFUSED)
    return None if status else (Bank(words[0], words[1]), Bank(words[2], words[3]))


def by_the_compiler(runs: Sequence[tuple[int, int]], payload_bytes: int) -> tuple[Bank, Bank] | None:
    try:
        return place_banks(runs, payload_bytes)
    except BudgetError:
        return None


@given(RUNS, st.integers(0, 20000))
@settings(max_examples=1000)
def test_device_and_compiler_agree(probe: Any, runs: list[tuple[int, int]], payload_bytes: int) -> None:
    assert on_the_device(probe, runs, payload_bytes) == by_the_compiler(runs, payload_bytes)


@given(RUNS, st.integers(0, 20000))
def test_banks_are_the_fewest_whole_sectors_in_order(runs: list[tuple[int, int]], payload_bytes: int) -> None:
    banks = by_the_compiler(runs, payload_bytes)
    sectors = [size for count, size in runs for _ in range(count)]
    taken: list[list[int]] = [[], []]
    for bank in (0, 1):
        while sectors and sum(taken[bank]) < BANK_HEADER_BYTES + payload_bytes:
            taken[bank].append(sectors.pop(0))
    fits = sum(taken[1]) >= BANK_HEADER_BYTES + payload_bytes
    assert banks == ((Bank(0, sum(taken[0])), Bank(sum(taken[0]), sum(taken[1]))) if fits else None)


@given(RUNS, st.integers(0, 40000))
def test_a_sector_is_found_where_one_begins(probe: Any, runs: list[tuple[int, int]], address: int) -> None:
    starts: dict[int, tuple[int, int]] = {}
    at = 0
    for size in (size for count, size in runs for _ in range(count)):
        starts[at] = (size, len(starts))
        at += size
    pairs = (ctypes.c_uint32 * (2 * len(runs)))(*(word for run in runs for word in run))
    probe.flash_probe_geometry(pairs, len(runs), 8)
    for place in (address, *starts, at):
        index = ctypes.c_uint32()
        size = probe.flash_probe_sector(ctypes.c_uint32(place), ctypes.byref(index))
        assert size == starts.get(place, (0, 0))[0]
        if place in starts:
            assert index.value == starts[place][1]


@pytest.mark.parametrize(
    ("runs", "payload", "banks"),
    [
        (F405, 20 * KIB, (Bank(0, 32 * KIB), Bank(32 * KIB, 32 * KIB))),
        (F405, 40 * KIB, (Bank(0, 48 * KIB), Bank(48 * KIB, 80 * KIB))),
        (F405, 60 * KIB, (Bank(0, 64 * KIB), Bank(64 * KIB, 64 * KIB))),
        (F405, 64 * KIB - 64, (Bank(0, 64 * KIB), Bank(64 * KIB, 64 * KIB))),
        (F405, 64 * KIB - 63, (Bank(0, 128 * KIB), Bank(128 * KIB, 128 * KIB))),
        (F746, 100 * KIB, (Bank(0, 128 * KIB), Bank(128 * KIB, 128 * KIB))),
        (H743, 20 * KIB, (Bank(0, 128 * KIB), Bank(128 * KIB, 128 * KIB))),
        (NRF52840, 20 * KIB, (Bank(0, 24 * KIB), Bank(24 * KIB, 24 * KIB))),
    ],
)
def test_real_parts(probe: Any, runs: tuple[Run, ...], payload: int, banks: tuple[Bank, Bank]) -> None:
    assert place_banks(runs, payload) == banks == on_the_device(probe, runs, payload)


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(BudgetError, match=r"two banks of 524,352 B.*do not fit the 983,040 B"):
        place_banks((*F405[:2], Run(6, 128 * KIB), Run(2, 32 * KIB)), 512 * KIB)
    with pytest.raises(BudgetError, match="do not fit"):
        emulated_flash(EMULATED_FLASH_MAX // 2)
    flash = emulated_flash(5000)
    assert (flash.runs, flash.size, flash.sectors) == ((Run(4, 4096),), 16384, 4)


@pytest.mark.parametrize(
    ("runs", "unit"), [((Run(0, 64),), 8), ((Run(1, 60),), 8), ((Run(1, 0),), 1), ((), 64), ((), 3)]
)
def test_flash_that_does_not_exist_is_refused(runs: tuple[Run, ...], unit: int) -> None:
    with pytest.raises(DataError):
        BankFlash(runs, unit)
