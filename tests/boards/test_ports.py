# SPDX-License-Identifier: Apache-2.0
"""The ports on the emulated parts: training, commits in the part's own flash, resumes, power cuts, planted faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from boards.attached import Attached
from boards.machine import PowerCut
from chips import CHIPS, RAM, compiled
from medyate.boards import BOARDS
from medyate.run.session import Digests, Session, Training
from medyate.run.train import Compiled, connect, int8_samples
from shared_files import field_digits

STEPS = 3
"""Of an epoch."""
FRESH = Training(0.02, 4, STEPS, flip=True, seed=3)
RESUME = replace(FRESH, fresh=False)
CUTS = 5


@dataclass(frozen=True)
class Trained:
    """What an epoch gave, and what is held behind its commit: at once, and by a start that finds it."""

    losses: list[float]
    done: Digests
    found: Digests


@dataclass(frozen=True)
class Pair:
    """digitnet for a chip and for this machine by the same plan, and the right epochs."""

    name: str
    chip: Compiled
    right: tuple[Trained, Trained]


def epoch(session: Session, image: Compiled, number: int) -> list[float]:
    samples, _ = int8_samples(image, field_digits())
    labels = field_digits().y_train
    return [session.train(samples[n], int(labels[n])).loss for n in range(number * STEPS, (number + 1) * STEPS)]


def committed(session: Session, image: Compiled, number: int) -> tuple[list[float], Digests]:
    """Losses of an epoch, digests behind its commit."""
    losses = epoch(session, image, number)
    session.commit()
    return losses, session.digests()


def learned(digests: Digests) -> tuple[int, int]:
    """Deltas and state: the generation that is in use."""
    return digests.deltas, digests.state


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """By the chip's name; each made once."""
    made: dict[str, Pair] = {}
    rankings: list[Path] = []

    def pair(name: str) -> Pair:
        if name not in made:
            folder, board = tmp_path_factory.mktemp(name), BOARDS[name]
            ranking = rankings[0] if rankings else None
            host = compiled(folder / "host", "host", board, ranking)
            rankings.append(rankings[0] if rankings else host.folder / "04_ranking.json")
            chip = compiled(folder / "chip", name, board, rankings[0])
            assert chip.model["digest"] == host.model["digest"]
            made[name] = Pair(name, chip, right(host, folder / "flash.bin"))
        return made[name]

    return pair


def right(host: Compiled, flash: Path) -> tuple[Trained, Trained]:
    with connect(host, "host", flash) as session:
        session.begin(FRESH)
        first, done = committed(session, host, 0)
    with connect(host, "host", flash) as session:
        session.begin(RESUME)
        found = session.digests()
        second, done_then = committed(session, host, 1)
    with connect(host, "host", flash) as session:
        session.begin(RESUME)
        return Trained(first, done, found), Trained(second, done_then, session.digests())


@pytest.mark.parametrize("name", CHIPS)
def test_a_port_trains_commits_and_resumes_as_the_host_does(name: str, pairs: Callable[[str], Pair]) -> None:
    pair = pairs(name)
    board, chip = Attached(name, pair.chip.image), pair.chip
    banks = chip.model["banks"]["banks"]
    for number, bank in enumerate(banks):
        session = board.power_on()
        assert session.hello.ticks_per_second == 1_000_000
        before, micros = board.cells.typical_us, board.machine.microseconds
        position = session.begin(RESUME if number else FRESH)
        assert position.generation == number
        if number:
            assert session.digests() == pair.right[0].found
        assert committed(session, chip, number) == (pair.right[number].losses, pair.right[number].done)
        flash_ms = (board.cells.typical_us - before) / 1000
        assert flash_ms == pytest.approx(bank["commit_ms"], rel=0.01)
        assert board.machine.microseconds - micros >= 1000 * flash_ms
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
    drawn = random.Random(f"{name} {count}")
    for _ in range(count):
        cells.put(0, old)
        session = board.power_on()
        assert session.begin(RESUME).generation == 1
        epoch(session, chip, 1)
        at = cut_at(drawn, erases, operations)
        cells.cut_at, cells.cut_phase = cells.operations + at, drawn.randrange(3)
        with pytest.raises(PowerCut):
            session.commit()
        session = board.power_on()
        generation = session.begin(RESUME).generation
        assert generation in (1, 2), at
        assert learned(session.digests()) == learned(pair.right[generation - 1].found), at
        if generation == 1:
            losses, done = committed(session, chip, 1)
            assert losses == pair.right[1].losses
            assert learned(done) == learned(pair.right[1].done)
    assert not board.machine.refusals
    assert board.machine.resets == 0
