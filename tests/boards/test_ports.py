# SPDX-License-Identifier: Apache-2.0
"""The ports on the emulated parts: training, commits in the part's own flash, resumes, power cuts, planted faults."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from boards.attached import Attached
from boards.flash import INSIDE
from boards.machine import BoardError, PowerCut
from boards.trained import FRESH, RESUME, Pair, committed, epoch, learned
from chips import CHIPS, RAM
from medyate.boards import BOARDS
from medyate.errors import LinkError
from medyate.run.train import Compiled
from medyate.selftest import work_cycles
from shared_files import some_long

CUTS = 5


def clock_hz(name: str) -> int:
    build = BOARDS[name].build
    assert build is not None
    return build.clock_hz


@pytest.mark.parametrize("name", CHIPS)
def test_a_port_trains_commits_and_resumes_as_the_host_does(name: str, pairs: Callable[[str], Pair]) -> None:
    pair = pairs(name)
    board, chip = Attached(name, pair.chip.image, baud=115200), pair.chip
    banks = chip.model["banks"]["banks"]
    for number, bank in enumerate(banks):
        session = board.power_on()
        assert session.hello.ticks_per_second == 1_000_000
        position = session.begin(RESUME if number else FRESH)
        assert position.generation == number
        if number:
            assert session.digests() == pair.right[0].found
        losses = epoch(session, chip, number)
        flash_us, all_us = board.cells.typical_us, board.machine.microseconds
        session.commit()
        flash_us, all_us = board.cells.typical_us - flash_us, board.machine.microseconds - all_us
        assert (losses, session.digests()) == (pair.right[number].losses, pair.right[number].done)
        assert flash_us / 1000 == pytest.approx(bank["commit_ms"], rel=0.01)
        assert 0 < (all_us - flash_us) / 1e6 * clock_hz(name) < work_cycles(chip.model["banks"], number)
        marks = session.marks()
        assert marks.static + marks.stack <= RAM
        assert marks.static + chip.plan["stack_reserved_bytes"] <= RAM
        assert 0 < marks.stack <= chip.model["stack_bound_bytes"]
    session = board.power_on()
    assert session.begin(RESUME).generation == 2
    assert session.digests() == pair.right[1].found
    assert not board.machine.refusals
    assert board.machine.resets == 0


def cut_at(drawn: random.Random, erases: int, operations: int) -> int:
    """Every other cut in an erase: most of a commit's operations are programs, most of its time are erases."""
    return drawn.randint(1, erases if drawn.randrange(2) else operations)


@pytest.mark.parametrize("count", [CUTS, pytest.param(4 * CUTS, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CHIPS)
def test_a_power_cut_in_a_commit_leaves_one_generation_or_the_other(
    name: str, count: int, pairs: Callable[[str], Pair]
) -> None:
    pair = pairs(name)
    board, chip = Attached(name, pair.chip.image), pair.chip
    cells = board.cells
    session = board.power_on()
    session.begin(FRESH)
    committed(session, chip, 0)
    old = cells.get(0, cells.size)
    before, erases_before = cells.operations, cells.erases.total()
    committed(session, chip, 1)
    operations, erases = cells.operations - before, cells.erases.total() - erases_before
    drawn, went_on = random.Random(f"{name} {count}"), False
    for _ in range(count):
        cells.put(0, old)
        session = board.power_on()
        assert session.begin(RESUME).generation == 1
        epoch(session, chip, 1)
        at = cut_at(drawn, erases, operations)
        cells.cut_at, cells.cut_phase = cells.operations + at, drawn.randrange(3)
        programs = cells.programs
        with pytest.raises(PowerCut):
            session.commit()
        assert (cells.programs == programs) == (at <= erases)
        session = board.power_on()
        generation = session.begin(RESUME).generation
        assert generation in (1, 2), at
        assert learned(session.digests()) == learned(pair.right[generation - 1].found), at
        if generation == 1 and not went_on:
            went_on = True
            losses, done = committed(session, chip, 1)
            assert losses == pair.right[1].losses
            assert learned(done) == learned(pair.right[1].done)
    assert not board.machine.refusals
    assert board.machine.resets == 0


F4, H7, NRF, RP = "common/stm32/f4_f7/flash.c", "common/stm32/h7/flash.c", "common/nrf52/nvmc.c", "rp2350/flash.c"
REFUSED = "the flash refused twice"
RESTARTED = "the target restarted"


@dataclass(frozen=True)
class Planted:
    """A mistake in a port, and what is seen of it."""

    name: str
    file: str
    right: str
    wrong: str
    said: str
    """By the session when it commits. A wrong key is a bus error, which restarts the board."""
    refusal: str
    """Counted by the part; empty where it can refuse nothing."""


PLANTED = {
    "f405 psize": Planted(
        "stm32f405", F4, "CR_PSIZE_32 (2U << 8)", "CR_PSIZE_32 (1U << 8)", REFUSED, "PGPERR: a store of 4 bytes at x16"
    ),
    "f405 key": Planted("stm32f405", F4, "FLASH_KEYR = KEY2;", "", RESTARTED, "FLASH: a wrong key"),
    "f405 sector": Planted("stm32f405", F4, "SER | CR_SNB(sector)", "SER | CR_SNB(sector + 1U)", REFUSED, ""),
    "f746 sector": Planted("stm32f746", F4, "SER | CR_SNB(sector)", "SER | CR_SNB(sector + 1U)", REFUSED, ""),
    "h743 key": Planted(
        "stm32h743", H7, "FLASH_KEYR(address) = KEY2;", "", RESTARTED, "FLASH: a wrong key"
    ),
    "h743 word": Planted("stm32h743", H7, "i += WORD_BYTES", "i += WORD_BYTES / 2U", REFUSED, "INCERR"),
    "nrf52840 write": Planted(
        "nrf52840", NRF, "CONFIG_WRITE 1U", "CONFIG_WRITE 0U", REFUSED, "a store while CONFIG is not WEN"
    ),
    "rp2350 interrupts": Planted(
        "rp2350", RP, "const uint32_t was = mdy_mask();", "const uint32_t was = 0;", "", "which needs the flash"
    ),
    "rp2350 cache": Planted("rp2350", RP, "    rom_flush_cache();", "    mdy_barrier();", REFUSED, ""),
    "rp2350 sector": Planted(
        "rp2350", RP, "ERASE, address, SECTOR", "ERASE, address + 256U, SECTOR", REFUSED, "not in units of 4096 bytes"
    ),
}  # fmt: skip


def wrong_port(chip: Compiled, planted: Planted, folder: Path) -> Path:
    """The image with the mistake in it."""
    project = folder / "project"
    shutil.copytree(chip.folder / "project", project)
    source = project / "boards" / planted.file
    text = source.read_text()
    assert text.count(planted.right) == 1
    source.write_text(text.replace(planted.right, planted.wrong))
    flags = "ARM_CFLAGS=-O3 -funroll-loops -Wno-error"  # what the mistake leaves unused
    subprocess.run(["make", "-s", planted.name, flags], cwd=project, check=True, capture_output=True)
    return project / "build" / planted.name / "firmware.elf"


@pytest.mark.parametrize("planted", some_long(PLANTED, lambda name: not name.startswith("f405")))
def test_a_mistake_in_a_port_is_seen(planted: str, pairs: Callable[[str], Pair], tmp_path: Path) -> None:
    mistake = PLANTED[planted]
    pair = pairs(mistake.name)
    board = Attached(mistake.name, wrong_port(pair.chip, mistake, tmp_path))
    banks = pair.chip.model["banks"]
    board.cells.put(banks["banks"][0]["address"] - board.cells.address, bytes(banks["reserved_bytes"]))  # not new
    session = board.power_on()
    session.begin(FRESH)
    epoch(session, pair.chip, 0)
    if mistake.said:
        with pytest.raises(LinkError, match=mistake.said):
            session.commit()
    else:
        session.commit()
    refusals = " ".join(board.machine.refusals)
    assert mistake.refusal in refusals
    assert bool(refusals) == bool(mistake.refusal)


@pytest.mark.long
def test_the_h743_needs_its_guard_around_reads_of_a_torn_word(pairs: Callable[[str], Pair], tmp_path: Path) -> None:
    """A load of a flash word that was cut is a bus fault; without the guard it comes again at every start."""
    pair = pairs("stm32h743")
    unguarded = Planted("stm32h743", H7, "SCB_CCR |= SCB_CCR_BFHFNMIGN;", "", "", "")
    board = Attached("stm32h743", wrong_port(pair.chip, unguarded, tmp_path))
    session = board.power_on()
    session.begin(FRESH)
    epoch(session, pair.chip, 0)
    board.cells.cut_at, board.cells.cut_phase = board.cells.operations + 700, INSIDE
    with pytest.raises(PowerCut):
        session.commit()
    with pytest.raises(BoardError, match="a bus fault"):
        board.power_on().begin(RESUME)
