# SPDX-License-Identifier: Apache-2.0
"""Flash that forgets, refuses or wears: noticed, reported, and the other bank stands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from faults import Trials, study
from machine import DAMAGED, FLASH, IGNORED, OK, WRONG, Machine
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


# Bits that flip


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


def test_a_read_that_fails_once_is_asked_again(two_banks: Machine) -> None:
    machine = two_banks
    whole = machine.boot()
    reads = machine.counts().reads
    for at in range(1, reads + 1):
        assert machine.start_under(read_fail_at=at, read_fail_count=1) == OK
        assert machine.identity() == whole
        assert [found.state for found in machine.found()] == ["usable", "usable"]


# A flash that lies


def test_a_bit_that_turns_over_after_the_start_never_gets_into_a_generation(
    two_banks: Machine, samples: Samples
) -> None:
    """Every byte of the bank in use: the commit is refused before it erases the other one, which then stands."""
    machine = two_banks
    machine.train(samples, slice(8, 12))
    machine.lib.cut_probe_keep()
    assert machine.lib.cut_probe_roll_back(0, 0) == 0
    older = machine.boot()
    machine.lib.cut_probe_restore()
    address = machine.bank(0)[0]
    size = BANK_HEADER_BYTES + len(machine.payload(0))
    for place in range(BANK_HEADER_BYTES, size):
        machine.lib.cut_probe_restore()
        machine.flip(address + place, place % 8)
        before = machine.identity()
        flash = machine.read(0, machine.compiled.flash.size)
        assert machine.commit() == DAMAGED, place
        assert machine.read(0, len(flash)) == flash
        assert machine.fault is None
        after = machine.identity()
        assert (after.generation, after.epochs, after.steps) == (before.generation, before.epochs, before.steps)
        assert machine.boot() == older
        assert [found.state for found in machine.found()] == ["damaged", "usable"]
    machine.lib.cut_probe_restore()
    machine.flip(address + 9, 1)  # of a header that has been read nothing is made
    assert machine.commit() == OK
    made = machine.identity()
    assert machine.boot() == made


@pytest.mark.parametrize("lie", [IGNORED, WRONG])
def test_what_was_not_written_as_it_should_be_is_written_again_or_refused(
    two_banks: Machine, samples: Samples, lie: int
) -> None:
    machine = two_banks
    machine.train(samples, slice(8, 12))
    machine.lib.cut_probe_keep()
    old = machine.boot()
    machine.lib.cut_probe_restore()
    assert machine.commit() == OK
    operations, new = machine.counts().operations, machine.boot()
    for at in range(1, operations + 1):
        for count in (1, 1 << 20):
            machine.lib.cut_probe_restore()
            status = machine.commit(lie_at=at, lie_count=count, lie=lie, seed=at)
            assert status == (OK if count == 1 else FLASH)
            assert machine.fault is None if count == 1 else machine.fault in (2, 3, 4)
            assert machine.boot() == (new if count == 1 else old), (at, count)


def test_a_bit_that_turns_over_behind_what_was_read_back_is_written_again(two_banks: Machine, samples: Samples) -> None:
    """The payload is read as a whole before its header is written."""
    machine = two_banks
    machine.train(samples, slice(8, 12))
    machine.lib.cut_probe_keep()
    assert machine.commit() == OK
    calls, new = machine.counts().calls, machine.boot()
    place = machine.bank(1)[0] + BANK_HEADER_BYTES
    late = []
    for at in range(1, calls + 1):
        machine.lib.cut_probe_restore()
        assert machine.commit(flip_at=at, flip_address=place, flip_bit=3) == OK
        late += [] if machine.boot() == new else [at]
    assert set(late) <= set(range(calls - 2, calls + 1))  # the last piece of that reading, and the header


def test_a_dead_sector_is_named_and_the_generation_before_stands(two_banks: Machine, samples: Samples) -> None:
    machine = two_banks
    machine.train(samples, slice(8, 12))
    machine.lib.cut_probe_keep()
    old = machine.boot()
    sizes = [size for count, size in machine.compiled.flash.runs for _ in range(count)]
    for sector in range(len(sizes)):
        machine.lib.cut_probe_restore()
        address = sum(sizes[:sector])
        status = machine.commit(dead_address=address, dead_bytes=1)
        operations = machine.counts().operations
        if sector not in (2, 3, 4):  # of bank 1
            assert (status, machine.fault) == (OK, None)
            continue
        assert (status, machine.fault) == (FLASH, sector)
        assert operations == sector - 2 + 2  # the sectors before it, and two tries
        machine.arm()
        assert machine.boot() == old


def test_a_run_whose_flash_ignores_writes_says_so(
    tiny_host: Compiled, run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("run", tiny_host.folder, "--data", tiny_host.folder.parent / "data.npz", "--epochs", 3, "--limit", 8)
    given = (*given, "--rate", 0.01)
    given = (*given, "--no-measure", "--flash", tmp_path / "flash.bin", "--log", tmp_path / "run.json")
    monkeypatch.setenv("MDY_FLASH_IGNORE", "1:4000000000")
    ended = run_cli(*given)
    assert ended.code == 2
    assert "the flash refused twice: sector 0" in ended.err
    monkeypatch.delenv("MDY_FLASH_IGNORE")
    monkeypatch.setenv("MDY_FLASH_DEAD", "1100:8")
    ended = run_cli(*given)
    assert ended.code == 2  # the second commit
    assert "the flash refused twice: sector 4" in ended.err


def test_drawn_faults_leave_no_silent_corruption(machine: Machine, samples: Samples) -> None:
    """Some of what `tools/fault_study.py` draws."""
    for row in study(Trials(machine, samples, 7), 2000):
        assert not row.silent, (row.name, row.silent[:3])
        assert row.tried == row.went_on + row.started_over > 0


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
        seed = int(random.integers(1 << 30))
        machine.lib.cut_probe_restore()
        assert machine.end_epoch_failing(at, 1, seed)[0]  # is tried once more
        assert machine.fault is None
        assert machine.boot() == new, at
        for count in (4, 1000):
            machine.lib.cut_probe_restore()
            assert not machine.end_epoch_failing(at, count, seed)[0]
            assert machine.fault in (2, 3, 4)  # of bank 1
            assert machine.identity().epochs == old.epochs
            machine.lib.cut_probe_reboot_flash()
            assert machine.end_epoch()[0]  # the flash works again: the same commit
            assert machine.boot() == new, (at, count)
    for at in (1, begun // 2, begun):
        machine.lib.cut_probe_restore()
        assert not machine.end_epoch_failing(at, 4)[0]
        machine.train(samples, slice(12, 16))  # or training goes on first
        assert machine.end_epoch()[0]
        made = machine.identity()
        assert machine.boot() == made
        assert (made.epochs, made.steps) == (old.epochs + 1, old.steps + 8)
        machine.lib.cut_probe_restore()
        assert not machine.end_epoch_failing(at, 4)[0]
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
            refusals = []
            while session.position.epochs == part.start // 4:
                try:
                    session.commit()
                except LinkError as error:
                    refusals.append(str(error))
            # One fails in the payload, then the erase does, twice in each try.
            assert len(refusals) == (49 if part.start == 0 else 0)
            assert all(text.startswith("the flash refused twice: sector 0 of those") for text in refusals)
        made = session.read(STATE), session.read(WEIGHTS)
        assert [found.erases for found in session.position.found] == [51, 1]
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
