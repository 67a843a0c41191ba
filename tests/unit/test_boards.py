# SPDX-License-Identifier: Apache-2.0
"""Boards hold together, and regions go where they leave most."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medyate import ledger
from medyate.boards import BOARDS, CHIPS, KIB, MACHINES, Area, stand_ins
from medyate.plan.areas import PARTS, assign

SIZE = st.integers(0, 40_000)
AREAS = st.lists(st.integers(1, 5_000).map(lambda n: 8 * n), min_size=1, max_size=3)


def areas(sizes: list[int]) -> list[Area]:
    return [Area(f"a{number}", number << 20, size) for number, size in enumerate(sizes)]


@given(st.integers(512, 200_000), SIZE, SIZE)
def test_one_area_leaves_what_is_not_taken(ram: int, planned: int, state: int) -> None:
    static = ledger.STATIC_BYTES + ledger.STACK_BYTES
    left = (ram - static - ledger.arena_bytes(planned, 0, state)) // 8 * 8
    assert assign([Area("RAM", 0, ram)], static, planned, state, ram).left_bytes == left


@given(AREAS, SIZE, SIZE, SIZE, st.integers(0, 120_000))
def test_what_is_assigned_fits_and_nothing_leaves_more(
    sizes: list[int], static: int, planned: int, state: int, limit: int
) -> None:
    spaces = areas(sizes)
    found = assign(spaces, static, planned, state, limit)
    needs = {"static": static, "planned": ledger.align(planned, 8), "state": state}

    def most(places: dict[str, Area]) -> int | None:
        """Bytes for the epoch region under an assignment; None: it does not fit."""
        needs_here = {a: sum(needs.get(part, 0) for part in PARTS if places[part] == a) for a in spaces}
        room = min(places["epoch"].bytes - needs_here[places["epoch"]], limit - sum(needs.values()))
        return None if room < 0 or any(n > a.bytes for a, n in needs_here.items()) else room // 8 * 8

    every = [most(dict(zip(PARTS, places, strict=True))) for places in itertools.product(spaces, repeat=len(PARTS))]
    fitting = [room for room in every if room is not None]
    if fitting:
        assert found.left_bytes == max(fitting) == most(found.area_of)
    else:
        assert found.left_bytes < 0


def test_what_is_there_anyway_goes_where_the_epoch_region_is_not() -> None:
    found = assign(areas([128 * KIB, 64 * KIB]), 3712, 60 * KIB, 8 * KIB, 192 * KIB)
    assert [found.area_of[part].name for part in PARTS] == ["a1", "a1", "a0", "a0"]
    assert found.left_bytes == 128 * KIB - 8 * KIB


@pytest.mark.parametrize("name", CHIPS)
def test_a_chip_is_described_whole(name: str) -> None:
    board = BOARDS[name]
    flash = board.flash
    assert flash is not None
    spans = sorted((area.address, area.address + area.bytes) for area in board.areas)
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(spans))  # else they were one area
    assert flash.bytes % (512 * KIB) == 0
    assert all(run.erase_ms <= run.erase_max_ms for run in flash.runs) and flash.program_us <= flash.program_max_us
    assert flash.typical in ("confirmed", "unconfirmed", "none")
    addresses = [address for address, _ in flash.sectors]
    assert addresses[0] == flash.address
    assert all(address % run.bytes == 0 for address, run in flash.sectors)
    assert all(run.bytes % flash.unit_bytes == 0 for run in flash.runs)
    assert flash.half(addresses[0]) == 0
    assert flash.half(addresses[-1]) == flash.halves - 1


def test_every_chip_has_room_in_every_emulated_machine() -> None:
    for chip, target in itertools.product(CHIPS, MACHINES):
        (machine,) = BOARDS[target].areas
        last = stand_ins(BOARDS[chip].areas)[-1]
        assert last.address + last.bytes <= machine.bytes
