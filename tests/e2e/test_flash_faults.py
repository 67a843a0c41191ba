# SPDX-License-Identifier: Apache-2.0
"""Flash that forgets, refuses or wears: noticed, reported, and the other bank stands."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from machine import Machine
from medyate.errors import LinkError
from medyate.ledger import BANK_HEADER_BYTES
from medyate.run.link import Link
from medyate.run.session import STATE, WEIGHTS, Session, Training
from medyate.run.train import Compiled
from medyate.run.transport import HostProgram
from shared_files import Samples
from tiny import samples_of


@pytest.fixture(scope="module")
def machine(tiny_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tiny_host, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def samples(machine: Machine) -> Samples:
    return samples_of(machine.compiled)


def epochs(machine: Machine, samples: Samples, count: int) -> None:
    """Trains and commits."""
    for number in range(count):
        machine.train(samples, slice(4 * number % 32, 4 * number % 32 + 4))
        assert machine.end_epoch()[0]


@pytest.fixture
def two_banks(machine: Machine, samples: Samples) -> Machine:
    """Generation 3 in bank 0 and generation 2 in bank 1; kept."""
    machine.format()
    machine.boot(fresh=True)
    epochs(machine, samples, 3)
    machine.boot()
    assert machine.bank_in_use == 0
    machine.lib.cut_probe_keep()
    return machine


# Bits that turn over


def test_a_bit_that_turns_over_anywhere_in_a_bank_is_noticed(two_banks: Machine) -> None:
    """Every bit of both headers, and of the payload every third byte."""
    machine = two_banks
    whole = {0: machine.identity()}
    assert machine.lib.cut_probe_roll_back(0, 0) == 0
    whole[1] = machine.boot()
    machine.lib.cut_probe_restore()
    size = BANK_HEADER_BYTES + len(machine.payload(0))
    places = [*range(BANK_HEADER_BYTES), *range(BANK_HEADER_BYTES, size, 3), size - 1]
    for damaged in (0, 1):
        for place in places:
            for bit in range(8) if place < BANK_HEADER_BYTES else (place % 8,):
                machine.lib.cut_probe_restore()
                machine.flip(machine.bank(damaged)[0] + place, bit)
                assert machine.boot() == whole[1 - damaged], (damaged, place, bit)
                assert machine.bank_in_use == 1 - damaged
                states = [found.state for found in machine.found()]
                assert states == ["damaged" if bank == damaged else "usable" for bank in (0, 1)], (place, bit)
    machine.lib.cut_probe_restore()


def test_with_both_banks_damaged_training_starts_from_the_factory(two_banks: Machine, samples: Samples) -> None:
    machine = two_banks
    factory = fresh_state(machine)
    for places in ((0, 0), (70, 3), (40, 90)):
        machine.lib.cut_probe_restore()
        for bank, place in enumerate(places):
            machine.flip(machine.bank(bank)[0] + place, 2)
        begun = machine.boot()
        assert (begun.epochs, begun.state, begun.weights) == factory
        assert [found.state for found in machine.found()] == ["damaged", "damaged"]
        epochs(machine, samples, 2)
        made = machine.identity()
        assert machine.boot() == made
        assert [found.state for found in machine.found()] == ["usable", "usable"]
    machine.lib.cut_probe_restore()


def fresh_state(machine: Machine) -> tuple[int, int, int]:
    begun = machine.boot(fresh=True)
    return begun.epochs, begun.state, begun.weights


# Units that cannot be read


def test_units_that_cannot_be_read_at_the_start_cost_at_most_their_bank(two_banks: Machine, samples: Samples) -> None:
    machine = two_banks
    whole = machine.boot()
    for bank in (0, 1):
        address = machine.bank(bank)[0]
        for place in range(0, BANK_HEADER_BYTES + len(machine.payload(bank)), 4):
            machine.lib.cut_probe_restore()
            begun = machine.boot(bad=(address + place, 1))
            assert machine.bank_in_use == 1 - bank
            assert begun.generation == (2 if bank == 0 else 3)
            assert machine.found()[bank].state == "damaged"
            epochs(machine, samples, 1)  # over the bank that could not be read
    machine.lib.cut_probe_restore()
    size = sum(machine.bank(1))
    assert machine.boot(bad=(0, size)).generation == 0
    assert [found.state for found in machine.found()] == ["damaged", "damaged"]
    machine.lib.cut_probe_restore()
    assert machine.boot() == whole


# Operations that fail


def test_failing_operations_leave_the_old_generation_and_a_later_commit_succeeds(
    two_banks: Machine, samples: Samples
) -> None:
    machine = two_banks
    machine.train(samples, slice(8, 12))
    machine.lib.cut_probe_keep()
    old = machine.boot()
    machine.lib.cut_probe_restore()
    _, begun = machine.end_epoch()
    new = machine.boot()
    random = np.random.default_rng(4)
    for at in range(1, begun + 1):
        for count in (1, 2, 1000):
            machine.lib.cut_probe_restore()
            committed, _ = machine.end_epoch_failing(at, count, seed=int(random.integers(1 << 30)))
            assert not committed
            assert machine.identity().epochs == old.epochs
            machine.lib.cut_probe_reboot_flash()
            assert machine.end_epoch()[0]  # the flash works again: the same commit
            assert machine.boot() == new, (at, count)
    for at in (1, begun // 2, begun):
        machine.lib.cut_probe_restore()
        assert not machine.end_epoch_failing(at, 1)[0]
        machine.train(samples, slice(12, 16))  # or training goes on first
        assert machine.end_epoch()[0]
        made = machine.identity()
        assert machine.boot() == made
        assert (made.epochs, made.steps) == (old.epochs + 1, old.steps + 8)
        machine.lib.cut_probe_restore()
        assert not machine.end_epoch_failing(at, 1)[0]
        assert machine.boot().epochs in (old.epochs, new.epochs)  # the last unit may be whole after all


def test_a_program_whose_flash_fails_goes_on(
    tiny_host: Compiled, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same over the link: the environment tells the host program which operations fail."""
    training = Training(0.3, 2, 4, "constant")
    monkeypatch.setenv("MDY_FLASH_FAIL", "7:100")
    monkeypatch.setenv("MDY_FLASH_SEED", "3")
    with HostProgram(tiny_host.image, tmp_path / "flash.bin") as program:
        session = Session(Link(program, 20.0))
        session.begin(training)
        for part in (slice(0, 4), slice(4, 8)):
            for x, y in zip(samples.x[part], samples.y[part], strict=True):
                session.train(x, int(y))
            tries = 0
            while session.position.epochs == part.start // 4:
                tries += 1
                with contextlib.suppress(LinkError):
                    session.commit()
            assert tries == (101 if part.start == 0 else 1)  # one operation fails in each try
        made = session.read(STATE), session.read(WEIGHTS)
        assert [found.erases for found in session.position.found] == [101, 1]
    monkeypatch.delenv("MDY_FLASH_FAIL")
    monkeypatch.setenv("MDY_FLASH_BAD", "8:4")
    with HostProgram(tiny_host.image, tmp_path / "flash.bin") as program:
        session = Session(Link(program, 20.0))
        start = session.begin(dataclasses.replace(training, fresh=False))
        assert start.start() == "bank 0 was damaged; generation 2 of bank 1 is used"
        assert (session.read(STATE), session.read(WEIGHTS)) == made


def test_a_roll_back_without_power_has_happened_or_not(two_banks: Machine) -> None:
    machine = two_banks
    newer = machine.boot()
    assert machine.lib.cut_probe_roll_back(0, 0) == 0
    older = machine.boot()
    stood = []
    for seed in range(100):
        machine.lib.cut_probe_restore()
        assert machine.lib.cut_probe_roll_back(1, seed) != 0
        stood.append(machine.boot())
    assert set(stood) - {newer} == {older}


# A hundred epochs


def test_a_hundred_epochs_wear_both_banks_alike_and_flash_holds_what_ram_holds(
    machine: Machine, samples: Samples
) -> None:
    machine.format()
    machine.boot(fresh=True)
    for number in range(100):
        machine.train(samples, slice(4 * number % 32, 4 * number % 32 + 4))
        assert machine.end_epoch()[0]
        in_ram, state = machine.identity(), machine.payload(machine.bank_in_use)
        if number % 2:
            machine.lib.cut_probe_keep()
        assert machine.boot() == in_ram, number
        assert machine.payload(machine.bank_in_use) == state
        if number % 2:
            machine.lib.cut_probe_restore()  # every other epoch goes on without the boot
    assert machine.sector_erases() == [50, 50, 50, 50, 50, 0]  # two sectors, three, and one that no bank needs
    machine.boot()
    assert [found.erases for found in machine.found()] == [50, 50]
    assert [found.generation for found in machine.found()] == [99, 100]


def test_the_count_of_erases_outlives_a_lost_header(two_banks: Machine, samples: Samples) -> None:
    machine = two_banks
    epochs(machine, samples, 5)
    assert not machine.end_epoch(20, 1)[0]
    machine.boot()
    assert machine.found()[0].state == "unfinished"
    assert [found.erases for found in machine.found()] == [4, 4]  # of bank 0 the other header tells
    epochs(machine, samples, 1)
    assert [found.erases for found in machine.found()] == [5, 4]
    assert machine.sector_erases()[0] == 6  # a commit that the power ended is not in the headers
