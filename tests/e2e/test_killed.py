# SPDX-License-Identifier: Apache-2.0
"""A training whose machine is killed, wherever it stands, ends with the same bits as one that was left alone."""

from __future__ import annotations

import contextlib
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from medyate.datasets import epoch_order
from medyate.errors import LinkError
from medyate.run.link import Link
from medyate.run.session import COMMIT, DATA, SELECTION, STATE, TRAIN, WEIGHTS, Session, Training
from medyate.run.train import Compiled
from medyate.run.transport import HostProgram, QemuProgram
from shared_files import Samples
from tiny import samples_of

KILLS, MOST_KILLS = 50, 100
EPOCHS = 5
EPOCH_SAMPLES = 2
"""Few, so that many kills meet a commit."""
LIFE_EPOCHS = 80
"""Most epochs between two kills, which come within the time that a start and so many epochs take."""


@dataclass(frozen=True)
class End:
    """What a training leaves: deltas before its last commit, then all that the next epoch starts from."""

    deltas: int
    state: bytes
    weights: bytes
    selection: bytes
    epochs: int
    steps: int


def plan_of(epochs: int) -> Training:
    """The same settings for every start but the first."""
    return Training(0.3, epochs, EPOCH_SAMPLES, "cosine", seed=11, flip=True, fresh=False)


def steps(session: Session, samples: Samples, epoch: int, count: int = EPOCH_SAMPLES) -> None:
    for i in epoch_order(11, epoch, len(samples.x))[:count]:
        session.train(samples.x[i], int(samples.y[i]))


def finish(session: Session, samples: Samples, epochs: int) -> End:
    """Trains up to the last epoch, from wherever the session stands."""
    deltas = 0
    for epoch in range(session.position.epochs, epochs):
        steps(session, samples, epoch)
        deltas = session.digests().deltas
        session.commit()
    at = session.position
    return End(deltas, *(session.read(kind) for kind in (STATE, WEIGHTS, SELECTION)), at.epochs, at.steps)


def qemu(compiled: Compiled, flash: Path) -> QemuProgram:
    return QemuProgram(compiled.image, str(compiled.model["target"]), flash, count_instructions=False)


def program(compiled: Compiled, flash: Path) -> HostProgram | QemuProgram:
    return HostProgram(compiled.image, flash) if compiled.model["target"] == "host" else qemu(compiled, flash)


def alone(compiled: Compiled, flash: Path, epochs: int, until: int | None = None) -> End:
    """A training of so many epochs that nobody interrupts, or its first part."""
    with program(compiled, flash) as target:
        session = Session(Link(target, 20.0))
        session.begin(plan_of(epochs))
        return finish(session, samples_of(compiled), until or epochs)


def interrupted(compiled: Compiled, flash: Path, after: int, lost: int) -> End:
    """Killed `lost` steps into the epoch that follows `after` commits, and resumed."""
    samples = samples_of(compiled)
    with program(compiled, flash) as target:
        session = Session(Link(target, 20.0))
        session.begin(plan_of(EPOCHS))
        finish(session, samples, after)
        steps(session, samples, after, lost)
        assert target.process is not None
        target.process.kill()
    with program(compiled, flash) as target:
        session = Session(Link(target, 20.0))
        assert session.begin(plan_of(EPOCHS)).epochs == after
        return finish(session, samples, EPOCHS)


@pytest.fixture(scope="module")
def whole(tiny_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> End:
    end = alone(tiny_host, tmp_path_factory.mktemp("whole") / "flash.bin", EPOCHS)
    assert end.deltas != 0
    return end


@pytest.mark.parametrize("after", range(EPOCHS))
def test_after_any_epoch(tiny_host: Compiled, whole: End, after: int, tmp_path: Path) -> None:
    for lost in range(EPOCH_SAMPLES + 1):
        assert interrupted(tiny_host, tmp_path / f"{lost}.bin", after, lost) == whole


def test_on_a_cortex_m7(tiny_m7: Compiled, whole: End, tmp_path: Path) -> None:
    assert interrupted(tiny_m7, tmp_path / "flash.bin", 2, 1) == whole


@contextmanager
def killed(target: QemuProgram | HostProgram, after: float) -> Iterator[None]:
    """SIGKILL after so many seconds; what is asked of the target then fails."""
    assert target.process is not None
    timer = threading.Timer(after, target.process.kill)
    timer.start()
    with contextlib.suppress(LinkError):
        yield
    timer.join()
    assert target.process.wait(10) == -signal.SIGKILL


def ahead(samples: Samples, first: int, link: Link) -> bytes:
    """The requests of LIFE_EPOCHS epochs in the link's session, for a target that then never waits for its host."""
    requests: list[tuple[int, bytes]] = []
    for epoch in range(first, first + LIFE_EPOCHS):
        for i in epoch_order(11, epoch, len(samples.x))[:EPOCH_SAMPLES]:
            requests.append((DATA, bytes(4) + samples.x[i].tobytes()))
            requests.append((TRAIN, struct.pack("<H", samples.y[i])))
        requests.append((COMMIT, b""))
    return b"".join(link.frame(command, fields) for command, fields in requests)


def timed(compiled: Compiled, flash: Path) -> tuple[float, float]:
    """Seconds of a start with LIFE_EPOCHS epochs, and of as many sent ahead."""
    begun = time.monotonic()
    alone(compiled, flash, LIFE_EPOCHS)
    life = time.monotonic() - begun
    with qemu(compiled, flash) as target:
        session = Session(Link(target, 20.0))
        session.begin(plan_of(2 * LIFE_EPOCHS))
        requests = ahead(samples_of(compiled), LIFE_EPOCHS, session.link)
        begun = time.monotonic()
        target.write(requests)
        left = requests.count(0)
        while left:
            came = target.read(20.0)
            assert came, f"{left} requests are not answered"
            left -= came.count(0)
        assert session.begin(plan_of(2 * LIFE_EPOCHS)).epochs == 2 * LIFE_EPOCHS
        return life, time.monotonic() - begun


def test_at_random_instants(tiny_host: Compiled, tiny_m7: Compiled, tmp_path: Path) -> None:
    """SIGKILL to QEMU, whose flash is a file; every other time while it has 80 epochs to go without a pause."""
    epochs = LIFE_EPOCHS * MOST_KILLS + 1  # never reached before the last kill
    life, burst = timed(tiny_m7, tmp_path / "timed.bin")
    flash, samples, random = tmp_path / "flash.bin", samples_of(tiny_m7), np.random.default_rng(50)
    stood, found = [0], []

    def begin(target: QemuProgram) -> Session:
        session = Session(Link(target, 20.0))
        position = session.begin(plan_of(epochs))
        assert position.epochs >= stood[-1]  # nothing that was committed is lost
        stood.append(position.epochs)
        found.append(position.start())
        return session

    for kill in range(MOST_KILLS):
        if kill >= KILLS and any("not finished" in text or "damaged" in text for text in found):
            break  # at least one met a commit, of 50 about five do
        share = float(random.uniform())
        with qemu(tiny_m7, flash) as target:
            if kill % 2:
                session = begin(target)
                with killed(target, share * burst):
                    target.write(ahead(samples, stood[-1], session.link))
            else:
                with killed(target, share * life):
                    session = begin(target)
                    finish(session, samples, stood[-1] + LIFE_EPOCHS)
    with qemu(tiny_m7, flash) as target:
        end = finish(begin(target), samples, stood[-1] + LIFE_EPOCHS)
    assert end == alone(tiny_host, tmp_path / "alone.bin", epochs, end.epochs)
    assert 0 < stood[-1] < epochs
