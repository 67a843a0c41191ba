# SPDX-License-Identifier: Apache-2.0
"""After a power cut at any flash operation the old generation or the new one stands, never a mixture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from machine import Identity, Machine
from medyate.errors import LinkError
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES
from medyate.plan.banks import place_banks
from medyate.run.link import Link
from medyate.run.session import STATE, WEIGHTS, Digests, Position, Result, Session, Training
from medyate.run.train import Compiled
from medyate.run.transport import HostProgram
from shared_files import Samples

PHASES = ("before", "inside", "after")
FRESH = Training(0.02, 2, 12, "constant", seed=5)
RESUME = Training(0.02, 2, 12, "constant", seed=5, fresh=False)
CUT_STATUS = 99


# Operations of a larger network, in this process; test_power_cut_everywhere.py has every one of a small one


@pytest.fixture(scope="module")
def machine(digitnet_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(digitnet_host, tmp_path_factory.mktemp("cut"))


def two_generations(machine: Machine, samples: Samples, *, first: bool) -> tuple[Identity, Identity, int]:
    """(old, new, operations of the commit between them); the machine stands before that commit, kept."""
    machine.format()
    machine.boot(fresh=True)
    if not first:
        machine.train(samples, slice(0, 12))
        assert machine.end_epoch()[0]
    old = machine.boot()
    machine.train(samples, slice(12, 24))
    machine.lib.cut_probe_keep()
    committed, operations = machine.end_epoch()
    assert committed
    new = machine.boot()
    assert (new.generation, new.state, new.weights) != (old.generation, old.state, old.weights)
    return old, new, operations


@pytest.mark.parametrize("first", [True, False], ids=["first commit", "second commit"])
def test_a_cut_at_an_operation_of_a_commit_leaves_the_old_generation_or_the_new(
    machine: Machine, samples: Samples, first: bool
) -> None:
    """All operations of the second commit; of the first one its ends and every 29th between."""
    old, new, operations = two_generations(machine, samples, first=first)
    assert old.generation == (0 if first else 1)
    assert operations > 1000
    some = {*range(1, 31), *range(31, operations - 30, 29), *range(operations - 30, operations + 1)}
    for at in sorted(some):
        for phase in range(3):
            machine.lib.cut_probe_restore()
            committed, begun = machine.end_epoch(at, phase, seed=at)
            assert not committed
            assert begun == at
            # The last unit may be complete although the power went in the middle of it.
            last = ([old], [old, new], [new])[phase]
            assert machine.boot() in (last if at == operations else [old]), (at, operations, PHASES[phase])
    machine.lib.cut_probe_restore()
    assert machine.end_epoch(operations + 1)[0]


def test_after_any_series_of_cuts_training_goes_on(machine: Machine, samples: Samples) -> None:
    _, _, operations = two_generations(machine, samples, first=False)
    random = np.random.default_rng(18)
    for _ in range(60):
        machine.lib.cut_probe_restore()
        stands = machine.boot()
        for _ in range(6):
            machine.train(samples, slice(0, 2))
            committed, _ = machine.end_epoch(int(random.integers(1, operations + 40)), int(random.integers(0, 3)))
            made = machine.identity()
            if committed:
                stands = made
            booted = machine.boot()
            if booted != stands:  # the cut came after the last operation
                assert booted.generation == stands.generation + 1
            stands = booted
        assert machine.end_epoch()[0]
        assert machine.boot().generation == stands.generation + 1


def test_an_interrupted_commit_can_be_repeated(machine: Machine, samples: Samples) -> None:
    """As after an error of a flash that works again: mdy_end_epoch is called twice on the same state."""
    _, new, operations = two_generations(machine, samples, first=False)
    for at in (1, 2, operations // 2, operations - 1, operations):
        machine.lib.cut_probe_restore()
        assert not machine.end_epoch(at, 1)[0]
        assert machine.end_epoch()[0]
        assert machine.boot() == new


# The host program, killed


@contextmanager
def host(compiled: Compiled, flash: Path) -> Iterator[tuple[Session, HostProgram]]:
    with HostProgram(compiled.image, flash) as program:
        yield Session(Link(program, 20.0)), program


def train(session: Session, samples: Samples, part: slice) -> list[tuple[float, int]]:
    results: list[Result] = [session.train(x, int(y)) for x, y in zip(samples.x[part], samples.y[part], strict=True)]
    return [(result.loss, result.prediction) for result in results]


Held = tuple[int, int, bytes, bytes]


def held(session: Session, position: Position) -> Held:
    """What a resumed training starts from."""
    return position.generation, position.epochs, session.read(STATE), session.read(WEIGHTS)


def resumed(compiled: Compiled, flash: Path) -> Held:
    with host(compiled, flash) as (session, _):
        return held(session, session.begin(RESUME))


@dataclass(frozen=True)
class Committed:
    """Two generations of the host program: the flash after the first, what both hold."""

    flash: bytes
    old: Held
    new: Held


@pytest.fixture(scope="module")
def committed(digitnet_host: Compiled, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Committed:
    path = tmp_path_factory.mktemp("flash") / "flash.bin"
    with host(digitnet_host, path) as (session, _):
        session.begin(FRESH)
        train(session, samples, slice(0, 6))
        session.commit()
    flash = path.read_bytes()
    old = resumed(digitnet_host, path)
    second_commit(digitnet_host, samples, path)
    new = resumed(digitnet_host, path)
    assert (old[0], new[0]) == (1, 2)
    assert old[2] != new[2]
    assert old[3] != new[3]
    return Committed(flash, old, new)


def second_commit(compiled: Compiled, samples: Samples, path: Path) -> int | None:
    """Trains two samples and commits; the status of a program that died meanwhile."""
    with host(compiled, path) as (session, program):
        session.begin(RESUME)
        train(session, samples, slice(6, 8))
        try:
            session.commit()
        except LinkError:
            assert program.process is not None
            return program.process.wait(10)
    return None


def cut(compiled: Compiled, samples: Samples, committed: Committed, path: Path, where: str) -> tuple[int | None, Held]:
    """(status of the program, what the next one finds) for one MDY_FLASH_CUT."""
    path.write_bytes(committed.flash)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MDY_FLASH_CUT", where)
        status = second_commit(compiled, samples, path)
    return status, resumed(compiled, path)


def operations_of(compiled: Compiled, samples: Samples, committed: Committed, path: Path) -> int:
    """Flash operations of the second commit: the largest N at which a cut still happens."""
    low, high = 1, 1 << 16
    while low < high:
        middle = (low + high + 1) // 2
        status, _ = cut(compiled, samples, committed, path, f"{middle}:before")
        low, high = (middle, high) if status is not None else (low, middle - 1)
    return low


def test_the_program_survives_a_cut_at_the_ends_and_in_the_middle_of_a_commit(
    digitnet_host: Compiled, samples: Samples, committed: Committed, tmp_path: Path
) -> None:
    """The first and last 30 operations, 20 between, and all phases; the test above has all operations."""
    path = tmp_path / "flash.bin"
    count = operations_of(digitnet_host, samples, committed, path)
    middle = np.random.default_rng(19).choice(np.arange(31, count - 29), 20, replace=False)
    for at in sorted({*range(1, 31), *middle.tolist(), *range(count - 29, count + 1)}):
        for phase in PHASES:
            status, found = cut(digitnet_host, samples, committed, path, f"{at}:{phase}")
            assert status == CUT_STATUS
            last = ([committed.old], [committed.old, committed.new], [committed.new])[PHASES.index(phase)]
            assert found in (last if at == count else [committed.old]), f"operation {at} of {count}, {phase}"
    status, found = cut(digitnet_host, samples, committed, path, f"{count + 1}:before")
    assert (status, found) == (None, committed.new)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        *(("CUT", text) for text in ("0:before", "3:during", "x:after", "-1:before", "3", "")),
        *(("FAIL", text) for text in ("0:1", "1:0", "1", "1:2:3", "1:x", "99999999999:1")),
        *(("BAD", text) for text in ("0:0", "0", ":4", "-1:4")),
        *(("SEED", text) for text in ("", "x", "1:2")),
    ],
)
def test_a_misspelt_fault_ends_the_program(
    digitnet_host: Compiled, tmp_path: Path, fault: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MDY_FLASH_{fault}", text)
    with host(digitnet_host, tmp_path / "flash.bin") as (session, program):
        with pytest.raises(LinkError):
            session.begin(FRESH)
        assert program.process is not None
        assert program.process.wait(10) == 2


# Banks


@pytest.fixture
def two_banks(digitnet_host: Compiled, samples: Samples, committed: Committed, tmp_path: Path) -> Path:
    """A flash that holds generations 1 and 2."""
    path = tmp_path / "flash.bin"
    path.write_bytes(committed.flash)
    assert second_commit(digitnet_host, samples, path) is None
    return path


def payload_bytes(committed: Committed) -> int:
    """Settings, state and weights of one generation."""
    return BANK_BODY_BYTES + len(committed.new[2]) + len(committed.new[3])


def banks(compiled: Compiled, committed: Committed, path: Path) -> tuple[int, int]:
    """Addresses of the older and the newer bank."""
    content = path.read_bytes()
    places = place_banks(compiled.flash.runs, payload_bytes(committed))
    older, newer = sorted((place.address for place in places), key=lambda at: struct.unpack_from("<I", content, at + 8))
    return older, newer


def damage(path: Path, address: int) -> None:
    content = bytearray(path.read_bytes())
    content[address] ^= 0x10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "place", [0, 4, 8, 20, 60, BANK_HEADER_BYTES, BANK_HEADER_BYTES + 1000, BANK_HEADER_BYTES + 9000]
)
def test_a_bank_with_a_damaged_byte_is_not_taken(
    digitnet_host: Compiled, committed: Committed, two_banks: Path, tmp_path: Path, place: int
) -> None:
    factory = resumed(digitnet_host, tmp_path / "other.bin")
    older, newer = banks(digitnet_host, committed, two_banks)
    damage(two_banks, newer + place)
    assert resumed(digitnet_host, two_banks) == committed.old
    damage(two_banks, older + place)
    # With no bank left the factory state; its next generation is still numbered after whole headers.
    assert resumed(digitnet_host, two_banks)[1:] == factory[1:]


def test_damage_behind_the_payload_does_not_matter(
    digitnet_host: Compiled, committed: Committed, two_banks: Path
) -> None:
    _, newer = banks(digitnet_host, committed, two_banks)
    damage(two_banks, newer + BANK_HEADER_BYTES + payload_bytes(committed) + 8)
    assert resumed(digitnet_host, two_banks) == committed.new


def test_rolling_back_gives_the_generation_before_and_then_the_factory(
    digitnet_host: Compiled, samples: Samples, committed: Committed, two_banks: Path
) -> None:
    with host(digitnet_host, two_banks) as (session, _):
        assert held(session, session.begin(RESUME)) == committed.new
        session.roll_back()
        with pytest.raises(LinkError, match="does not fit the state"):
            session.train(samples.x[0], 0)
        assert held(session, session.begin(RESUME)) == committed.old
        train(session, samples, slice(6, 8))
        session.commit()
        assert held(session, session.begin(RESUME)) == committed.new  # the same training once more
        for _ in range(2):
            session.roll_back()
            position = session.begin(RESUME)
        assert (position.generation, position.epochs, session.read(WEIGHTS)) == (0, 0, b"")
        with pytest.raises(LinkError, match="no valid generation"):
            session.roll_back()


def test_a_reset_gives_the_factory_state(digitnet_host: Compiled, two_banks: Path, tmp_path: Path) -> None:
    factory = resumed(digitnet_host, tmp_path / "other.bin")
    with host(digitnet_host, two_banks) as (session, _):
        session.begin(RESUME)
        session.reset()
        assert held(session, session.begin(RESUME)) == factory
    assert resumed(digitnet_host, two_banks) == factory


def test_a_fresh_start_leaves_the_banks_until_it_commits(
    digitnet_host: Compiled, samples: Samples, committed: Committed, two_banks: Path
) -> None:
    with host(digitnet_host, two_banks) as (session, _):
        session.begin(FRESH)
        assert session.read(WEIGHTS) == b""
        train(session, samples, slice(0, 6))
    assert resumed(digitnet_host, two_banks) == committed.new
    with host(digitnet_host, two_banks) as (session, _):
        session.begin(FRESH)
        train(session, samples, slice(0, 6))
        session.commit()
    again = resumed(digitnet_host, two_banks)
    assert again == (3, *committed.old[1:])  # the first generation's training, numbered after the second


def test_a_flash_file_of_another_size_is_refused(digitnet_host: Compiled, tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(bytes(100))
    with host(digitnet_host, path) as (session, _):
        begun = session.begin(FRESH)
        with pytest.raises(LinkError, match="flash refused"):
            session.commit()
    assert begun.generation == 0
    assert path.read_bytes() == bytes(100)


# Resuming


def finish(session: Session) -> tuple[int, int, int]:
    digests: Digests = session.digests()
    return digests.deltas, digests.state, digests.flash


@pytest.mark.parametrize("lost", [0, 5], ids=["between epochs", "inside an epoch"])
def test_training_goes_on_bit_for_bit_after_a_restart(
    digitnet_host: Compiled, samples: Samples, tmp_path: Path, lost: int
) -> None:
    cosine = Training(0.02, 2, 12, "cosine", seed=9, flip=True)
    with host(digitnet_host, tmp_path / "whole.bin") as (session, _):
        session.begin(cosine)
        first = train(session, samples, slice(0, 12))
        session.commit()
        second = train(session, samples, slice(12, 24))
        deltas = finish(session)
        session.commit()
        whole = finish(session)
    path = tmp_path / "parts.bin"
    with host(digitnet_host, path) as (session, program):
        session.begin(cosine)
        assert train(session, samples, slice(0, 12)) == first
        session.commit()
        train(session, samples, slice(12, 12 + lost))
        assert program.process is not None
        program.process.kill()
    with host(digitnet_host, path) as (session, _):
        # Everything but the flash is the user's to forget: seed, rate and schedule come from the bank.
        position = session.begin(Training(0.5, 7, 3, "constant", seed=1, fresh=False))
        assert (position.generation, position.epochs, position.steps, position.epoch_step) == (1, 1, 12, 0)
        assert train(session, samples, slice(12, 24)) == second
        assert finish(session) == deltas
        session.commit()
        assert finish(session) == whole
    assert path.read_bytes() == (tmp_path / "whole.bin").read_bytes()
