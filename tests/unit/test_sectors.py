# SPDX-License-Identifier: Apache-2.0
"""Banks on the sectors of real boards: whole sectors of their own, the fewest bytes, and what a commit costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medyate.boards import BOARDS, CHIPS, KIB, Board, Flash, Sectors
from medyate.errors import BudgetError
from medyate.plan.sectors import reserve


def sector_starts(flash: Flash) -> set[int]:
    return {address for address, _ in flash.sectors} | {flash.address + flash.bytes}


@given(st.sampled_from(CHIPS), st.integers(64, 600_000), st.integers(1_000, 900_000))
def test_banks_share_no_sector_and_no_place_reserves_less(name: str, generation: int, image: int) -> None:
    board = BOARDS[name]
    flash = board.flash
    assert flash is not None
    end = flash.address + flash.bytes
    try:
        made = reserve(board, generation, image)
    except BudgetError:
        made = None
    if made is not None:
        first, second = made.banks
        assert first.bytes >= generation <= second.bytes
        assert first.address + first.bytes == second.address
        assert second.address + second.bytes <= end
        assert {first.address, second.address, second.address + second.bytes} <= sector_starts(flash)
        assert first.address > flash.address  # the vectors' sector
        assert sum(count * size for count, size in made.runs) == first.bytes + second.bytes == made.bytes
        assert made.code_address in (flash.address, second.address + second.bytes)
        behind = made.code_address + image
        assert behind <= (first.address if made.code_address == flash.address else end)
    # By the rule from every start: bank 0 in the first sectors that hold a generation, bank 1 in the next ones.
    possible = []
    for start in range(1, len(flash.sectors)):
        number = start
        for _ in range(2):
            held = 0
            while held < generation and number < len(flash.sectors):
                held += flash.sectors[number][1].bytes
                number += 1
        if held < generation:
            continue
        begin = flash.sectors[start][0]
        last = flash.sectors[number][0] if number < len(flash.sectors) else end
        if image <= begin - flash.address or image <= end - last:
            possible.append(last - begin)
    assert (made is None) == (not possible)
    if made is not None:
        assert made.bytes == min(possible)


def test_small_sectors_near_the_start_are_taken_and_the_code_lies_behind() -> None:
    made = reserve(BOARDS["stm32f405"], 30_000, 117_000)
    assert made.runs == ((2, 16 * KIB), (1, 64 * KIB))
    assert [hex(bank.address) for bank in made.banks] == ["0x8008000", "0x8010000"]
    assert made.code_address == 0x08020000
    assert made.stalls
    first, second = made.banks
    assert (first.erase_ms, second.erase_ms) == (500.0, 550.0)
    assert first.program_ms == pytest.approx(7_500 * 0.016)
    assert made.epochs == 20_000
    assert made.to_json()["erases_per_epoch"] == 0.5


def test_code_in_the_other_half_is_not_stalled() -> None:
    assert not reserve(BOARDS["stm32h743"], 100_000, 1_000_000).stalls
    assert reserve(BOARDS["stm32h743"], 100_000, 1_100_000).stalls


TINY = Board(
    "tiny",
    "for tests",
    "Cortex-M4",
    flash=Flash(
        0,
        (Sectors(1, 16 * KIB, 1.0, 2.0), Sectors(2, 64 * KIB, 1.0, 2.0)),
        4,
        1.0,
        2.0,
        "x32",
        "confirmed",
        100,
        1,
        "tests",
    ),
)


@pytest.mark.parametrize(
    ("generation", "image", "words"),
    [
        (200_000, 1_000, "a bank of 200,000 B is larger than the 147,456 B of flash"),
        (66_000, 1_000, "too few sectors behind its first one"),
        (60_000, 17_000, "an image of 17,000 B and two banks of 60,000 B"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(generation: int, image: int, words: str) -> None:
    with pytest.raises(BudgetError) as refused:
        reserve(TINY, generation, image)
    assert words in refused.value.what
    assert reserve(TINY, 60_000, 16_000).code_address == 0
